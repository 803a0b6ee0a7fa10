"""The track that goes with a ring: the one place where a replay looks which layout it has."""

from collections.abc import Callable

from vdpad.restore.packed_track import PackedTrack
from vdpad.restore.program import Program
from vdpad.restore.progress import Progress
from vdpad.restore.split_track import SplitTrack
from vdpad.restore.track import Track
from vdpad.virtio.driver_rings import AnyDriverRing
from vdpad.virtio.packed_driver_ring import PackedDriverRing


def track_of(
    program: Program,
    ring: AnyDriverRing,
    start: int,
    ring_bell: Callable[[], None],
    progress: Progress,
) -> Track:
    """Prepares a ring for a program; publishes nothing.

    Args:
        program: encoded for this ring.
        ring: idle, and nobody else's.
        start: where it stands, as ControlQueue has it.
        ring_bell: rings the doorbell, and counts that.
        progress: where it is written down how far this has come.
    """
    if isinstance(ring, PackedDriverRing):
        return PackedTrack(program, ring, start, ring_bell, progress)
    return SplitTrack(program, ring, start, ring_bell, progress)
