"""A front end that plays a script, and takes what is answered."""

import asyncio
import contextlib
import fcntl
import os
import socket
import struct

from tests.vhost_user.front_end import HEADER, Memory
from tests.vhost_user.fuzz.script import (
    Cancel,
    ConfigChanged,
    HangUp,
    Kind,
    Message,
    Script,
    Shrink,
    Step,
    Wait,
)
from vdpad.vhost_user.front_ends import FrontEnds

_ANSWER = HEADER.pack(2, 5, 8) + bytes(8)
# Turns of the loop: more than a message takes.
_TURNS = 12


class Player:
    """One session's front end, and its back end's task."""

    def __init__(self, front_ends: FrontEnds) -> None:
        """Connects."""
        self._front_ends = front_ends
        ours, self._socket = socket.socketpair()
        self._socket.setblocking(False)
        self._memory = Memory()
        self._held: list[int] = []
        """Other ends, which are there as long as the front end is."""
        self.answered = b""
        self.task = asyncio.create_task(front_ends.serve(ours))
        self.reading = asyncio.create_task(self._read())
        """Ends when the other side has closed the connection."""

    async def play(self, script: Script) -> None:
        """Takes all steps, or as many as there is somebody at the other end for."""
        # The other side closes the connection when it has had enough.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for step in script.steps:
                await self._take(step)
                if isinstance(step, HangUp):
                    return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        """Goes away with all that it holds. May be called again."""
        self.reading.cancel()
        self._socket.close()
        self._memory.close()
        self._memory.fd = -1
        while self._held:
            os.close(self._held.pop())

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionResetError):
            while some := await loop.sock_recv(self._socket, 65536):
                self.answered += some

    async def _take(self, step: Step) -> None:
        match step:
            case Message():
                await self._send(step)
            case Shrink(size):
                os.ftruncate(self._memory.fd, size)
            case ConfigChanged():
                if self._front_ends.session is not None:
                    self._front_ends.session.config_changed()
            case Wait():
                await _turns()
            case HangUp():
                self.reading.cancel()
                self._socket.close()
            case Cancel():
                # What never began has taken nothing over.
                await asyncio.sleep(0)
                self.task.cancel()

    async def _send(self, message: Message) -> None:
        first, rest = message.data[: message.pause], b""
        if message.pause is not None:
            rest = message.data[message.pause :]
        await self._send_bytes(first, () if message.is_late else message.kinds)
        if rest:
            await _turns()
            await self._send_bytes(rest, message.kinds if message.is_late else ())

    async def _send_bytes(self, data: bytes, kinds: tuple[Kind, ...]) -> None:
        if not data:
            return
        loop = asyncio.get_running_loop()
        fds = [fd for kind in kinds for fd in self._made(kind)]
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"={len(fds)}i", *fds))
        try:
            while True:
                try:
                    sent = self._socket.sendmsg([data], [rights] if fds else [])
                    break
                except BlockingIOError:
                    await asyncio.sleep(0)
        finally:
            for fd in fds:
                os.close(fd)
        await loop.sock_sendall(self._socket, data[sent:])

    def _made(self, kind: Kind) -> tuple[int, ...]:
        """Descriptors of a kind, the caller's to close."""
        match kind:
            case Kind.MEMORY:
                return (os.dup(self._memory.fd),)
            case Kind.SHORT_MEMORY:
                return (Memory(4096).fd,)
            case Kind.UNWRITABLE_MEMORY:
                fd = Memory().fd
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
                return (fd,)
            case Kind.EVENTFD:
                return (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK),)
            case Kind.NULL:
                return (os.open("/dev/null", os.O_RDWR),)
            case Kind.FOLDER:
                return (os.open("/proc", os.O_RDONLY),)
            case Kind.STATE | Kind.SINK | Kind.PIPE | Kind.ITS_OWN_END:
                return self._pipe(kind)
            case _:
                return (self._connection(kind),)

    def _pipe(self, kind: Kind) -> tuple[int, ...]:
        reader, writer = os.pipe()
        match kind:
            case Kind.STATE:
                os.write(writer, b"what the guest had set")
                os.close(writer)
                return (reader,)
            case Kind.SINK:
                self._held.append(reader)
                return (writer,)
            case Kind.PIPE:
                self._held.append(writer)
                return (reader,)
            case _:
                return (reader, writer)

    def _connection(self, kind: Kind) -> int:
        of = socket.SOCK_DGRAM if kind is Kind.DATAGRAMS else socket.SOCK_STREAM
        ours, theirs = socket.socketpair(socket.AF_UNIX, of)
        if kind is Kind.ANSWERING_STREAM:
            ours.send(3 * _ANSWER)
        elif kind is Kind.NOISY_STREAM:
            ours.send(bytes(range(256)))
        if kind is Kind.CLOSED_STREAM:
            ours.close()
        else:
            self._held.append(ours.detach())
        return theirs.detach()


async def _turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
