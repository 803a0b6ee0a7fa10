"""Kick and call: the two eventfds of a virtqueue, from descriptors that somebody else made.

The other side shares the open file description with us, so its flags are not ours to change, and
neither may a call on it block the daemon:

- A kick adds 1, which may block once the counter is at its end. So poll(2) is asked first, and a
  full counter is left alone: whoever has not read that many kicks will find one.
- A call is read with RWF_NOWAIT, since another reader may have been faster.
"""

import asyncio
import contextlib
import errno
import os
import select
from pathlib import Path

from vdpad.errors import VdpadError

_ONE = (1).to_bytes(8, "little")
_COUNTER = 8


class NotAnEventfd(VdpadError):
    """A descriptor that cannot serve as a kick or a call."""


def check_eventfd(fd: int, what: str) -> None:
    """Refuses a descriptor that is not an eventfd.

    Raises:
        NotAnEventfd: by the name of `what`.
    """
    try:
        text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    except OSError as error:
        raise NotAnEventfd(f"expected the {what} eventfd, got {error.strerror}") from error
    if "eventfd-count:" not in text:
        raise NotAnEventfd(f"expected an eventfd as the {what}, got another kind of descriptor")


class EventfdSender:
    """The sending side: our doorbell, or a device's interrupt."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def __call__(self) -> None:
        """Notifies once."""
        if not self._poll.poll(0):
            return
        with contextlib.suppress(BlockingIOError):
            os.write(self._fd, _ONE)


class Waiter:
    """The receiving side. One waiter at a time, and nobody else may read the descriptor.

    The loop watches the descriptor from the first wait until `close`: registering it anew for each
    wait costs more than all the rest of a wake-up.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Future[None] | None = None
        self._notified = False

    async def wait(self, seconds: float) -> None:
        """Returns when it was notified since the last wait, or after so many seconds.

        Cancellation loses nothing: a notification that comes then is kept for the next wait.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._fd, self._readable)
        if not self._notified:
            self._woken = self._loop.create_future()
            timer = self._loop.call_later(seconds, self._wake)
            try:
                await self._woken
            finally:
                timer.cancel()
                self._woken = None
        self._notified = False

    def close(self) -> None:
        """Ends the watch. The descriptor stays open."""
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._loop = None

    def _readable(self) -> None:
        self._drain()
        self._notified = True
        self._wake()

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def _drain(self) -> None:
        try:
            os.preadv(self._fd, [bytearray(_COUNTER)], -1, os.RWF_NOWAIT)
        except BlockingIOError:
            pass
        except OSError as error:
            # Kernels before 5.9 cannot read an eventfd so; there nobody else may read it either.
            if error.errno != errno.EOPNOTSUPP:
                raise
            os.read(self._fd, _COUNTER)
