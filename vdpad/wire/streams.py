"""A connected Unix stream of messages: each ends with a NUL byte, and descriptors may ride on it.

The kernel keeps no message's bounds: one recvmsg(2) may take the end of one sending and the
beginning of the next, and what rode on either. So what there is is looked at first (MSG_PEEK), and
never more is taken than up to a message's end. What descriptors come with a piece are then of its
message: those of one sendmsg(2) belong to the message that its first byte belongs to.

Nobody is hurried while nothing is under way: a connection may rest for as long as it likes. From a
message's first byte on its sender has so long for the rest, and a reader so long for a reply, so
that who drips bytes or does not read is cut off.

The limits on what comes in stand here, each with the attack that it stops.
"""

import array
import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from vdpad.errors import VdpadError
from vdpad.wire import readiness
from vdpad.wire.datagrams import MAX_DESCRIPTORS
from vdpad.wire.descriptors import CLOSER, RIGHTS_SIZE, received

# docs/api.md: "A message is at most 4 MiB", its NUL byte not counted. Stops memory and parsing time
# from being the sender's choice.
MAX_MESSAGE = 4 * 1024 * 1024

# How much is taken at once. Stops one who sends a lot from keeping the event loop.
_PIECE = 64 * 1024

# Up to so many bytes a message is read on as it comes; a guest's state does not reach it.
SMALL = 16 * 1024

# How long a message may take from its first byte to its last, and a reply until it is read, in
# seconds. Stops those who drip or do not read from holding what their message takes.
PATIENCE = 10.0

_UCRED = struct.Struct("iII")


class BadStream(VdpadError):
    """What comes is no message, or is not taken in time: the end of the connection."""


class TooLong(BadStream):
    """A message of more than MAX_MESSAGE bytes."""


class CutOff(BadStream):
    """The other end closed in the midst of a message."""


class Stalled(BadStream):
    """The other end did not send the rest of a message in time, or did not read a reply."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is at the other end, by the kernel's word: whoever called connect(2), as of then."""

    pid: int
    uid: int
    gid: int


@dataclass(slots=True)
class Message:
    """What came, and what rode on it. The descriptors are its receiver's to close."""

    data: bytes
    """Without its NUL byte."""
    fds: list[int] = field(default_factory=list)
    too_many_fds: bool = False
    """More descriptors came than MAX_DESCRIPTORS, or than could be opened here; none was kept."""


async def _at_once() -> None:
    """Lets a message be read on without waiting for anything."""


def _nothing() -> None:
    """What is done where nobody wants to be told."""


class Stream:
    """One end of it. One coroutine at a time may receive, and one send."""

    def __init__(
        self,
        connection: socket.socket,
        patience: float = PATIENCE,
        stuck: Callable[[], None] = _nothing,
    ) -> None:
        """
        Args:
            connection: not blocking; the stream's from now on.
            patience: how long a message, or a reply, may take, in seconds.
            stuck: called when nothing is received until descriptors are closed.
        """
        self._socket = connection
        self._patience = patience
        self._stuck = stuck
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        self.credentials = Credentials(*_UCRED.unpack(packed))
        """Who is at the other end: unix(7), SO_PEERCRED."""

    async def receive(
        self, before_more: Callable[[], Awaitable[None]] = _at_once
    ) -> Message | None:
        """The next message; None where the other end has closed after the last one.

        Cancellation closes the descriptors that came, and makes the stream useless where some of a
        message had come.

        Args:
            before_more: awaited, once and for as long as it takes, before more than SMALL bytes
                are taken.

        Raises:
            BadStream: too long, too slow, or cut off.
            OSError: the connection is lost.
        """
        coming = _Coming(self._socket, self.credentials.uid)
        try:
            while not await self._take(coming):
                await readiness.readable(self._socket)
            if not coming.is_whole and not coming.is_over:
                await self._receive_rest(coming, before_more)
            return coming.message()
        finally:
            coming.close_fds()

    async def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Sends a message; returns when the kernel has all of it.

        Cancellation leaves it cut off, and the stream useless.

        Args:
            data: without its NUL byte.
            fds: to ride on it; they stay the caller's.

        Raises:
            Stalled: the other end does not read.
            OSError: the connection is lost.
        """
        rest = memoryview(data + b"\0")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        ends = asyncio.get_running_loop().time() + self._patience
        while True:
            try:
                rest = rest[self._socket.sendmsg([rest], rights) :]
            except BlockingIOError:
                await self._until_read(len(rest), ends)
            else:
                rights = []
                if not rest:
                    return

    async def hung_up(self) -> None:
        """Returns when the other end has closed both ways. Cancellation leaves nothing behind."""
        await readiness.hung_up(self._socket)

    def end_receiving(self) -> None:
        """What has come can still be received; the other end can send no more."""
        self._socket.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Closes this end; nothing may be under way on it any more."""
        self._socket.close()

    def abandon(self) -> None:
        """Closes this end to one who is not trusted: at once for him, some time after for us.

        What he sent and nobody read goes with it, descriptors too (descriptors.py).
        """
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        CLOSER.close(self.credentials.uid, [self._socket.detach()])

    async def _receive_rest(
        self, coming: "_Coming", before_more: Callable[[], Awaitable[None]]
    ) -> None:
        loop = asyncio.get_running_loop()
        is_small = True
        ends = loop.time() + self._patience
        while not coming.is_whole:
            if is_small and coming.size > SMALL:
                await before_more()
                is_small = False
                ends = loop.time() + self._patience
            if await self._take(coming):
                await asyncio.sleep(0)
            else:
                await self._more(coming, ends)
            if coming.is_over:
                raise CutOff(f"closed after {coming.size} bytes of a message, before its NUL byte")
            if loop.time() > ends:
                raise self._too_slow(coming)

    async def _take(self, coming: "_Coming") -> bool:
        """Takes what there is, once there is room for the descriptors that ride on it."""
        while CLOSER.are_too_many_of(self.credentials.uid):
            self._stuck()
            await CLOSER.relieved(self.credentials.uid)
        return coming.take()

    async def _more(self, coming: "_Coming", ends: float) -> None:
        try:
            async with asyncio.timeout_at(ends):
                await readiness.readable(self._socket)
        except TimeoutError:
            raise self._too_slow(coming) from None

    def _too_slow(self, coming: "_Coming") -> Stalled:
        return Stalled(
            f"expected a message and its NUL byte within {self._patience:g} s, "
            f"got {coming.size} bytes"
        )

    async def _until_read(self, unread: int, ends: float) -> None:
        try:
            async with asyncio.timeout_at(ends):
                await readiness.writable(self._socket)
        except TimeoutError:
            raise Stalled(
                f"expected the replies to be read within {self._patience:g} s, {unread} bytes of "
                "one were not"
            ) from None


class _Coming:
    """A message that comes, piece by piece."""

    def __init__(self, connection: socket.socket, uid: int) -> None:
        self._socket = connection
        self._uid = uid
        self._data = bytearray()
        self._fds: list[int] = []
        self._too_many_fds = False
        self.is_whole = False
        """Its NUL byte has come."""
        self.is_over = False
        """The other end has closed, and nothing more will come."""

    @property
    def size(self) -> int:
        """How many bytes of it are there."""
        return len(self._data)

    def take(self) -> bool:
        """Takes what there is of it, or learns that there is no more; False where it has to wait.

        Raises:
            TooLong: more came than a message may have, which is not taken.
            OSError: the connection is lost.
        """
        try:
            seen = self._socket.recv(_PIECE, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        up_to = seen.find(b"\0") + 1 or len(seen)
        if self.size + up_to > MAX_MESSAGE + 1:
            raise TooLong(f"expected a message of at most {MAX_MESSAGE} bytes, got a longer one")
        self.is_over = not seen
        if seen:
            self._append(up_to)
        return True

    def _append(self, size: int) -> None:
        piece, ancillary, flags, _ = self._socket.recvmsg(
            size, RIGHTS_SIZE, socket.MSG_CMSG_CLOEXEC
        )
        self._fds += received(ancillary)
        # Truncated where this process has no room for more of them.
        if flags & socket.MSG_CTRUNC or len(self._fds) > MAX_DESCRIPTORS:
            self._too_many_fds = True
        if self._too_many_fds:
            self.close_fds()
        self._data += piece
        self.is_whole = piece.endswith(b"\0")

    def message(self) -> Message | None:
        """What has come, if it is whole. The descriptors are the caller's from then on."""
        if not self.is_whole:
            return None
        fds, self._fds = self._fds, []
        return Message(bytes(memoryview(self._data)[:-1]), fds, self._too_many_fds)

    def close_fds(self) -> None:
        """Has the descriptors closed that nobody has taken."""
        fds, self._fds = self._fds, []
        CLOSER.close(self._uid, fds)
