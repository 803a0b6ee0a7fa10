"""A descriptor of another's, read or written to its end, whatever it is.

Whoever sent it chooses what it is: a pipe as a rule, but a file on FUSE, a terminal or a socket is
taken as well. Its flags are shared with whoever else has it, so none of ours would keep a call on
it from sleeping. So each is worked off on a thread, by a copy of the descriptor that is the
thread's own, and the event loop waits for no more than the thread's word.

A thread asks poll(2) before each step, for the descriptor and for an eventfd that calls it off: so
one that nobody waits for any more ends at once, unless somebody has taken between the two what
poll(2) had seen. Such threads may sleep on. There are few at most, and then no more transfers.

poll(2) may say that one is ready which then gives and takes nothing, for as long as its sender
likes: a socket that does not block and whose error queue nobody reads, an eventfd that has no room
for what is written. So a thread that was told so looks again after a while, and not at once.
"""

import asyncio
import os
import select
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from vdpad.backend.faults import BackEndError
from vdpad.errors import why
from vdpad.service.threads import on_a_thread
from vdpad.wire.user_threads import NoThread

T = TypeVar("T")

# As much as a pipe takes or gives at once, where poll(2) says that it does: PIPE_BUF.
_STEP = 4096
_READ = 1 << 16

# How long one that is ready and does nothing is left alone, in ms. Stops it from taking a whole
# processor.
_LOOKS_AGAIN = 10

# How long one that was called off is waited for, in seconds. All but those that sleep on end.
_LETS_GO = 0.2

# Stops descriptors that never let go of their threads from taking all that a process may have.
_MOST_ASLEEP = 8


class BadTransfer(BackEndError):
    """A state that does not come or go to its end."""


class _CalledOff(BackEndError):
    """Nobody waits for it any more."""


class ForeignFiles:
    """Those of one device, one after the other."""

    def __init__(self) -> None:
        """None is under way."""
        self.asleep = 0
        """Threads that nobody waits for, and that have not ended."""

    async def read(self, fd: int, most: int) -> bytes:
        """Reads up to the end. On cancellation nothing uses the descriptor any more.

        Args:
            fd: it stays the caller's.
            most: how many bytes are read at most; one more says that there are too many.

        Raises:
            BadTransfer: it cannot be read.
        """
        return await self._work_off(fd, lambda own, waits: _read(own, waits, most))

    async def write(self, fd: int, data: bytes) -> None:
        """Writes all of it; as of `read`.

        Raises:
            BadTransfer: it cannot be written.
        """
        await self._work_off(fd, lambda own, waits: _write(own, waits, data))

    async def _work_off(self, fd: int, work: Callable[[int, "_Waits"], T]) -> T:
        if self.asleep >= _MOST_ASLEEP:
            raise BadTransfer(
                f"expected at most {_MOST_ASLEEP} earlier descriptors that nobody reads or writes, "
                "got as many; close them"
            )
        thread, call_off = _begun(fd, work)
        try:
            return await asyncio.shield(thread)
        except asyncio.CancelledError:
            os.eventfd_write(call_off, 1)
            self.asleep += 1
            thread.add_done_callback(self._woke)
            await asyncio.wait([thread], timeout=_LETS_GO)
            raise
        finally:
            thread.add_done_callback(lambda _: os.close(call_off))

    def _woke(self, thread: "asyncio.Future[T]") -> None:
        self.asleep -= 1
        # Nobody else looks at what became of it.
        thread.exception()


def _begun(fd: int, work: Callable[[int, "_Waits"], T]) -> "tuple[asyncio.Future[T], int]":
    """Work on a thread, and the eventfd that calls it off; the caller closes that.

    Raises:
        BadTransfer: the system gives no descriptors, or no thread.
    """
    with ExitStack() as undo:
        try:
            call_off = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, call_off)
            own = os.dup(fd)
            undo.callback(os.close, own)
            thread = on_a_thread(lambda: _on_thread(own, call_off, work), "device state")
        except (OSError, NoThread) as error:
            raise BadTransfer(
                f"expected the system to give what moving a state takes, got {why(error)}; raise "
                "the limit that this names (LimitNOFILE= of a unit for files)"
            ) from error
        undo.pop_all()
    return thread, call_off


def _on_thread(own: int, call_off: int, work: Callable[[int, "_Waits"], T]) -> T:
    try:
        return work(own, _Waits(own, call_off))
    except OSError as error:
        raise BadTransfer(f"expected a descriptor to move a state by, got {why(error)}") from error
    finally:
        # Before anybody hears of the end: its reader waits for the last copy to be closed.
        os.close(own)


class _Waits:
    """What a thread waits for between two steps. Each ends in _CalledOff when it is called off."""

    def __init__(self, fd: int, call_off: int) -> None:
        self._fd = fd
        self._call_off = call_off

    def until_ready(self, event: int) -> None:
        """Returns when the descriptor is ready, or in an error that the next call on it tells."""
        poll = select.poll()
        poll.register(self._fd, event)
        self._wait(poll, None)

    def a_while(self) -> None:
        """Returns after _LOOKS_AGAIN."""
        self._wait(select.poll(), _LOOKS_AGAIN)

    def _wait(self, poll: select.poll, timeout: int | None) -> None:
        poll.register(self._call_off, select.POLLIN)
        ready = [each for each, _ in poll.poll(timeout)]
        if self._call_off in ready:
            raise _CalledOff("nobody waits for the state any more")


def _read(fd: int, waits: _Waits, most: int) -> bytes:
    whole = bytearray()
    while len(whole) <= most:
        waits.until_ready(select.POLLIN)
        try:
            some = os.read(fd, min(_READ, most + 1 - len(whole)))
        except BlockingIOError:
            waits.a_while()
            continue
        if not some:
            break
        whole += some
    return bytes(whole)


def _write(fd: int, waits: _Waits, data: bytes) -> None:
    left = memoryview(data)
    while left:
        waits.until_ready(select.POLLOUT)
        try:
            left = left[os.write(fd, left[:_STEP]) :]
        except BlockingIOError:
            waits.a_while()
