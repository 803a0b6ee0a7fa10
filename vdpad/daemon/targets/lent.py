"""A CVQ that a VMM lends with each commit."""

from dataclasses import dataclass, replace

from vdpad.daemon.targets.target_params import LentParams, RingParams
from vdpad.queues.control_queue import ControlQueue, Lent
from vdpad.queues.lent_memory import BadLend
from vdpad.queues.lent_queue import Indices, LentDescriptors, LentQueue, memory_identity
from vdpad.restore.capabilities import Capabilities
from vdpad.restore.program import check_room
from vdpad.virtio.config import NetConfig, TunnelType
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.rings import BadGeometry, Region, RingGeometry
from vdpad.virtio.split_ring import SplitGeometry

# With these negotiated a ring is not what the replay works on.
_NOT_REPLAYABLE = {
    Feature.RING_PACKED: "the replay works on split rings",
    Feature.IN_ORDER: "the replay reads every used element",
}

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
        ring = self.params.ring
        return LentQueue(
            self.geometry,
            LentDescriptors.from_list(fds, user).duplicate(),
            Indices(ring.next_available, ring.next_used),
            event_idx=self.event_idx,
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
    for feature, why in _NOT_REPLAYABLE.items():
        if feature in params.features:
            raise BadLend(f"expected a ring without {feature.name}: {why}")
    ring = params.ring
    _refuse_a_busy_ring(ring)
    geometry = SplitGeometry(
        size=ring.size,
        memory=Region(ring.memory.iova, ring.memory.size),
        descriptors=ring.descriptors,
        available=ring.available,
        used=ring.used,
        buffers=Region(ring.buffers.iova, ring.buffers.size),
    )
    try:
        geometry.check()
        check_room(geometry)
    except BadGeometry as error:
        raise BadLend(str(error)) from error
    used = Region(geometry.buffers.iova, min(geometry.buffers.size, _MAX_BUFFERS))
    return replace(geometry, buffers=used)


def _refuse_a_busy_ring(ring: RingParams) -> None:
    """An idle ring's indices are the same, wherever it stands."""
    said = (ring.next_available, ring.next_used)
    if None not in said and ring.next_available != ring.next_used:
        raise BadLend(
            f"expected an idle ring, got next_available {said[0]} and next_used {said[1]}; "
            "lend it when all its chains have been used"
        )
