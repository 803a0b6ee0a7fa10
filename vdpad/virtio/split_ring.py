"""The split virtqueue: where its parts lie, and the rules of both its sides.

Geometry is pure arithmetic over device addresses: `RingGeometry.check` is the one place where an
untrusted geometry becomes one that can be used. The sides are driver_ring.py and device_ring.py:

- The driver writes the descriptor table and the available ring, the device only reads them; the
  device writes the used ring, the driver only reads it.
- Both indices run free over 16 bits. An entry belongs to the device from the store of the
  available index until the device's store of the used index says that it is back.
- Who wants a notification says so in the other's ring: with RING_EVENT_IDX by an index
  (used_event, avail_event), without it by a flag.

Source: virtio 1.4, 2.7 "Split Virtqueues"; Linux include/uapi/linux/virtio_ring.h.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from vdpad.errors import VdpadError

# virtio 1.4, 2.7: sizes and alignments.
MAX_RING_SIZE = 32768
DESCRIPTOR = struct.Struct("<QIHH")
USED_ELEMENT = struct.Struct("<II")
DESCRIPTOR_ALIGNMENT = 16
_AVAILABLE_ALIGNMENT = 2
_USED_ALIGNMENT = 4
AVAILABLE_ENTRY = 2
RING_HEADER = 4  # flags and index
EVENT_INDEX = 2

# virtio 1.4, 2.7.5: descriptor flags.
DESC_F_NEXT = 1
DESC_F_WRITE = 2
DESC_F_INDIRECT = 4

# virtio 1.4, 2.7.6 and 2.7.8: "don't disturb me".
AVAIL_F_NO_INTERRUPT = 1
USED_F_NO_NOTIFY = 1

INDEX_MASK = 0xFFFF
ADDRESS_END = 1 << 64


class BadGeometry(VdpadError, ValueError):
    """A ring that cannot be where it is said to be."""


class Region(NamedTuple):
    """A stretch of device addresses."""

    iova: int
    size: int
    """Bytes."""

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.iova + self.size

    def __str__(self) -> str:
        return f"[{self.iova:#x}, {self.end:#x})"


@dataclass(frozen=True, slots=True)
class RingAddresses:
    """Where the parts of a ring lie, in device addresses; each may lie in memory of its own."""

    size: int
    """Entries: a power of two, 1 … 32768."""
    descriptors: int
    available: int
    used: int

    def parts(self) -> dict[str, Region]:
        """Every part with its extent, event indices included, in the order of the fields."""
        return {
            "descriptors": Region(self.descriptors, DESCRIPTOR.size * self.size),
            "available": Region(
                self.available, RING_HEADER + AVAILABLE_ENTRY * self.size + EVENT_INDEX
            ),
            "used": Region(self.used, RING_HEADER + USED_ELEMENT.size * self.size + EVENT_INDEX),
        }

    def check(self) -> None:
        """Refuses what cannot be a ring, whatever memory there is.

        Raises:
            BadGeometry: the size is no power of two, or a part is misaligned.
        """
        if not 1 <= self.size <= MAX_RING_SIZE or self.size & (self.size - 1):
            raise BadGeometry(
                f"ring.size: expected a power of two up to {MAX_RING_SIZE}, got {self.size}"
            )
        for name, address, alignment in (
            ("descriptors", self.descriptors, DESCRIPTOR_ALIGNMENT),
            ("available", self.available, _AVAILABLE_ALIGNMENT),
            ("used", self.used, _USED_ALIGNMENT),
        ):
            if address % alignment:
                raise BadGeometry(
                    f"ring.{name}: expected a multiple of {alignment}, got {address:#x}"
                )


@dataclass(frozen=True, slots=True)
class RingGeometry:
    """Where a CVQ's ring and the room for its buffers lie, in device addresses."""

    size: int
    """Entries: a power of two, 1 … 32768."""
    memory: Region
    """The memory that all of the rest lies in."""
    descriptors: int
    available: int
    used: int
    buffers: Region

    @property
    def addresses(self) -> RingAddresses:
        """Those of the ring alone."""
        return RingAddresses(self.size, self.descriptors, self.available, self.used)

    def parts(self) -> dict[str, Region]:
        """Every part with its extent, event indices included, in the order of the fields."""
        return {**self.addresses.parts(), "buffers": self.buffers}

    def views(self, memory: memoryview) -> dict[str, memoryview]:
        """Every part as a slice of the memory, whose first byte stands at memory.iova."""
        base = self.memory.iova
        return {
            name: memory[part.iova - base : part.end - base] for name, part in self.parts().items()
        }

    def check(self) -> None:
        """Refuses what cannot be a ring.

        Raises:
            BadGeometry: the size is no power of two, a part is misaligned, lies outside the
                memory, or overlaps another.
        """
        self.addresses.check()
        if self.memory.size < 1 or self.memory.end > ADDRESS_END:
            raise BadGeometry("ring.memory: expected at least a byte, and an end below 2^64")
        parts = self.parts()
        for name, part in parts.items():
            if part.iova < self.memory.iova or part.end > self.memory.end:
                raise BadGeometry(f"ring.{name}: expected it inside {self.memory}, got {part}")
        in_order = sorted(parts.items(), key=lambda item: item[1].iova)
        for (name, part), (other, after) in pairwise(in_order):
            if part.end > after.iova:
                raise BadGeometry(f"ring.{name} {part} overlaps ring.{other} {after}")


_BUFFERS_ALIGNMENT = 64  # nothing demands it; a cache line is what a device fetches


def ring_bytes(size: int) -> int:
    """What `lay_out` takes for the ring itself, in bytes."""
    everything = Region(0, ADDRESS_END)
    return lay_out(size, everything).buffers.iova


def lay_out(size: int, memory: Region) -> RingGeometry:
    """A geometry that fills this memory: the ring at its start, buffers in all the rest."""
    available = memory.iova + DESCRIPTOR.size * size
    available_end = available + RING_HEADER + AVAILABLE_ENTRY * size + EVENT_INDEX
    used = align_up(available_end, _USED_ALIGNMENT)
    buffers = align_up(
        used + RING_HEADER + USED_ELEMENT.size * size + EVENT_INDEX, _BUFFERS_ALIGNMENT
    )
    geometry = RingGeometry(
        size, memory, memory.iova, available, used, Region(buffers, memory.end - buffers)
    )
    geometry.check()
    return geometry


def align_up(address: int, alignment: int) -> int:
    """The next multiple of an alignment, or the address itself if it is one."""
    return -(-address // alignment) * alignment


def distance(later: int, earlier: int) -> int:
    """How far a free-running 16-bit index has gone from an earlier value."""
    return (later - earlier) & INDEX_MASK


def wants_event(event: int, new: int, old: int) -> bool:
    """Whether moving an index from old to new passes the event index (virtio 1.4, 2.7.10)."""
    return distance(new, event + 1) < distance(new, old)
