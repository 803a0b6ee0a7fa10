"""A ring in plain memory, one region or several, and a driver that writes whatever it likes."""

import mmap
import struct
from typing import NamedTuple

from tests.support.devices import Words, read_words
from vdpad.virtio.device_ring import DeviceRing
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import DESCRIPTOR, lay_out

SIZE = 8
MEMORY = Region(0x100000, 2048)
GEOMETRY = lay_out(SIZE, MEMORY)
BUFFERS = GEOMETRY.buffers.iova
NEXT, WRITE, INDIRECT = 1, 2, 4
TABLE = BUFFERS + 256
"""Where an indirect table has room."""


class Descriptor(NamedTuple):
    """As it stands in a table."""

    address: int
    length: int
    flags: int
    following: int = 0


GOOD = Descriptor(BUFFERS, 4, NEXT, 1)
ACK = Descriptor(BUFFERS + 100, 1, WRITE)
TABLE_OF_TWO = Descriptor(TABLE, 32, INDIRECT)


class Board:
    """The ring, with the driver's and the device's words at hand."""

    def __init__(
        self,
        *,
        event_idx: bool = False,
        indirect: bool = False,
        start_index: int = 0,
        memory: bytearray | mmap.mmap | None = None,
    ) -> None:
        self.memory = bytearray(MEMORY.size) if memory is None else memory
        self.guest_memory = GuestMemory()
        self.guest_memory.add(MEMORY, memoryview(self.memory))
        for part in (GEOMETRY.available, GEOMETRY.used):
            self.put_word(part + 2, start_index)
        self.ring = DeviceRing(
            self.guest_memory,
            GEOMETRY.addresses,
            next_available=start_index,
            event_idx=event_idx,
            indirect=indirect,
        )
        self.ring.idle()
        self._index = start_index

    @property
    def words(self) -> Words:
        return read_words(bytes(self.memory), GEOMETRY)

    def describe(self, index: int, descriptor: Descriptor) -> None:
        DESCRIPTOR.pack_into(self.memory, index * DESCRIPTOR.size, *descriptor)

    def table(self, address: int, *descriptors: Descriptor) -> None:
        """An indirect table."""
        for index, descriptor in enumerate(descriptors):
            at = address - MEMORY.iova + index * DESCRIPTOR.size
            DESCRIPTOR.pack_into(self.memory, at, *descriptor)

    def offer(self, *heads: int) -> None:
        """Makes chains available."""
        available = GEOMETRY.available - MEMORY.iova
        for head in heads:
            at = available + 4 + 2 * (self._index % SIZE)
            struct.pack_into("<H", self.memory, at, head)
            self._index = (self._index + 1) & 0xFFFF
        struct.pack_into("<H", self.memory, available + 2, self._index)

    def put_word(self, address: int, word: int) -> None:
        struct.pack_into("<H", self.memory, address - MEMORY.iova, word & 0xFFFF)

    def used(self) -> list[tuple[int, int]]:
        return list(
            struct.iter_unpack("<II", self.memory[GEOMETRY.used - MEMORY.iova + 4 :][: 8 * SIZE])
        )

    def command(self, head: int, readable: bytes) -> None:
        """An honest chain of two descriptors."""
        at = BUFFERS + 32 * head
        start = at - MEMORY.iova
        self.memory[start : start + len(readable)] = readable
        self.describe(head, Descriptor(at, len(readable), NEXT, head + 1))
        self.describe(head + 1, Descriptor(at + 31, 1, WRITE))
