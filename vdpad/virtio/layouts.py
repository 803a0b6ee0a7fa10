"""Rings of our own, of either layout: what they take of memory, and where they lie in it."""

from vdpad.virtio.packed_ring import PackedGeometry, lay_out_packed, packed_ring_bytes
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitGeometry, lay_out, ring_bytes

AnyGeometry = SplitGeometry | PackedGeometry


def own_ring_bytes(size: int, *, packed: bool) -> int:
    """What `lay_out_own` takes for the ring itself, in bytes.

    Args:
        size: entries.
        packed: RING_PACKED is negotiated.
    """
    return packed_ring_bytes(size) if packed else ring_bytes(size)


def lay_out_own(size: int, memory: Region, *, packed: bool) -> AnyGeometry:
    """A geometry that fills this memory: the ring at its start, buffers in all the rest.

    Args:
        size: entries.
        memory: all that there is.
        packed: RING_PACKED is negotiated.

    Raises:
        BadGeometry: it is no size of such a ring, or does not fit.
    """
    return lay_out_packed(size, memory) if packed else lay_out(size, memory)
