"""The thread of a software device with data queues: it serves, and does what it is asked for.

How it works. All that the device is belongs to this thread. Whoever drives the device hands it a
*step* and waits for its end, so no lock is needed, and none sees a ring in the midst of a packet.
In between the thread sleeps until a doorbell that it *watches* rings, or while there is nothing to
serve.

Python's other threads run while it sleeps. A look for doorbells is too short for that: it is over
before who waits for the interpreter is awake, and who is woken so in vain asks the thread for
nothing, and waits anew. So where it always has more to serve, it sleeps for a moment every few
milliseconds. One round of serving is to be short.

It may *listen* to other files too, which it leaves unread: whoever serves reads them, or listens no
more, or else the thread would not sleep.

Doorbells and interrupts are eventfds that somebody else shares and may fill or drain. Reading is
done by RWF_NOWAIT. A write that sleeps holds up nobody but its own device; and a step that waits
for that has the counter drained, so that the device can be taken away from whoever does it.
"""

import contextlib
import errno
import os
import select
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from vdpad.errors import VdpadError
from vdpad.wire.user_threads import start_thread

T = TypeVar("T")

_COUNTER = 8

# How long a step waits before it looks whether the thread sleeps in a write, in seconds.
_PATIENCE = 0.5

# How often queues without a doorbell are looked at, in seconds.
_POLL = 0.001


# For how long it works on, and sleeps then, in seconds; the kernel makes some 70 µs of the latter.
_WORKS, _SLEEPS = 0.005, 20e-6


class DeviceEnded(VdpadError):
    """The device's thread is no more."""


class Interrupt:
    """An eventfd by which a driver hears of what was returned; a copy of the driver's."""

    def __init__(self, fd: int) -> None:
        """
        Args:
            fd: copied, and not needed afterwards.
        """
        self._fd = os.dup(fd)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)

    def __call__(self) -> None:
        """Notifies once. A counter at its end is left alone: whoever reads it is notified."""
        if self._poll.poll(0):
            os.eventfd_write(self._fd, 1)

    def unblock(self) -> None:
        """Drains a counter that is full, so that a write that sleeps comes to its end."""
        # Not the poll of who notifies, which is another thread.
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if not poll.poll(0):
            drain(self._fd)

    def close(self) -> None:
        """Closes the copy."""
        os.close(self._fd)


class Worker:
    """The thread. `watch`, `listen` and their ends are for steps, and for what serves."""

    def __init__(self, serve: Callable[[], bool], unblock: Callable[[], None], name: str) -> None:
        """Begins at once.

        Args:
            serve: one round of work; whether there is more to do at once.
            unblock: called on other threads where this one may sleep in a notification.
            name: of the thread.

        Raises:
            NoThread: there is none.
            OSError: the system gives no descriptors.
        """
        self._serve = serve
        self._unblock = unblock
        self._steps: deque[Callable[[], None]] = deque()
        self._polled = 0
        self._listened: set[int] = set()
        self._ended = False
        with contextlib.ExitStack() as undo:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, self._wake)
            self._epoll = undo.enter_context(select.epoll())
            self._epoll.register(self._wake, select.EPOLLIN)
            self._thread = start_thread(self._work, name)
            undo.pop_all()

    def do(self, step: Callable[[], T]) -> T:
        """Has the thread do something, and returns what came of it.

        Raises:
            DeviceEnded: there is no thread any more.
        """
        done: Future[T] = Future()
        self._steps.append(partial(_settle, done, step))
        os.eventfd_write(self._wake, 1)
        while True:
            with contextlib.suppress(TimeoutError):
                return done.result(_PATIENCE)
            if done.done():
                return done.result()
            if not self._thread.is_alive():
                raise DeviceEnded("expected a software device that runs, its thread has ended")
            self._unblock()

    def end(self) -> None:
        """Ends the thread. Nothing may follow."""
        self.do(self._end)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    def watch(self, doorbell: int | None) -> None:
        """Serves when this rings, or where there is none, all the time."""
        if doorbell is None:
            self._polled += 1
        else:
            self._epoll.register(doorbell, select.EPOLLIN)

    def unwatch(self, doorbell: int | None) -> None:
        """Ends that."""
        if doorbell is None:
            self._polled -= 1
        else:
            self._epoll.unregister(doorbell)

    def listen(self, fd: int) -> None:
        """Serves while there is something to read, or the other end is gone. May be called again.

        Args:
            fd: stays the caller's, who ends it before he closes it.
        """
        if fd not in self._listened:
            self._epoll.register(fd, select.EPOLLIN)
            self._listened.add(fd)

    def unlisten(self, fd: int) -> None:
        """Ends that. May be called again."""
        if fd in self._listened:
            self._epoll.unregister(fd)
            self._listened.remove(fd)

    def _end(self) -> None:
        self._ended = True

    def _work(self) -> None:
        more, slept = False, time.monotonic()
        while not self._ended:
            if not more:
                slept = time.monotonic()
            elif time.monotonic() - slept > _WORKS:
                time.sleep(_SLEEPS)
                slept = time.monotonic()
            seconds = 0 if more else _POLL if self._polled else None
            for fd, _ in self._epoll.poll(seconds):
                if fd not in self._listened:
                    drain(fd)
            while self._steps and not self._ended:
                self._steps.popleft()()
            more = not self._ended and self._serve()


def _settle(done: "Future[T]", step: Callable[[], T]) -> None:
    try:
        result = step()
    except BaseException as error:
        done.set_exception(error)
    else:
        done.set_result(result)


def drain(fd: int) -> None:
    """Reads an eventfd's counter, whoever else may be faster."""
    try:
        os.preadv(fd, [bytearray(_COUNTER)], -1, os.RWF_NOWAIT)
    except BlockingIOError:
        pass
    except OSError as error:
        # Kernels before 5.9 cannot read an eventfd so.
        if error.errno != errno.EOPNOTSUPP:
            raise
        os.read(fd, _COUNTER)
