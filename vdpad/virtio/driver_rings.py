"""The driver's side of a ring of either layout."""

from collections.abc import Mapping

from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.packed_driver_ring import PackedDriverRing
from vdpad.virtio.packed_ring import PackedGeometry
from vdpad.virtio.rings import RingGeometry

AnyDriverRing = DriverRing | PackedDriverRing


def driver_ring(
    geometry: RingGeometry,
    parts: Mapping[str, memoryview],
    *,
    event_idx: bool,
    in_order: bool,
) -> AnyDriverRing:
    """Looks at a ring and writes nothing.

    Args:
        geometry: a checked one.
        parts: as its `views` gives them.
        event_idx: RING_EVENT_IDX was negotiated.
        in_order: IN_ORDER was negotiated.
    """
    if isinstance(geometry, PackedGeometry):
        return PackedDriverRing(parts, geometry.size, event_idx=event_idx, in_order=in_order)
    return DriverRing.over(parts, geometry.size, event_idx=event_idx, in_order=in_order)
