"""Descriptors that others hand over: received with room for all, and closed where nobody waits.

Whoever sends a descriptor chooses what its closing does. close(2) of a TCP socket with SO_LINGER
sleeps for seconds, that of a file on FUSE until its server answers, and that of the last copy of a
large memfd until its pages are freed. So foreign descriptors are closed on threads, each user's on
his own (user_threads.py).

What waits to be closed is bounded: past it a receiver reads no more until some are gone, since the
kernel closes what a receiver has no room for within its own recvmsg(2). A connection tells whose
descriptors come before they are received, and so waits for its own user's (`are_too_many_of`), and
for all users' only past half as much again. A datagram does not tell, and so waits for all users'
(`are_too_many`): whoever sends descriptors that never close stops datagrams, and no connections but
his own.

Model: systemd closes what it is sent on a thread of its own (asynchronous_close).
"""

import array
import asyncio
import contextlib
import os
import resource
import socket
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from vdpad.wire.user_threads import NoThread, UserThreads

# Linux net/core/scm.h, SCM_MAX_FD: more ride on no message.
MAX_RECEIVED = 253

# How many may wait to be closed, of all users; half as many again where they come over connections.
# Stops stuck ones from taking all that a process may have (LimitNOFILE= of the units is 14336). Of
# a process that may have few they are a third: what there is no room for, the kernel closes within
# our recvmsg(2).
_MAX_WAITING = 4096
_PART = 3

# And of one user's before his connections wait. Stops him from making others' wait, datagrams too.
_MAX_OF_ONE = 1024
_PART_OF_ONE = 4

# How long descriptors wait for the thread, in seconds: while a guest is stopped none should wake.
# So many go at once all the same.
_LATER = 0.02
_MAX_DEFERRED = 256

# How long they wait where the system gives no thread, in seconds.
_TRIES_AGAIN = 1.0

INT = array.array("i").itemsize

RIGHTS_SIZE = socket.CMSG_SPACE(MAX_RECEIVED * INT)
"""Bytes of ancillary data that all descriptors of one message take."""


def received(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in what recvmsg(2) gave. They are the caller's to close."""
    return [
        fd
        for level, kind, payload in ancillary
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS
        for fd in _integers(payload)
    ]


def _integers(payload: bytes) -> Iterator[int]:
    fds = array.array("i")
    fds.frombytes(payload[: len(payload) - len(payload) % INT])
    return iter(fds)


class Closer:
    """Closes foreign descriptors. One serves a process (`CLOSER`); methods are the loop's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._room = _room()
        self._waiting: Counter[int] = Counter()
        """Descriptors handed to threads and not closed yet, by user."""
        self._threads = UserThreads("close")
        self._deferred: list[tuple[int, Sequence[int]]] = []
        """What goes to the threads in a moment."""
        self._number_deferred = 0
        self._first: list[Callable[[], None]] = []
        """What is done before that."""
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        """Where that moment was asked for."""
        self._relieved: dict[int | None, list[Callable[[], None]]] = {}
        """Who waits for room, by whose descriptors come; None where that is not told before."""

    def close(self, uid: int, fds: Sequence[int]) -> None:
        """Has some descriptors closed, some time after this.

        Args:
            uid: of whoever sent them; -1 where that is not known.
            fds: not the caller's any more.
        """
        if not fds:
            return
        self._deferred.append((uid, fds))
        self._number_deferred += len(fds)
        self._flush_soon()

    def let_go(self, work: Callable[[], None], descriptors: int) -> None:
        """Has a lent ring's memory let go of in the same moment, and then its descriptors.

        Args:
            work: what does it. It has the descriptors closed, raises nothing and does not sleep.
            descriptors: how many these are.
        """
        self._first.append(work)
        self._number_deferred += descriptors
        self._flush_soon()

    def _flush_soon(self) -> None:
        loop = _running_loop()
        if loop is None or self._number_deferred > _MAX_DEFERRED:
            self.flush()
        else:
            self._flush_later(loop, _LATER)

    def _flush_later(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        if self._loop is None or self._loop() is not loop:
            self._loop = weakref.ref(loop)
            loop.call_later(seconds, self.flush)

    def flush(self) -> None:
        """Hands all that is deferred to the threads; what none is had for, again in a while."""
        first, self._first = self._first, []
        for work in first:
            work()
        self._loop = None
        deferred, self._deferred, self._number_deferred = self._deferred, [], 0
        for uid, fds in deferred:
            try:
                self._hand_over(uid, fds)
            except NoThread:
                self._deferred.append((uid, fds))
                self._number_deferred += len(fds)
        loop = _running_loop()
        if self._deferred and loop is not None:
            self._flush_later(loop, _TRIES_AGAIN)

    @property
    def waiting(self) -> int:
        """How many descriptors are not closed yet."""
        if not self._waiting:
            return self._number_deferred
        with self._lock:
            return self._number_deferred + self._waiting.total()

    def by_user(self) -> list[tuple[int, int]]:
        """Uids with how many descriptors of theirs a thread has not closed yet, most first."""
        with self._lock:
            return self._waiting.most_common()

    @property
    def are_too_many(self) -> bool:
        """Whether no more should be received now where nobody can tell whose they will be."""
        return self.waiting >= self._most

    def are_too_many_of(self, uid: int) -> bool:
        """Whether no more of this user's should be received now."""
        with self._lock:
            of_one, of_all = self._waiting[uid], self._waiting.total()
        return of_one >= self._most_of_one or 2 * of_all >= 3 * self._most

    def when_relieved(self, call: Callable[[], None], uid: int | None = None) -> None:
        """Calls back once there is room again, on a thread of its own.

        Args:
            call: raises nothing.
            uid: whose descriptors are to be received; None where that is not told before.
        """
        with self._lock:
            self._relieved.setdefault(uid, []).append(call)

    async def relieved(self, uid: int) -> None:
        """Returns once there is room for this user's. Cancellation leaves nothing behind."""
        loop = asyncio.get_running_loop()
        there_is: asyncio.Future[None] = loop.create_future()

        def say() -> None:
            if not there_is.done():
                there_is.set_result(None)

        self.when_relieved(partial(call_soon, loop, say), uid)
        await there_is

    # --- the threads ---

    def _hand_over(self, uid: int, fds: Sequence[int]) -> None:
        """
        Raises:
            NoThread: they are as they were.
        """
        with self._lock:
            self._waiting[uid] += len(fds)
        try:
            self._threads.do(uid, partial(self._close_each, uid, fds))
        except NoThread:
            with self._lock:
                self._waiting -= Counter({uid: len(fds)})
            raise

    def _close_each(self, uid: int, fds: Sequence[int]) -> None:
        for fd in fds:
            _close(fd)
            self._closed(uid)

    def _closed(self, uid: int) -> None:
        with self._lock:
            self._waiting[uid] -= 1
            if not self._waiting[uid]:
                del self._waiting[uid]
            roomy = [each for each in self._relieved if self._has_room_again(each)]
            relieved = [call for each in roomy for call in self._relieved.pop(each)]
        for call in relieved:
            call()

    def _has_room_again(self, uid: int | None) -> bool:
        """Whether so many are gone that it pays to receive more. The lock is held."""
        of_all = self._waiting.total()
        if uid is None:
            return of_all < self._most // 2
        return self._waiting[uid] < self._most_of_one // 2 and of_all < self._most

    @property
    def _most(self) -> int:
        return min(_MAX_WAITING, self._room)

    @property
    def _most_of_one(self) -> int:
        return min(_MAX_OF_ONE, self._room // _PART_OF_ONE)


def _room() -> int:
    """How many of the descriptors that this process may have may be in the threads' hands."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_WAITING if most == resource.RLIM_INFINITY else most // _PART


def call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """From another thread; a loop that has ended needs no more calls."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        # What a late write came to (EIO, ENOSPC) is the sender's affair; it is closed all the same.
        return


CLOSER = Closer()
"""This process's."""
