"""Targets: what a request names as the destination, and how its control queue is opened.

A target answers three questions: what the device takes (for the plan), where its ring lies (for the
program), and, at commit, its control queue. The first two touch no device.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import structlog
from pydantic import BaseModel, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from vdpad.daemon.faults import ApiError, Kind
from vdpad.daemon.settings import Software
from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.lent import BadLend, Indices, LentDescriptors, LentQueue, memory_identity
from vdpad.queues.software.device import ALL_FEATURES, SoftwareConfig, SoftwareDevice
from vdpad.queues.software.misbehaviour import Misbehaviour
from vdpad.restore.plan import Capabilities
from vdpad.restore.program import check_room, largest_command
from vdpad.state.fields import U16, FeatureNames, HashTypeNames
from vdpad.state.problems import invalid
from vdpad.virtio.config import MAX_QUEUE_PAIRS, NetConfig
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.split_ring import BadGeometry, Region, RingGeometry

log: structlog.stdlib.BoundLogger = structlog.get_logger("vdpad.targets")

_Address = Annotated[int, Field(ge=0, lt=1 << 64)]
_Size = Annotated[int, Field(ge=1, lt=1 << 64)]

# With these negotiated a ring is not what the replay works on.
_NOT_REPLAYABLE = {
    Feature.RING_PACKED: "the replay works on split rings",
    Feature.IN_ORDER: "the replay reads every used element",
}


class _Params(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class SoftwareParams(_Params):
    """A software device of the daemon's, by its name."""

    kind: Literal["software"]
    name: Annotated[str, Field(min_length=1, max_length=64)]


class VhostVdpaParams(_Params):
    """A vhost-vdpa device, by its vdpa name or its node's path."""

    kind: Literal["vhost-vdpa"]
    device: Annotated[str, Field(min_length=1, max_length=128)] = ""
    path: Annotated[str, Field(min_length=1, max_length=4096)] = ""


class RegionParams(_Params):
    """A stretch of device addresses."""

    iova: _Address
    size: _Size


class RingParams(_Params):
    """Where a lent ring lies, in device addresses."""

    size: Annotated[int, Field(ge=0, lt=1 << 32)]
    memory: RegionParams
    descriptors: _Address
    available: _Address
    used: _Address
    buffers: RegionParams
    next_available: U16 | None = None
    next_used: U16 | None = None


class DeviceConfigParams(_Params):
    """What of virtio_net_config a plan needs."""

    max_virtqueue_pairs: Annotated[int, Field(ge=1, le=MAX_QUEUE_PAIRS)] = 1
    rss_max_key_size: Annotated[int, Field(ge=0, le=255)] = 0
    rss_max_indirection_table_length: U16 = 0
    supported_hash_types: HashTypeNames = frozenset()


class LentParams(_Params):
    """A CVQ that its owner lends."""

    kind: Literal["lent"]
    features: FeatureNames
    config: DeviceConfigParams = DeviceConfigParams()
    ring: RingParams


_KINDS: dict[str, type[_Params]] = {
    "software": SoftwareParams,
    "vhost-vdpa": VhostVdpaParams,
    "lent": LentParams,
}

# Which config keys each feature makes necessary.
_NEEDED_CONFIG = {
    Feature.MQ: ("max_virtqueue_pairs",),
    Feature.RSS: (
        "max_virtqueue_pairs",
        "rss_max_key_size",
        "rss_max_indirection_table_length",
        "supported_hash_types",
    ),
    Feature.HASH_REPORT: ("rss_max_key_size", "supported_hash_types"),
}


def _parse(value: Any) -> _Params:
    """The target of a request: by its kind first, so that problems' paths name no other kind."""
    if not isinstance(value, dict):
        raise PydanticCustomError("target", "expected an object with a kind")
    kind = value.get("kind")
    model = _KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise invalid((("kind",), "kind", f"expected one of {', '.join(_KINDS)}"))
    target = model.model_validate(value)
    if isinstance(target, LentParams):
        _require_config(target)
    if isinstance(target, VhostVdpaParams) and bool(target.device) == bool(target.path):
        raise invalid(((), "device-or-path", "expected either a device or a path"))
    return target


def _require_config(target: LentParams) -> None:
    given = target.config.model_fields_set
    missing = {
        key: feature.name
        for feature, keys in _NEEDED_CONFIG.items()
        if feature in target.features
        for key in keys
        if key not in given
    }
    if missing:
        raise invalid(
            *(
                (("config", key), "missing", f"{feature} makes it necessary")
                for key, feature in missing.items()
            )
        )


TargetParams = Annotated[_Params, PlainValidator(_parse)]


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

    def resolve(self, params: _Params) -> Target:
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

    def _not_found(self, params: _Params) -> str:
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
