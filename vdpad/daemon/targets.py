"""Targets: what a request names as the destination, and how its control queue is opened.

A target answers three questions: what the device takes (for the plan), where its ring lies (for the
program), and, at commit, its control queue. The first two touch no device.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog

from vdpad.daemon.faults import ApiError, Kind
from vdpad.daemon.settings import Software
from vdpad.daemon.target_params import (
    DeviceConfigParams,
    LentParams,
    Params,
    SoftwareParams,
)
from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.lent import BadLend, Indices, LentDescriptors, LentQueue, memory_identity
from vdpad.queues.software.device import ALL_FEATURES, SoftwareConfig, SoftwareDevice
from vdpad.queues.software.misbehaviour import Misbehaviour
from vdpad.restore.plan import Capabilities
from vdpad.restore.program import check_room, largest_command
from vdpad.virtio.config import NetConfig
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.split_ring import BadGeometry, Region, RingGeometry

log: structlog.stdlib.BoundLogger = structlog.get_logger("vdpad.targets")

# With these negotiated a ring is not what the replay works on.
_NOT_REPLAYABLE = {
    Feature.RING_PACKED: "the replay works on split rings",
    Feature.IN_ORDER: "the replay reads every used element",
}


class Target(Protocol):
    """A destination."""

    @property
    def geometry(self) -> RingGeometry:
        """A checked one."""

    @property
    def capabilities(self) -> Capabilities:
        """What the device takes."""

    @property
    def event_idx(self) -> bool:
        """Whether RING_EVENT_IDX was negotiated."""

    def identity(self, fds: list[int]) -> object:
        """What no two commits may have at the same time.

        Raises:
            BadLend: the descriptors are not what the target needs.
        """

    def open(self, fds: list[int]) -> ControlQueue:
        """The control queue, idle. The descriptors stay the caller's.

        Raises:
            BadLend: the descriptors or the ring cannot be used.
        """

    def done(self) -> None:
        """A replay has ended and the queue is closed again."""


@dataclass(frozen=True, slots=True)
class LentTarget:
    """A CVQ that a VMM lends with each commit."""

    params: LentParams
    geometry: RingGeometry
    capabilities: Capabilities

    @property
    def event_idx(self) -> bool:
        """Whether RING_EVENT_IDX was negotiated."""
        return Feature.RING_EVENT_IDX in self.params.features

    def identity(self, fds: list[int]) -> object:
        """The memory's inode and the ring's place in it."""
        memory = memory_identity(LentDescriptors.from_list(fds))
        return (*memory, self.geometry.descriptors - self.geometry.memory.iova)

    def open(self, fds: list[int]) -> ControlQueue:
        """Maps what was lent."""
        ring = self.params.ring
        return LentQueue(
            self.geometry,
            LentDescriptors.from_list(fds).duplicate(),
            Indices(ring.next_available, ring.next_used),
            event_idx=self.event_idx,
        )

    def done(self) -> None:
        """Nothing: the device is the lender's."""


class SoftwareTarget:
    """A software device in the daemon's process."""

    def __init__(self, settings: Software) -> None:
        self._settings = settings
        self._device = SoftwareDevice(_software_config(settings))
        self.geometry = self._device.geometry
        config = self._device.config
        self.event_idx = Feature.RING_EVENT_IDX in config.features
        self.capabilities = _capabilities(config.features, config.net, self.geometry)

    def start(self) -> None:
        """Begins to serve, in the running loop."""
        self._device.start()

    async def stop(self) -> None:
        """Ends the device. On cancellation it is ended all the same."""
        await self._device.stop()

    def identity(self, fds: list[int]) -> object:
        """The device itself; it needs no descriptors."""
        return self._settings.name

    def open(self, fds: list[int]) -> ControlQueue:
        """Resets the device, as whoever brings one up for a guest does, and lends its ring."""
        self._device.reset()
        return LentQueue(
            self.geometry,
            self._device.lend(),
            Indices(),
            event_idx=self.event_idx,
            worth_polling=False,
        )

    def done(self) -> None:
        """Writes down what the device holds now, where that is wished."""
        if self._settings.state_file is None:
            return
        try:
            self._settings.state_file.write_text(json.dumps(self._device.net.settings()))
        except OSError as error:
            log.warning("state file not written", path=str(error.filename), error=error.strerror)


def _software_config(settings: Software) -> SoftwareConfig:
    return SoftwareConfig(
        features=ALL_FEATURES if settings.features is None else settings.features,
        net=NetConfig(
            mac=settings.mac,
            max_virtqueue_pairs=settings.max_queue_pairs,
            rss_max_key_size=settings.rss_max_key_size,
            rss_max_indirection_table_length=settings.rss_max_indirection_table_length,
            supported_hash_types=settings.supported_hash_types,
        ),
        ring_size=settings.ring_size,
        start_index=settings.start_index,
        misbehaviour=Misbehaviour(
            faults={int(at): fault for at, fault in settings.misbehave.faults.items()},
            order=settings.misbehave.order,
            seconds_a_command=settings.misbehave.seconds_a_command,
            interrupts=settings.misbehave.interrupts,
        ),
    )


def _capabilities(
    features: FeatureSet, config: NetConfig | DeviceConfigParams, geometry: RingGeometry
) -> Capabilities:
    return Capabilities(
        features=features,
        largest_command=largest_command(geometry),
        max_queue_pairs=config.max_virtqueue_pairs,
        rss_max_key_size=config.rss_max_key_size,
        rss_max_indirection_table_length=config.rss_max_indirection_table_length,
        supported_hash_types=config.supported_hash_types,
    )


class Targets:
    """All that a request may name."""

    def __init__(self, software: Iterable[Software]) -> None:
        self._software = {each.name: SoftwareTarget(each) for each in software}

    def start(self) -> None:
        """Starts the software devices in the running loop."""
        for target in self._software.values():
            target.start()

    async def stop(self) -> None:
        """Ends the software devices."""
        for target in self._software.values():
            await target.stop()

    def resolve(self, params: Params) -> Target:
        """The target that a request means.

        Raises:
            ApiError: no-such-device.
            BadLend: the geometry makes no sense.
        """
        if isinstance(params, LentParams):
            return _lent(params)
        if isinstance(params, SoftwareParams) and params.name in self._software:
            return self._software[params.name]
        raise ApiError(Kind.NO_SUCH_DEVICE, self._not_found(params))

    def _not_found(self, params: Params) -> str:
        if isinstance(params, SoftwareParams):
            there = ", ".join(self._software) or "none"
            return f"no software device has this name; there are: {there}"
        return "vhost-vdpa devices are not served by this version; lend the CVQ instead"


def _lent(params: LentParams) -> LentTarget:
    for feature, why in _NOT_REPLAYABLE.items():
        if feature in params.features:
            raise BadLend(f"expected a ring without {feature.name}: {why}")
    ring = params.ring
    geometry = RingGeometry(
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
    return LentTarget(params, geometry, _capabilities(params.features, params.config, geometry))
