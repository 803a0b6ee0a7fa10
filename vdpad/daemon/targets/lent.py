"""A CVQ that a VMM lends with each commit."""

from dataclasses import dataclass, replace

from vdpad.daemon.targets.target_params import LentParams, PackedRingParams, SplitRingParams
from vdpad.queues.control_queue import ControlQueue, Lent
from vdpad.queues.lent_indices import Indices, check_indices
from vdpad.queues.lent_memory import BadLend
from vdpad.queues.lent_queue import LentDescriptors, LentQueue, memory_identity
from vdpad.restore.capabilities import Capabilities
from vdpad.restore.program import check_room
from vdpad.virtio.config import NetConfig, TunnelType
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.framing import is_legacy
from vdpad.virtio.packed_ring import PackedGeometry
from vdpad.virtio.rings import BadGeometry, Region, RingGeometry
from vdpad.virtio.split_ring import SplitGeometry

# How much of the buffers is used, in bytes: room for two banks with the largest RSS table, of
# 131 KiB. Stops the lender of a large memory from having all of it mapped.
_MAX_BUFFERS = 512 * 1024


@dataclass(frozen=True, slots=True)
class LentTarget:
    """Implements Target and Destination: the lender has brought the device up."""

    params: LentParams
    geometry: RingGeometry
    capabilities: Capabilities

    @classmethod
    def of(cls, params: LentParams) -> "LentTarget":
        """The target, its geometry checked.

        Raises:
            BadLend: the geometry makes no sense.
        """
        geometry = _geometry(params)
        # Of tunnels a lender says nothing, so that only the device refuses some.
        config = NetConfig(**dict(params.config), supported_tunnel_types=frozenset(TunnelType))
        return cls(params, geometry, Capabilities.of(params.features, config, geometry))

    @property
    def name(self) -> str:
        """ "": only the lender knows which device the ring is of."""
        return ""

    @property
    def event_idx(self) -> bool:
        """Whether RING_EVENT_IDX was negotiated."""
        return Feature.RING_EVENT_IDX in self.params.features

    async def look(self, guest: FeatureSet) -> "LentTarget":
        """The lender's word; nothing of the device can be looked at."""
        return self

    async def bring_up(self, guest: FeatureSet, migration: str) -> "LentTarget":
        """The same: the lender has done it."""
        return self

    def identity(self, fds: list[int]) -> object:
        """The memory's inode and the ring's place in it."""
        memory = memory_identity(LentDescriptors.from_list(fds))
        return (*memory, self.geometry.descriptors - self.geometry.memory.iova)

    def open(self, fds: list[int], user: int) -> ControlQueue:
        """Maps the ring and the buffers, from copies of the descriptors."""
        return LentQueue(
            self.geometry,
            LentDescriptors.from_list(fds, user).duplicate(),
            _indices(self.params.ring),
            event_idx=self.event_idx,
            in_order=Feature.IN_ORDER in self.params.features,
        )

    def done(self) -> None:
        """Nothing: the device is the lender's."""

    async def give_up(self) -> None:
        """Nothing: the device is the lender's."""


def lent_as(queue: ControlQueue) -> Lent:
    """What such a target's queue was lent as."""
    assert isinstance(queue, LentQueue)
    return queue.lent


def lent_by(fds: list[int]) -> Lent:
    """What a request's descriptors lend.

    Raises:
        BadLend: they are not what a lent target needs.
    """
    return LentDescriptors.from_list(fds).check()


def _geometry(params: LentParams) -> RingGeometry:
    ring = params.ring
    _check_layout(params)
    geometry = _laid_out(ring)
    try:
        geometry.check()
        check_room(geometry, legacy=is_legacy(params.features))
    except BadGeometry as error:
        raise BadLend(str(error)) from error
    check_indices(_indices(ring), geometry)
    used = Region(geometry.buffers.iova, min(geometry.buffers.size, _MAX_BUFFERS))
    return replace(geometry, buffers=used)


def _check_layout(params: LentParams) -> None:
    """The layout is what was negotiated, and nothing else."""
    packed = Feature.RING_PACKED in params.features
    if packed != isinstance(params.ring, PackedRingParams):
        layout = "packed" if packed else "split"
        raise BadLend(
            f'expected ring.layout "{layout}" {"with" if packed else "without"} RING_PACKED, '
            f'got "{params.ring.layout}"'
        )


def _laid_out(ring: SplitRingParams | PackedRingParams) -> RingGeometry:
    memory = Region(ring.memory.iova, ring.memory.size)
    buffers = Region(ring.buffers.iova, ring.buffers.size)
    if isinstance(ring, PackedRingParams):
        return PackedGeometry(
            ring.size, memory, buffers, ring.descriptors, ring.driver, ring.device
        )
    return SplitGeometry(ring.size, memory, buffers, ring.descriptors, ring.available, ring.used)


def _indices(ring: SplitRingParams | PackedRingParams) -> Indices:
    if isinstance(ring, PackedRingParams):
        wraps = (ring.available_wrap, ring.used_wrap)
        return Indices(ring.next_available, ring.next_used, *wraps)
    return Indices(ring.next_available, ring.next_used)
