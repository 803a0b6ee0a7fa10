"""A guest: two regions of memory with a hole between them, and a pair of queues with packets."""

from __future__ import annotations

import mmap
import os
import time

from vdpad.queues.shadowed_device import Vring
from vdpad.queues.vhost_vdpa.memory import SharedMemory
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.rings import DESC_F_WRITE, Region
from vdpad.virtio.split_ring import DESCRIPTOR, lay_out

from .telling import A_WHILE

PAGE = mmap.PAGESIZE
LOW = Region(16 * PAGE, 4 * PAGE)
"""The rings, a page each, then what is transmitted, then a page to spare."""
PACKETS = Region(LOW.iova + 2 * PAGE, PAGE)
SPARE = Region(LOW.iova + 3 * PAGE, PAGE)
HIGH = Region(1 << 32, PAGE)
"""Where packets are received."""

RECEIVE, TRANSMIT = 0, 1
ENTRIES = 16
SLOT = PAGE // ENTRIES
MAC = bytes.fromhex("020000000007")
HEADERS = bytes(12) + MAC + MAC + b"\x88\xb5"


class GuestRegion:
    """Memory of the guest's, and where the device sees it."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self._memory = SharedMemory(region.size)

    @property
    def address(self) -> int:
        """Where it lies in this process."""
        return self._memory.address

    def at(self, part: Region) -> memoryview:
        """A part of it, by the device's addresses."""
        begin = part.iova - self.region.iova
        return self._memory.view[begin : begin + part.size]


class DataQueue:
    """A queue of the guest's, whose chains are one descriptor each."""

    def __init__(self, memory: GuestRegion, page: int) -> None:
        self.geometry = lay_out(ENTRIES, Region(memory.region.iova + page * PAGE, PAGE))
        self.ring = DriverRing(memory.at(self.geometry.memory), self.geometry, event_idx=False)
        self.kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.call = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def begin_at(self, index: int) -> Vring:
        """The ring as after so many chains."""
        self.ring.available_words[1] = self.ring.used_words[1] = index
        return Vring(self.geometry.addresses, base=index, kick=self.kick, call=self.call)

    def offer(self, buffer: Region, *, writable: bool) -> None:
        """Makes a buffer available, without a kick."""
        index = self.ring.available_index
        head = index % ENTRIES
        flags = DESC_F_WRITE if writable else 0
        descriptor = DESCRIPTOR.pack(buffer.iova, buffer.size, flags, 0)
        self.ring.descriptors[head * DESCRIPTOR.size : (head + 1) * DESCRIPTOR.size] = descriptor
        self.ring.place(index, head.to_bytes(2, "little"))
        self.ring.publish(index + 1)

    def ring_doorbell(self) -> None:
        """Kicks the device."""
        os.eventfd_write(self.kick, 1)

    def was_called(self) -> bool:
        """Whether the device has interrupted since this was last asked."""
        try:
            return os.eventfd_read(self.call) > 0
        except BlockingIOError:
            return False


class Guest:
    """All of it."""

    def __init__(self) -> None:
        self.low, self.high = GuestRegion(LOW), GuestRegion(HIGH)
        self.receive, self.transmit = DataQueue(self.low, 0), DataQueue(self.low, 1)

    @property
    def queues(self) -> tuple[DataQueue, DataQueue]:
        """By index."""
        return self.receive, self.transmit

    def send(self, text: str) -> None:
        """Transmits a packet to the guest's own address, with a buffer for it to come back to."""
        slot = self.transmit.ring.available_index % ENTRIES * SLOT
        packet = HEADERS + text.encode()
        there = Region(PACKETS.iova + slot, len(packet))
        self.low.at(there)[:] = packet
        self.receive.offer(Region(HIGH.iova + slot, SLOT), writable=True)
        self.transmit.offer(there, writable=False)
        for queue in self.queues:
            queue.ring_doorbell()

    def received(self, index: int) -> str:
        """The text of the packet that came into the buffer of this index."""
        slot = self.high.at(Region(HIGH.iova + index % ENTRIES * SLOT, SLOT))
        return bytes(slot[len(HEADERS) :]).rstrip(b"\0").decode()

    def used(self) -> list[int]:
        """How far the device has come, by queue."""
        return [queue.ring.used_index() for queue in self.queues]

    def used_after_a_while(self) -> list[int]:
        """The same, once it could have moved."""
        time.sleep(A_WHILE)
        return self.used()
