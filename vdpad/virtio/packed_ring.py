"""The packed virtqueue: where its parts lie, and the rules of both its sides.

The sides are packed_driver_ring.py and packed_device_ring.py:

- There is one ring of descriptors, which both sides write. The driver makes chains *available* one
  behind the other; the device *returns* each by a descriptor of its own, over the ones that it has
  taken, and goes on as many further as the chain had. So either side has a position in the ring.
- A side that has come round the ring turns its *wrap counter*, which begins with 1. A descriptor
  says by two flags whose it is: of the driver's lap with counter w, AVAIL = w and USED = not w make
  it available, AVAIL = USED = w return it. So nothing is ever cleared.
- The flags of a chain's first descriptor are written last: until then none of it is available.
- Who wants a notification says so in an area of its own (event suppression): always, never, or with
  RING_EVENT_IDX once a certain descriptor was written.

A *position* here counts descriptors on from where the ring begins and its wrap counter is 1. It may
run free: the ring stands the same after two laps.

Source: virtio 1.4, 2.8 "Packed Virtqueues"; Linux include/uapi/linux/virtio_ring.h.
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

# virtio 1.4, 2.8.13: address, length, buffer id, flags. In 16-bit words, and where the flags are.
DESCRIPTOR = struct.Struct("<QIHH")
DESCRIPTOR_WORDS = 8
FLAGS_WORD = 7

# virtio 1.4, 2.8.1: the two flags that say whose a descriptor is, and by a lap's wrap counter what
# the driver and the device write there.
DESC_F_AVAIL = 1 << 7
DESC_F_USED = 1 << 15
MARKS = DESC_F_AVAIL | DESC_F_USED
AVAILABLE = (DESC_F_USED, DESC_F_AVAIL)
RETURNED = (0, MARKS)

# virtio 1.4, 2.8.14: an event suppression structure (off_wrap, flags), and what its flags say.
EVENT_SUPPRESSION = struct.Struct("<HH")
RING_EVENT_FLAGS_ENABLE = 0
RING_EVENT_FLAGS_DISABLE = 1
RING_EVENT_FLAGS_DESC = 2
RING_EVENT_FLAGS = 3

WRAP = 1 << 15
"""The wrap counter, beside a descriptor's offset."""

PACKED_INDEX = 1 << 31
"""Beside a position's `off_wrap` where a split ring would have an index: whose of both it is."""

_EVENT_ALIGNMENT = 4
_ALIGNMENTS = {
    "descriptors": DESCRIPTOR_ALIGNMENT,
    "driver": _EVENT_ALIGNMENT,
    "device": _EVENT_ALIGNMENT,
}


@dataclass(frozen=True, slots=True)
class PackedAddresses(RingAddresses):
    """Where the parts of a packed ring lie; its size is 1 … 32768, and no power of two need be.

    vhost has as its base where the next chain is available, and in the upper half where the next
    one is used, both as `off_wrap` has them (Linux drivers/vhost/vdpa.c, VHOST_SET_VRING_BASE).
    """

    FRESH_BASE: ClassVar[int] = WRAP << 16 | WRAP

    driver: int
    """The driver's event suppression structure."""
    device: int
    """The device's."""

    def parts(self) -> dict[str, Region]:
        """Every part with its extent, in the order of the fields."""
        return {
            "descriptors": Region(self.descriptors, DESCRIPTOR.size * self.size),
            "driver": Region(self.driver, EVENT_SUPPRESSION.size),
            "device": Region(self.device, EVENT_SUPPRESSION.size),
        }

    def check(self) -> None:
        """Refuses what cannot be a packed ring, whatever memory there is.

        Raises:
            BadGeometry: the size is out of range, or a part is misaligned.
        """
        if not 1 <= self.size <= MAX_RING_SIZE:
            raise BadGeometry(f"ring.size: expected 1 to {MAX_RING_SIZE}, got {self.size}")
        self._check_alignments(_ALIGNMENTS)

    def check_base(self, base: int) -> None:
        """Refuses what lies past the ring's end.

        Raises:
            BadGeometry: it does.
        """
        both = (base & 0xFFFF, base >> 16)
        if any(not 0 <= word <= 0xFFFF or word & ~WRAP >= self.size for word in both):
            raise BadGeometry(
                f"expected a base of two descriptors below {self.size} with their wrap counters, "
                f"got {base:#x}"
            )


@dataclass(frozen=True, slots=True)
class PackedGeometry(RingGeometry):
    """Where a packed ring and the room for its buffers lie."""

    driver: int
    device: int

    @property
    def addresses(self) -> PackedAddresses:
        """Those of the ring alone."""
        return PackedAddresses(self.size, self.descriptors, self.driver, self.device)


def packed_ring_bytes(size: int) -> int:
    """What `lay_out_packed` takes for the ring itself, in bytes."""
    return lay_out_packed(size, Region(0, ADDRESS_END)).buffers.iova


def lay_out_packed(size: int, memory: Region) -> PackedGeometry:
    """A geometry that fills this memory: the ring at its start, buffers in all the rest."""
    driver = memory.iova + DESCRIPTOR.size * size
    device = driver + EVENT_SUPPRESSION.size
    buffers = align_up(device + EVENT_SUPPRESSION.size, BUFFERS_ALIGNMENT)
    room = Region(buffers, memory.end - buffers)
    geometry = PackedGeometry(size, memory, room, memory.iova, driver, device)
    geometry.check()
    return geometry


def position_at(offset: int, wrap: int, size: int) -> int:
    """The position of a descriptor in a lap, in a ring of this size."""
    return offset if wrap else offset + size


def wrap_at(position: int, size: int) -> int:
    """The wrap counter of the lap in which a position lies."""
    return 1 - position // size % 2


def off_wrap(position: int, size: int) -> int:
    """A position as an event suppression structure and a vring's base have it (2.8.14)."""
    return position % size | wrap_at(position, size) * WRAP


def position_of(word: int, size: int) -> int:
    """The same, read; the descriptor may be past the ring's end, as whoever wrote it likes."""
    return position_at(word & ~WRAP, word & WRAP, size)


def passes(event: int, new: int, old: int, size: int) -> bool:
    """Whether going from one position to another writes the descriptor at a third one."""
    laps = 2 * size
    return (new - event - 1) % laps < (new - old) % laps
