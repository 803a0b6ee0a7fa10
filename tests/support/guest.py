"""A guest's virtqueues for tests: memory that can be shared, a driver on each ring, its eventfds.

Each queue has regions of its own, so that a device sees several.
"""

import mmap
import os
from dataclasses import dataclass, field
from random import Random
from typing import cast

from tests.support.split_driver import Memory, Request, SplitDriver, Way

_REGION = 32 * mmap.PAGESIZE
_FIRST = 0x4000_0000
_APART = 0x10_0000


@dataclass(eq=False)
class SharedRegion:
    """A region of the guest's memory, in a memfd."""

    start: int
    """Its guest address."""
    fd: int
    mapping: mmap.mmap

    @property
    def size(self) -> int:
        return len(self.mapping)

    def close(self) -> None:
        self.mapping.close()
        os.close(self.fd)


def shared_region(start: int, size: int = _REGION) -> SharedRegion:
    """A new one."""
    fd = os.memfd_create("front-end-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return SharedRegion(start, fd, mmap.mmap(fd, size))


@dataclass(eq=False)
class GuestQueue:
    """One virtqueue of the guest's."""

    index: int
    regions: list[SharedRegion]
    driver: SplitDriver
    way: Way = Way.DIRECT
    """How its chains are described."""
    kick: int = field(default_factory=lambda: os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
    call: int = field(default_factory=lambda: os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))

    def send(self, readable: list[bytes], writable: list[int]) -> Request:
        """Makes a chain available, and kicks where the device wants it."""
        request = self.driver.submit(readable, writable, self.way)
        self.publish()
        return request

    def publish(self) -> None:
        """Makes all that was submitted available; asks to be called for what comes back next."""
        self.driver.ask_for_interrupt(1)
        if self.driver.publish():
            os.eventfd_write(self.kick, 1)

    @property
    def returned(self) -> int:
        """How many chains have come back and were not collected."""
        return self.driver.returned

    def collect(self) -> list[tuple[Request, int, bytes]]:
        """What has come back."""
        return self.driver.collect()

    def calls(self) -> int:
        """How often the device has called since this was last asked."""
        try:
            return os.eventfd_read(self.call)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        for region in self.regions:
            region.close()
        os.close(self.kick)
        os.close(self.call)


class Guest:
    """A guest with so many virtqueues."""

    def __init__(
        self,
        queues: int,
        *,
        size: int = 16,
        event_idx: bool = True,
        in_order: bool = False,
        way: Way = Way.DIRECT,
        regions: int = 2,
        base: int = 0,
        seed: int = 0,
    ) -> None:
        """
        Args:
            queues: how many.
            size: of each ring.
            event_idx: RING_EVENT_IDX is negotiated.
            in_order: IN_ORDER is.
            way: how chains are described.
            regions: of each queue.
            base: where the rings begin.
            seed: of all that is left to chance.
        """
        self.queues = []
        for index in range(queues):
            # Regions that touch, so that buffers cross from one to the next.
            first = _FIRST + index * _APART
            shared = [shared_region(first + n * _REGION) for n in range(regions)]
            memory = Memory((), ())
            memory.regions = {each.start: cast(bytearray, each.mapping) for each in shared}
            driver = SplitDriver(
                memory, Random(seed + index), size=size, event_idx=event_idx, index=base
            )
            driver.in_order = in_order
            self.queues.append(GuestQueue(index, shared, driver, way))

    @property
    def regions(self) -> list[SharedRegion]:
        """All memory."""
        return [region for queue in self.queues for region in queue.regions]

    @property
    def pages(self) -> set[int]:
        """The numbers of all pages of it, by guest address."""
        return {
            page
            for region in self.regions
            for page in range(region.start >> 12, (region.start + region.size) >> 12)
        }

    def close(self) -> None:
        for queue in self.queues:
            queue.close()
