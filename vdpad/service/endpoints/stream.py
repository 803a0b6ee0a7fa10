"""The stream socket: connections are accepted, so many for each user, and last until they end.

A connection is its user's by the kernel's word (SO_PEERCRED), as of when it was made. Each has a
task of its own, which reads a message, answers it and reads the next; so what is unread stays in
the kernel, charged to its sender. What a connection can hold here is bounded: a small message, and
one reply. For a large message there has to be room first, of which each user has one share, and all
together have a few.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from vdpad.errors import why
from vdpad.service.endpoints.binding import bind, check_inherited, inode_of
from vdpad.service.endpoints.endpoint import descriptors_stuck
from vdpad.service.events.announcing import Announce, log_event
from vdpad.service.events.kinds import ConnectionCut, SocketError
from vdpad.wire.descriptors import CLOSER
from vdpad.wire.streams import BadStream, Stream

# Stops one user from taking the connections that others need, and all from taking descriptors:
# each connection is one, and what rides on its message (LimitNOFILE= of systemd/vdpad.service).
_MAX_PER_USER = 64
_MOST = 256

# Large messages that are read, or wait for their parameters to be typed, at once. One is up to
# 4 MiB and takes ten times that when it is read (MemoryMax= of systemd/vdpad.service).
_MAX_LARGE = 4

# What the kernel holds of a reply that is not read yet, in bytes; it doubles what is said here, and
# charges it to us. Stops readers who don't read from filling our memory.
_SEND_BUFFER = 32 * 1024

# Connections accepted in one turn of the loop. Stops a crowd from keeping it.
_ACCEPTED_AT_ONCE = 16

# How long nobody is let in when there are no descriptors, in seconds.
_RESTS = 1.0

# Connections that are served at the end, though nobody had looked at them. Stops those who go on
# connecting from putting it off.
_MAX_OF_THE_REST = 64

# Under a number that no user has: whose connection it is, is known once it is accepted.
_NOBODY = -1


class Place:
    """Room for one large message: taken when it turns out to be one, left when it is not needed."""

    def __init__(self, *turns: asyncio.Semaphore) -> None:
        self._turns = turns
        self._taken: list[asyncio.Semaphore] = []

    @property
    def is_taken(self) -> bool:
        """Whether it is held."""
        return bool(self._taken)

    async def take(self) -> None:
        """Waits for it. Cancellation leaves what is held to `leave`."""
        for turn in self._turns:
            await turn.acquire()
            self._taken.append(turn)

    def leave(self) -> None:
        """Gives it up, where it is held."""
        while self._taken:
            self._taken.pop().release()


@dataclass(frozen=True, slots=True)
class Connection:
    """A client's connection, and the place that it takes of those that there are."""

    stream: Stream
    place: Place


Converse = Callable[[Connection], Awaitable[None]]
"""Serves a connection until it ends. What the stream raises ends it too."""


@dataclass(slots=True)
class _User:
    """What one user has here."""

    connections: int = 0
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))


class StreamEndpoint:
    """A listening Unix stream socket and its connections."""

    def __init__(
        self, converse: Converse, overloaded: bytes, announce: Announce = log_event
    ) -> None:
        """
        Args:
            converse: serves a connection.
            overloaded: what is sent to one that there is no room for, whole.
            announce: told of the socket's errors, and of connections that were cut.
        """
        self._converse = converse
        self._overloaded = overloaded
        self._announce = announce
        self._users: dict[int, _User] = {}
        self._large = asyncio.Semaphore(_MAX_LARGE)
        self._connections: dict[asyncio.Task[None], Stream] = {}
        self._stopping = False
        self._socket: socket.socket | None = None
        self._path: Path | None = None
        self._inode: int | None = None

    def listen(self, path: Path, mode: int, group: str | None) -> None:
        """Binds the socket and begins to accept, in the running loop.

        Raises:
            CannotListen: another daemon answers there, or the path, mode or group can't be had.
        """
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bind(listening, path, mode, group)
        self._path, self._inode = path, inode_of(path)
        self._serve(listening)

    def take_over(self, fd: int) -> Path:
        """Begins to accept on a socket that listens already; its file is not ours to remove.

        Returns:
            where it is bound.

        Raises:
            CannotListen: it is no Unix stream socket with a path.
        """
        check_inherited(fd, socket.SOCK_STREAM)
        listening = socket.socket(fileno=fd)
        self._serve(listening)
        return Path(listening.getsockname())

    async def close(self) -> None:
        """Ends once all is answered that had come by now.

        Whoever waits to be let in at a socket that outlives us is the next daemon's.
        """
        self._stopping = True
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        if self._path is not None:
            if inode_of(self._path) == self._inode:
                self._path.unlink(missing_ok=True)
            self._accept(_MAX_OF_THE_REST)
        # With what those have sent who were not let in.
        CLOSER.close(_NOBODY, [self._socket.detach()])
        for stream in self._connections.values():
            with contextlib.suppress(OSError):
                stream.end_receiving()
        if self._connections:
            await asyncio.wait(self._connections)

    def _serve(self, listening: socket.socket) -> None:
        listening.setblocking(False)
        self._socket = listening
        self._let_in()

    # --- who is let in ---

    def _let_in(self) -> None:
        assert self._socket is not None
        if not self._stopping:
            asyncio.get_running_loop().add_reader(self._socket, self._accept, _ACCEPTED_AT_ONCE)

    def _accept(self, most: int) -> None:
        assert self._socket is not None
        for _ in range(most):
            if CLOSER.are_too_many_of(_NOBODY):
                self._stuck()
                self._rest()
                return
            try:
                connection, _address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # No descriptors, no memory, or the client has gone: nothing ends the listening.
                self._announce(SocketError(f"no connection was accepted: {why(error)}"))
                self._rest()
                return
            self._welcome(connection)

    def _rest(self) -> None:
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.call_later(_RESTS, self._let_in)

    def _stuck(self) -> None:
        self._announce(descriptors_stuck())

    def _welcome(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        stream = Stream(connection, stuck=self._stuck)
        credentials = stream.credentials
        user = self._users.setdefault(credentials.uid, _User())
        user.connections += 1
        reason = self._no_room_for(user)
        if reason:
            with contextlib.suppress(OSError):
                connection.send(self._overloaded)
            stream.abandon()
            self._left(credentials.uid)
            self._announce(ConnectionCut(credentials.pid, credentials.uid, reason))
            return
        place = Place(user.large, self._large)
        served = Connection(stream, place)
        task = asyncio.get_running_loop().create_task(self._last(served), name="connection")
        self._connections[task] = stream
        task.add_done_callback(self._connections.pop)

    def _no_room_for(self, user: _User) -> str:
        """Why one more connection is not served; "" where it is."""
        if user.connections > _MAX_PER_USER:
            return f"its user has {_MAX_PER_USER} others, which is the most"
        if len(self._connections) >= _MOST:
            return f"there are {_MOST} others, which is the most"
        return ""

    # --- connections ---

    async def _last(self, connection: Connection) -> None:
        """Serves one until it ends."""
        who = connection.stream.credentials
        try:
            await self._converse(connection)
        except BadStream as error:
            self._announce(ConnectionCut(who.pid, who.uid, str(error)))
        except OSError:
            pass  # the client is gone; what it began goes on
        finally:
            connection.place.leave()
            connection.stream.abandon()
            self._left(who.uid)

    def _left(self, uid: int) -> None:
        user = self._users[uid]
        user.connections -= 1
        if not user.connections:
            del self._users[uid]
