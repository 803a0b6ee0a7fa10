"""Where a lent ring stands: what its lender says of it, and what the ring itself tells.

A split ring has its indices in it, so that a lender need not say them; where it does, they must be
the ring's. A packed ring has none, and only the lender and the device know where they are. That a
chain is available there can be seen, and is refused; a wrong place cannot, and the device then
never looks at what is sent.
"""

from dataclasses import dataclass

from vdpad.queues.lent_memory import BadLend
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.driver_rings import AnyDriverRing
from vdpad.virtio.packed_driver_ring import PackedDriverRing
from vdpad.virtio.packed_ring import PACKED_INDEX, PackedGeometry, off_wrap, position_at, wrap_at
from vdpad.virtio.rings import RingGeometry


@dataclass(frozen=True, slots=True)
class Indices:
    """Where the lender says that its ring stands; None where it does not say.

    A packed ring of which nothing is said stands where a fresh one does: at 0, and both wrap
    counters 1.
    """

    next_available: int | None = None
    next_used: int | None = None
    available_wrap: int | None = None
    """Of packed rings: 0 or 1."""
    used_wrap: int | None = None


def check_indices(said: Indices, geometry: RingGeometry) -> None:
    """Refuses indices that no idle ring has, wherever it stands.

    Raises:
        BadLend: they differ, or are past a packed ring's end.
    """
    if isinstance(geometry, PackedGeometry):
        _position(said, geometry.size)
        return
    indices = (said.next_available, said.next_used)
    if None not in indices and said.next_available != said.next_used:
        raise BadLend(
            f"expected an idle ring, got next_available {indices[0]} and next_used {indices[1]}; "
            "lend it when all its chains have been used"
        )


def idle_index(ring: AnyDriverRing, said: Indices) -> int:
    """Where the ring stands, as ControlQueue has it.

    Raises:
        BadLend: it is not idle, or not where its lender says.
    """
    if isinstance(ring, PackedDriverRing):
        return _of_packed(ring, said)
    return _of_split(ring, said)


def _of_split(ring: DriverRing, said: Indices) -> int:
    available = ring.available_index
    used = ring.used_index()
    if available != used:
        raise BadLend(
            f"expected an idle ring, got available index {available} and used index {used}; "
            "lend it when all its chains have been used"
        )
    for name, index in (("next_available", said.next_available), ("next_used", said.next_used)):
        if index is not None and index != available:
            raise BadLend(f"{name}: expected {available} as in the ring, got {index}")
    return available


def _of_packed(ring: PackedDriverRing, said: Indices) -> int:
    position = _position(said, ring.size)
    if ring.is_available(position):
        raise BadLend(
            f"expected an idle ring, got a chain available at {_place(position, ring.size)}; "
            "lend it when all its chains have been used, and say where it stands"
        )
    ring.leave(position)
    return PACKED_INDEX | off_wrap(position, ring.size)


def _position(said: Indices, size: int) -> int:
    available = _said("next_available", said.next_available, said.available_wrap, size)
    used = _said("next_used", said.next_used, said.used_wrap, size)
    if available != used:
        raise BadLend(
            f"expected an idle ring, got next_available {_place(available, size)} and next_used "
            f"{_place(used, size)}; lend it when all its chains have been used"
        )
    return available


def _said(name: str, offset: int | None, wrap: int | None, size: int) -> int:
    offset = offset or 0
    if offset >= size:
        raise BadLend(f"{name}: expected a descriptor below {size}, got {offset}")
    return position_at(offset, 1 if wrap is None else wrap, size)


def _place(position: int, size: int) -> str:
    return f"{position % size} (wrap counter {wrap_at(position, size)})"
