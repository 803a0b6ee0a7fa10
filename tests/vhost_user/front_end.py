"""A front end for tests, from QEMU's docs/interop/vhost-user.rst alone: it knows nothing of vdpad.

It sends whatever it is told to, in any order and with any lie; the numbers below are the page's.
"""

import asyncio
import mmap
import os
import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.support.waiting import GUARD

GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER = 1, 2, 3, 4
SET_MEM_TABLE, SET_LOG_BASE, SET_LOG_FD = 5, 6, 7
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 8, 9, 10, 11
SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR = 12, 13, 14
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM = 15, 16, 17
SET_VRING_ENABLE, SEND_RARP, NET_SET_MTU, SET_BACKEND_REQ_FD = 18, 19, 20, 21
IOTLB_MSG, SET_VRING_ENDIAN, GET_CONFIG, SET_CONFIG = 22, 23, 24, 25
POSTCOPY_ADVISE, GET_INFLIGHT_FD, SET_INFLIGHT_FD = 28, 31, 32
RESET_DEVICE, VRING_KICK, GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG = 34, 35, 36, 37, 38
SET_STATUS, GET_STATUS, GET_SHARED_OBJECT = 39, 40, 41
SET_DEVICE_STATE_FD, CHECK_DEVICE_STATE = 42, 43
BACKEND_CONFIG_CHANGE_MSG = 2

VERSION, REPLY, NEED_REPLY = 1, 4, 8
NO_FD = 256
NOT_A_FLAG_OF_OURS = 1 << 30
"""VHOST_USER_F_PROTOCOL_FEATURES, as a mask."""

MQ, LOG_SHMFD, RARP, REPLY_ACK, MTU, BACKEND_REQ = (1 << bit for bit in range(6))
CONFIG, INFLIGHT_SHMFD, RESET, SLOTS, STATUS, DEVICE_STATE = (
    1 << bit for bit in (9, 12, 13, 15, 16, 19)
)
ALL_SERVED = (
    MQ | LOG_SHMFD | REPLY_ACK | BACKEND_REQ | CONFIG | RESET | SLOTS | STATUS | DEVICE_STATE
)
LOG_ALL = 1 << 26
"""VHOST_F_LOG_ALL, as a mask."""

HEADER = struct.Struct("=III")


def u64(value: int) -> bytes:
    """A 64-bit integer."""
    return struct.pack("=Q", value)


def state(index: int, number: int) -> bytes:
    """A vring state description."""
    return struct.pack("=II", index, number)


def addresses(
    index: int, descriptors: int, used: int, available: int, flags: int = 0, log: int = 0
) -> bytes:
    """A vring address description."""
    return struct.pack("=IIQQQQ", index, flags, descriptors, used, available, log)


def log_area(size: int, offset: int = 0) -> bytes:
    """A log description."""
    return struct.pack("=QQ", size, offset)


def region(guest: int, size: int, user: int, offset: int) -> bytes:
    """A region of a memory regions description."""
    return struct.pack("=QQQQ", guest, size, user, offset)


def single(guest: int, size: int, user: int, offset: int) -> bytes:
    """A single memory region description."""
    return bytes(8) + region(guest, size, user, offset)


def table(*regions: bytes) -> bytes:
    """A memory regions description."""
    return struct.pack("=II", len(regions), 0) + b"".join(regions)


def config(offset: int, data: bytes, flags: int = 0) -> bytes:
    """A piece of the config space."""
    return struct.pack("=III", offset, len(data), flags) + data


class Memory:
    """A guest's memory: a memfd of 16 pages, unsealed, of which a front end shows what it likes."""

    SIZE = 16 * mmap.PAGESIZE
    GUEST = 0x4000_0000
    USER = 0x7F12_3456_0000

    def __init__(self, size: int = SIZE) -> None:
        self.fd = os.memfd_create("front-end-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)

    def close(self) -> None:
        os.close(self.fd)


class FrontEnd:
    """One end of a connection, and the descriptors that it has sent."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.memory = Memory()
        self.eventfds: list[int] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Goes away. May be called again."""
        self.socket.close()
        if self.memory.fd >= 0:
            self.memory.close()
            self.memory.fd = -1
        while self.eventfds:
            os.close(self.eventfds.pop())

    def eventfd(self) -> int:
        """A new one, closed with all else."""
        self.eventfds.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        return self.eventfds[-1]

    # --- messages ---

    async def send(
        self,
        request: int,
        payload: bytes = b"",
        fds: Sequence[int] = (),
        flags: int = VERSION,
        size: int | None = None,
    ) -> None:
        """Sends a message; `size` is what its header says, where that is not the truth."""
        header = HEADER.pack(request, flags, len(payload) if size is None else size)
        await self.send_bytes(header + payload, fds)

    async def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Sends anything."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"={len(fds)}i", *fds))]
        sent = self.socket.sendmsg([data], ancillary if fds else [])
        if sent < len(data):
            await asyncio.get_running_loop().sock_sendall(self.socket, data[sent:])

    async def receive(self) -> tuple[int, int, bytes]:
        """The next message: request, flags, payload."""
        request, flags, size = HEADER.unpack(await self._exactly(HEADER.size))
        return request, flags, await self._exactly(size)

    async def ask(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> bytes:
        """Sends what has a reply of its own, and returns its payload."""
        await self.send(request, payload, fds)
        replied, flags, reply = await self.receive()
        assert (replied, flags) == (request, VERSION | REPLY)
        return reply

    async def number(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> int:
        """The same, where the reply is a number."""
        (value,) = struct.unpack("=Q", await self.ask(request, payload, fds))
        return int(value)

    async def acked(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> int:
        """Sends a message with NEED_REPLY, and returns the answer."""
        await self.send(request, payload, fds, flags=VERSION | NEED_REPLY)
        replied, flags, reply = await self.receive()
        assert (replied, flags, len(reply)) == (request, VERSION | REPLY, 8)
        return int(struct.unpack("=Q", reply)[0])

    async def done(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """The same, and it must have been done."""
        assert await self.acked(request, payload, fds) == 0

    async def ended(self) -> bytes:
        """What came until the other side closed the connection."""
        rest = b""
        async with asyncio.timeout(GUARD):
            while some := await self._some(4096):
                rest += some
        return rest

    async def _exactly(self, size: int) -> bytes:
        data = b""
        async with asyncio.timeout(GUARD):
            while len(data) < size:
                some = await self._some(size - len(data))
                if not some:
                    raise ConnectionError("the back end closed the connection")
                data += some
        return data

    async def _some(self, size: int) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self.socket, size)
        except ConnectionResetError:
            return b""

    # --- what front ends do first ---

    async def negotiate(self, features: int, protocol: int = ALL_SERVED) -> None:
        """Up to SET_FEATURES; what a front end wants it must have been offered."""
        assert features & ~await self.number(GET_FEATURES) == 0
        assert protocol & ~await self.number(GET_PROTOCOL_FEATURES) == 0
        await self.send(SET_PROTOCOL_FEATURES, u64(protocol))
        await self.send(SET_OWNER)
        await self.send(SET_FEATURES, u64(features))

    async def share_memory(self) -> None:
        """ADD_MEM_REG of all of the memory."""
        memory = single(Memory.GUEST, Memory.SIZE, Memory.USER, 0)
        await self.done(ADD_MEM_REG, memory, [self.memory.fd])

    async def set_up(self, index: int, base: int = 0, size: int = 16) -> None:
        """A ring's size, base, addresses, kick and call; each on a page of its own."""
        at = Memory.USER + index * mmap.PAGESIZE
        await self.done(SET_VRING_NUM, state(index, size))
        await self.done(SET_VRING_BASE, state(index, base))
        await self.done(SET_VRING_ADDR, addresses(index, at, at + 1024, at + 512))
        await self.done(SET_VRING_KICK, u64(index), [self.eventfd()])
        await self.done(SET_VRING_CALL, u64(index), [self.eventfd()])

    async def enable(self, *indices: int, on: int = 1) -> None:
        """SET_VRING_ENABLE of each."""
        for index in indices:
            await self.done(SET_VRING_ENABLE, state(index, on))

    async def base(self, index: int) -> int:
        """GET_VRING_BASE."""
        reply = await self.ask(GET_VRING_BASE, state(index, 0))
        told, base = struct.unpack("=II", reply)
        assert told == index
        return int(base)
