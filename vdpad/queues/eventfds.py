"""Kick and call: the two eventfds of a virtqueue, from descriptors that somebody else made.

The other side shares the open file description with us: its flags and its counter change as it
pleases, and neither may a call on it block the daemon, nor may it keep the daemon busy:

- A kick adds 1, which blocks while the counter is at its end. So poll(2) is asked first, and a full
  counter is left alone: whoever has not read that many kicks will find one. Who fills it between
  the two has the write sleep, and no flag of ours would help, since O_NONBLOCK is theirs too. So
  while foreign eventfds are in use a timer ticks, whose signal interrupts a write that sleeps
  (eventfd_write in Linux fs/eventfd.c waits interruptibly), and that eventfd is rung no more.
- A call is read with RWF_NOWAIT, since another reader may have been faster. One that is readable
  again and again (EFD_SEMAPHORE, a writer in a loop) is looked at so often, and then now and then.
"""

import asyncio
import errno
import os
import re
import select
import signal
import threading

# signal.getsignal is this, and then looks for an enum's member that there is none of, which takes
# longer than all else of a kick.
from _signal import getsignal as _handler_of  # type: ignore[import-not-found]
from contextlib import AbstractContextManager

from vdpad.errors import VdpadError

UNKNOWN_EVENTFD = (1 << 64) - 1

# In /proc/PID/fdinfo/FD: Linux fs/eventfd.c, eventfd_show_fdinfo, behind some 100 bytes.
_COUNT = b"\neventfd-count:"
_NUMBER = re.compile(rb"\neventfd-id:\s*([0-9]+)\n")
_FDINFO = 1024

_ONE = (1).to_bytes(8, "little")
_COUNTER = 8

# How often the timer ticks, in seconds: a kick may keep the event loop for two ticks.
_TICK = 0.01

# So many calls in a row are taken as they come, which is more than a batch brings; each further one
# has the descriptor left alone for so many seconds. Stops a call that stays readable from taking a
# whole processor.
_CALLS_IN_A_ROW = 1024
_PACE = 0.001


class NotAnEventfd(VdpadError):
    """A descriptor that cannot serve as a kick or a call."""


def check_eventfd(fd: int, what: str) -> int:
    """Refuses a descriptor that is not an eventfd. Asks no file system, as fstat would.

    Returns:
        The kernel's number of it, which no other eventfd has for as long as it is open anywhere;
        UNKNOWN_EVENTFD before Linux 5.2, which tells none.

    Raises:
        NotAnEventfd: by the name of `what`.
    """
    try:
        info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            told = os.read(info, _FDINFO)
        finally:
            os.close(info)
    except OSError as error:
        raise NotAnEventfd(f"expected the {what} eventfd, got {error.strerror}") from error
    if _COUNT not in told:
        raise NotAnEventfd(f"expected an eventfd as the {what}, got another kind of descriptor")
    found = _NUMBER.search(told)
    return UNKNOWN_EVENTFD if found is None else int(found[1])


class _KickSlept(VdpadError):
    """Raised by the timer's handler, in the midst of a write that sleeps."""


class _Ticking:
    """The timer of this process, and the write that it watches. SIGALRM is its own."""

    users = 0
    fd: int | None = None
    """The eventfd that is being written to."""
    ticks = 0
    """That came into the write."""


def _tick(_signal: int, _frame: object) -> None:
    # The first may come just before or after the call, which then goes on; after it a write that
    # sleeps is begun again by Python (PEP 475). Such a one meets a second, at a counter that is
    # full; any other meets one where the processor was taken from us, and must not be given up.
    if _Ticking.fd is not None:
        _Ticking.ticks += 1
        if _Ticking.ticks > 1 and not _has_room(_Ticking.fd):
            _Ticking.fd = None
            raise _KickSlept


class _Ticks:
    """The timer ticks while it is entered, by however many; on the main thread only."""

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        _Ticking.users += 1
        if _Ticking.users == 1:
            if _handler_of(signal.SIGALRM) is not _tick:
                signal.signal(signal.SIGALRM, _tick)
            signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        _Ticking.users -= 1
        if not _Ticking.users:
            signal.setitimer(signal.ITIMER_REAL, 0)


_TICKS = _Ticks()


def kicks_that_do_not_block() -> AbstractContextManager[None]:
    """Within it no kick of this process's main thread sleeps for more than two ticks.

    On another thread it changes nothing: only the main one runs the handlers of signals.
    """
    return _TICKS


class EventfdSender:
    """The sending side: our doorbell, or a device's interrupt."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = _polls_for_room(fd)
        self._blocks = False

    def __call__(self) -> None:
        """Notifies once; where the counter is full already, the other side has been told."""
        if self._blocks or not self._poll.poll(0):
            return
        try:
            _Ticking.ticks = 0
            _Ticking.fd = self._fd
            os.write(self._fd, _ONE)
            _Ticking.fd = None
        except BlockingIOError:
            _Ticking.fd = None
        except _KickSlept:
            self._blocks = True


def _polls_for_room(fd: int) -> select.poll:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return poll


def _has_room(fd: int) -> bool:
    return bool(_polls_for_room(fd).poll(0))


class Waiter:
    """The receiving side. One waiter at a time, and nobody else may read the descriptor.

    The loop watches the descriptor from the first wait until `close`, but for pauses where calls
    come too often: registering it anew for each wait costs more than all the rest of a wake-up.
    """

    def __init__(self, fd: int, *, paced: bool = True) -> None:
        """
        Args:
            fd: it stays the caller's.
            paced: leave it alone for a moment where calls come too often; not for a process that
                serves nobody but who calls.
        """
        self._fd = fd
        self._paced = paced
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Future[None] | None = None
        self._notified = False
        self._in_a_row = 0
        """Calls since a wait last ended by its time, with the descriptor watched."""
        self._paused: asyncio.TimerHandle | None = None
        self._paused_meanwhile = False
        """Whether the descriptor was left alone at any time of this wait."""

    async def wait(self, seconds: float) -> None:
        """Returns when it was notified since the last wait, or after so many seconds.

        Cancellation loses nothing: a notification that comes then is kept for the next wait.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._fd, self._readable)
        if not self._notified:
            self._woken = self._loop.create_future()
            self._paused_meanwhile = self._paused is not None
            timer = self._loop.call_later(seconds, self._time_is_up)
            try:
                await self._woken
            finally:
                timer.cancel()
                self._woken = None
        self._notified = False

    def close(self) -> None:
        """Ends the watch. The descriptor stays open."""
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
        if self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._loop = None

    def _readable(self) -> None:
        self._drain()
        self._notified = True
        self._wake()
        self._in_a_row += 1
        if self._paced and self._in_a_row > _CALLS_IN_A_ROW and self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._paused = self._loop.call_later(_PACE, self._look_again)
            self._paused_meanwhile = True

    def _look_again(self) -> None:
        assert self._loop is not None
        self._paused = None
        self._loop.add_reader(self._fd, self._readable)

    def _time_is_up(self) -> None:
        if not self._paused_meanwhile:
            self._in_a_row = 0
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
