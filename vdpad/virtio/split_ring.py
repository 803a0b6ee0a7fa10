"""The split virtqueue: where its parts lie, and the rules of both its sides.

The sides are driver_ring.py and device_ring.py:

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
from typing import ClassVar

from vdpad.virtio.rings import (
    ADDRESS_END,
    BUFFERS_ALIGNMENT,
    DESCRIPTOR_ALIGNMENT,
    MAX_RING_SIZE,
    BadGeometry,
    Region,
    RingAddresses,
    RingGeometry,
    align_up,
)

# virtio 1.4, 2.7: sizes and alignments.
DESCRIPTOR = struct.Struct("<QIHH")
USED_ELEMENT = struct.Struct("<II")
_ALIGNMENTS = {"descriptors": DESCRIPTOR_ALIGNMENT, "available": 2, "used": 4}
AVAILABLE_ENTRY = 2
RING_HEADER = 4  # flags and index
EVENT_INDEX = 2

# virtio 1.4, 2.7.6 and 2.7.8: "don't disturb me".
AVAIL_F_NO_INTERRUPT = 1
USED_F_NO_NOTIFY = 1

INDEX_MASK = 0xFFFF


@dataclass(frozen=True, slots=True)
class SplitAddresses(RingAddresses):
    """Where the parts of a split ring lie; its size is a power of two, 1 … 32768."""

    FRESH_BASE: ClassVar[int] = 0

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
        """Refuses what cannot be a split ring, whatever memory there is.

        Raises:
            BadGeometry: the size is no power of two, or a part is misaligned.
        """
        if not 1 <= self.size <= MAX_RING_SIZE or self.size & (self.size - 1):
            raise BadGeometry(
                f"ring.size: expected a power of two up to {MAX_RING_SIZE}, got {self.size}"
            )
        self._check_alignments(_ALIGNMENTS)

    def check_base(self, base: int) -> None:
        """Refuses what is no available index.

        Raises:
            BadGeometry: it is none.
        """
        if not 0 <= base <= INDEX_MASK:
            raise BadGeometry(f"expected a base of 16 bits, got {base}")


@dataclass(frozen=True, slots=True)
class SplitGeometry(RingGeometry):
    """Where a split ring and the room for its buffers lie."""

    available: int
    used: int

    @property
    def addresses(self) -> SplitAddresses:
        """Those of the ring alone."""
        return SplitAddresses(self.size, self.descriptors, self.available, self.used)


def ring_bytes(size: int) -> int:
    """What `lay_out` takes for the ring itself, in bytes."""
    everything = Region(0, ADDRESS_END)
    return lay_out(size, everything).buffers.iova


def lay_out(size: int, memory: Region) -> SplitGeometry:
    """A geometry that fills this memory: the ring at its start, buffers in all the rest."""
    available = memory.iova + DESCRIPTOR.size * size
    available_end = available + RING_HEADER + AVAILABLE_ENTRY * size + EVENT_INDEX
    used = align_up(available_end, _ALIGNMENTS["used"])
    buffers = align_up(
        used + RING_HEADER + USED_ELEMENT.size * size + EVENT_INDEX, BUFFERS_ALIGNMENT
    )
    room = Region(buffers, memory.end - buffers)
    geometry = SplitGeometry(size, memory, room, memory.iova, available, used)
    geometry.check()
    return geometry


def distance(later: int, earlier: int) -> int:
    """How far a free-running 16-bit index has gone from an earlier value."""
    return (later - earlier) & INDEX_MASK


def wants_event(event: int, new: int, old: int) -> bool:
    """Whether moving an index from old to new passes the event index (virtio 1.4, 2.7.10)."""
    return distance(new, event + 1) < distance(new, old)
