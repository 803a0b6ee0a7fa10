"""A receive queue whose used ring is relayed, with a driver and a device that are written down."""

from contextlib import ExitStack
from random import Random

from tests.support.split_driver import Memory, SplitDriver
from vdpad.backend.relay.relay import Due, Relay, queue_in
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import USED_ELEMENT, SplitAddresses

PAGE = 4096


class Marked:
    """A dirty log that keeps the pages."""

    def __init__(self) -> None:
        self.pages: set[int] = set()

    def mark(self, address: int, length: int) -> None:
        if length:
            self.pages.update(range(address >> 12, (address + length - 1 >> 12) + 1))

    def mark_pages(self, pages: object) -> None:
        self.pages.update(int(page) for page in pages)  # type: ignore[attr-defined]


class Bench:
    """A guest's memory with a driver in it, a device that is played by the test, and the relay."""

    def __init__(
        self,
        *,
        size: int = 8,
        event_idx: bool = True,
        in_order: bool = False,
        indirect: bool = True,
        index: int = 0,
        regions: int = 3,
        seed: int = 0,
    ) -> None:
        self.random = Random(seed)
        self.memory = Memory([64 * PAGE] * regions, [PAGE] * regions)
        self.guest = GuestMemory()
        for start, data in self.memory.regions.items():
            self.guest.add(Region(start, len(data)), memoryview(data))
        self.driver = SplitDriver(
            self.memory, self.random, size=size, event_idx=event_idx, index=index
        )
        self.size = size
        self.log = Marked()
        self.ours = memoryview(bytearray(PAGE * 2))
        self.words = self.ours[: 6 + 8 * size].cast("H")
        self._views = ExitStack()
        addresses = SplitAddresses(
            size, self.driver.descriptors, self.driver.available, self.driver.used
        )
        self.queue = queue_in(self._views, self.guest, addresses, self.ours, indirect=indirect)
        self.driver.in_order = in_order
        self.relay = Relay(self.queue, self.guest, self.log, event_idx=event_idx, in_order=in_order)
        self.relay.begin()

    def put(self, *returned: tuple[int, int]) -> None:
        """The device returns chains: each with its head and length."""
        index = self.words[1]
        for head, length in returned:
            USED_ELEMENT.pack_into(self.ours, 4 + 8 * (index % self.size), head, length)
            index = (index + 1) & 0xFFFF
        self.words[1] = index

    def put_in_one(self, head: int, length: int, chains: int) -> None:
        """The device returns so many chains, and tells of the last alone."""
        index = self.words[1]
        USED_ELEMENT.pack_into(self.ours, 4 + 8 * (index % self.size), head, length)
        self.words[1] = (index + chains) & 0xFFFF

    def turn(self, *returned: tuple[int, int]) -> Due:
        """A turn after the device has returned these."""
        self.put(*returned)
        return self.relay.turn()

    @property
    def ring_pages(self) -> set[int]:
        """Those of the guest's used ring."""
        first, last = self.driver.used, self.driver.used + 6 + 8 * self.size - 1
        return set(range(first >> 12, (last >> 12) + 1))

    def close(self) -> None:
        self._views.close()
