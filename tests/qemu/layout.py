# Where things are in guest memory
#
# The machine's memory is one memfd, linear from guest-physical 0, so an address is also an offset
# into the memfd. Below 16 MiB live the PC's holes and ROM shadows: everything of ours is above.
#
#   16 MiB  the control virtqueue's ring (a ring of 1024 takes less than 64 KiB)
#   17 MiB  the buffers that are lent with it
#   32 MiB  the data queues' rings, empty for ever
"""The harness's map of guest memory. All sizes and addresses are in bytes."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
MEMORY_SIZE = 64 * MIB
CONTROL_RING = 16 * MIB
BUFFERS = 17 * MIB
BUFFERS_LIMIT = 15 * MIB
DATA_RINGS = 32 * MIB

DATA_RING_SIZE = 256
DATA_RING_BYTES = 16 * 1024
MAX_QUEUE_PAIRS = (MEMORY_SIZE - DATA_RINGS) // DATA_RING_BYTES // 2


@dataclass(frozen=True)
class Ring:
    """A split virtqueue in guest memory, virtio 1.2, 2.7.

    A packed one (2.8) fits in: its driver area is where the available ring would be, and its device
    area where the used ring would be.
    """

    size: int
    """Descriptors, a power of two; of a packed ring any number."""
    descriptors: int
    available: int
    used: int


def place_ring(address: int, size: int) -> Ring:
    """Lay a ring of `size` descriptors out from an address that is aligned to 16."""
    available = address + 16 * size
    used = (available + 6 + 2 * size + 3) & ~3
    return Ring(size=size, descriptors=address, available=available, used=used)


def control_ring(size: int) -> Ring:
    """The control virtqueue's ring."""
    return place_ring(CONTROL_RING, size)


def data_ring(index: int) -> Ring:
    """The ring of data queue `index`, counted from 0."""
    return place_ring(DATA_RINGS + index * DATA_RING_BYTES, DATA_RING_SIZE)
