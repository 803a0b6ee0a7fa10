"""The plainest driver of a lent control queue: one command at a time, for self-tests only.

Without fences: good on x86-64, where stores are seen in their order.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.waiting import GUARD

from .guestless import Guestless, Lend, Options, guestless
from .wear import DESCRIPTOR, NEXT, WRITE

ACK_UNWRITTEN = 0xFF


def indices(lend: Lend) -> tuple[int, int]:
    """Return the lent ring's available and used index, out of its memory."""
    with mmap.mmap(lend.memory_fd, lend.memory_size) as memory:
        (available,) = struct.unpack_from("<H", memory, lend.available + 2)
        (used,) = struct.unpack_from("<H", memory, lend.used + 2)
    return available, used


class Driver:
    """Drives the queue from its start index on. Close it before the lender goes."""

    def __init__(self, lend: Lend) -> None:
        self._lend = lend
        self._memory = mmap.mmap(lend.memory_fd, lend.memory_size)
        self._index = lend.start_index

    def close(self) -> None:
        """Unmap the memory."""
        self._memory.close()

    async def send(self, command: bytes) -> int:
        """Have one command done and return its ack. Raises TimeoutError without an interrupt."""
        lend, ack = self._lend, self._lend.buffers_iova + len(command)
        self._memory[lend.buffers_iova : ack + 1] = command + bytes([ACK_UNWRITTEN])
        DESCRIPTOR.pack_into(
            self._memory, lend.descriptors, lend.buffers_iova, len(command), NEXT, 1
        )
        DESCRIPTOR.pack_into(self._memory, lend.descriptors + DESCRIPTOR.size, ack, 1, WRITE, 0)
        self._put(lend.available + 4 + 2 * (self._index % lend.ring_size), 0)
        self._put(lend.available + 4 + 2 * lend.ring_size, self._index)
        self._index = (self._index + 1) & 0xFFFF
        self._put(lend.available + 2, self._index)
        os.eventfd_write(lend.kick_fd, 1)
        async with asyncio.timeout(GUARD):
            while struct.unpack_from("<H", self._memory, lend.used + 2)[0] != self._index:
                await self._call()
        return self._memory[ack]

    def _put(self, address: int, value: int) -> None:
        struct.pack_into("<H", self._memory, address, value)

    async def _call(self) -> None:
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[int] = loop.create_future()
        loop.add_reader(self._lend.call_fd, self._take_call, readable)
        try:
            await readable
        finally:
            loop.remove_reader(self._lend.call_fd)

    def _take_call(self, readable: asyncio.Future[int]) -> None:
        count = os.eventfd_read(self._lend.call_fd)
        if not readable.done():
            readable.set_result(count)


@asynccontextmanager
async def driven(options: Options | None = None) -> AsyncIterator[tuple[Guestless, Driver]]:
    """A guest-less machine, and a driver of its control queue. Raises what `guestless` does."""
    async with guestless(options) as qemu:
        driver = Driver(qemu.lend)
        try:
            yield qemu, driver
        finally:
            driver.close()
