"""A guest's driver in the machine's memory, and a back end in the test's process that serves it."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import cast

from tests.backend.vmm import BackEnd
from tests.support.split_driver import Memory, SplitDriver, Way
from tests.support.waiting import until

from .layout import BUFFERS, MIB, Ring
from .process import open_guest_memory
from .vhost_user import Machine

RING_SIZE = 128


class GuestDriver:
    """The guest's driver of one queue, in the machine's memory."""

    def __init__(
        self, qemu: Machine, memory: Memory, index: int, *, event_idx: bool, size: int = RING_SIZE
    ) -> None:
        self.driver = SplitDriver(memory, Random(index), size=size, event_idx=event_idx, index=0)
        self.qemu = qemu
        """Where its doorbell is rung."""
        self._index = index
        self.doorbell = 0
        """The address of its register, once it is set up."""

    async def set_up(self) -> None:
        driver = self.driver
        ring = Ring(driver.size, driver.descriptors, driver.available, driver.used)
        self.doorbell = await self.qemu.device.set_up_queue(self._index, ring)

    async def publish(self) -> None:
        """Makes all that was submitted available."""
        self.driver.ask_for_interrupt(1)
        if self.driver.publish():
            await self.qemu.qtest.writew(self.doorbell, self._index)

    async def commands(self, encoded: Iterable[bytes], way: Way = Way.DIRECT) -> list[bytes]:
        """Sends commands, as many at once as the ring takes; the answers, in their order."""
        left, answers = list(encoded), []
        while left:
            batch = []
            while left and self.driver.free >= 2:
                batch.append(self.driver.submit([left.pop(0)], [1], way))
            await self.publish()
            await until(lambda: self.driver.returned == len(batch), every=0.0005)  # noqa: B023
            found = {id(request): data for request, _, data in self.driver.collect()}
            answers += [found[id(request)] for request in batch]
        return answers


@asynccontextmanager
async def serving(on: BackEnd, path: Path) -> AsyncIterator[None]:
    """The back end listens at this path, for one front end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        session = asyncio.create_task(on.front_ends.serve_next(listener))
        try:
            yield
            await session
        finally:
            session.cancel()
            await asyncio.wait([session])


@asynccontextmanager
async def guest_memory(qemu: Machine, at: int = BUFFERS) -> AsyncIterator[Memory]:
    """A MiB of the machine's memory that nobody uses."""
    fd = open_guest_memory(qemu.process.pid)
    try:
        with mmap.mmap(fd, MIB, offset=at) as mapping:
            memory = Memory((), ())
            memory.regions = {at: cast(bytearray, mapping)}
            yield memory
    finally:
        os.close(fd)
