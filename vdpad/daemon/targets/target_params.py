"""A target as a request names it: docs/api.md, "Target"."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    PlainValidator,
    RootModel,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from vdpad.api.params import Params
from vdpad.api.targets import SoftwareParams, VhostVdpaParams, target_of
from vdpad.state.fields import U16, FeatureNames, HashTypeNames
from vdpad.state.problems import invalid
from vdpad.virtio.config import MAX_QUEUE_PAIRS
from vdpad.virtio.features import Feature

_Address = Annotated[int, Field(ge=0, lt=1 << 64)]
_Size = Annotated[int, Field(ge=1, lt=1 << 64)]
_WrapCounter = Annotated[int, Field(ge=0, le=1)]


class RegionParams(Params):
    """A stretch of device addresses."""

    iova: _Address
    size: _Size


class _RingParams(Params):
    """Where a lent ring lies, in device addresses."""

    size: Annotated[int, Field(ge=0, lt=1 << 32)]
    memory: RegionParams
    descriptors: _Address
    buffers: RegionParams
    next_available: U16 | None = None
    next_used: U16 | None = None


class SplitRingParams(_RingParams):
    """A split ring."""

    layout: Literal["split"] = "split"
    available: _Address
    used: _Address


class PackedRingParams(_RingParams):
    """A packed ring, and the wrap counters with which it stands."""

    layout: Literal["packed"]
    driver: _Address
    device: _Address
    available_wrap: _WrapCounter | None = None
    used_wrap: _WrapCounter | None = None


_LAYOUTS: Mapping[str, type[SplitRingParams | PackedRingParams]] = {
    "split": SplitRingParams,
    "packed": PackedRingParams,
}


def _ring_of(
    value: Any, handler: ValidatorFunctionWrapHandler
) -> SplitRingParams | PackedRingParams:
    """By its layout first, so that problems' paths name no other one."""
    layout = value.get("layout", "split") if isinstance(value, dict) else "split"
    model = _LAYOUTS.get(layout) if isinstance(layout, str) else None
    if model is None:
        raise invalid((("layout",), "layout", f"expected one of {', '.join(_LAYOUTS)}"))
    return model.model_validate(value)


class AnyRing(RootModel[SplitRingParams | PackedRingParams]):
    """A ring of either layout."""


RingParams = Annotated[
    SplitRingParams | PackedRingParams, WrapValidator(_ring_of, json_schema_input_type=AnyRing)
]


class DeviceConfigParams(Params):
    """What of virtio_net_config a plan needs."""

    max_virtqueue_pairs: Annotated[int, Field(ge=1, le=MAX_QUEUE_PAIRS)] = 1
    rss_max_key_size: Annotated[int, Field(ge=0, le=255)] = 0
    rss_max_indirection_table_length: U16 = 0
    supported_hash_types: HashTypeNames = frozenset()


class LentParams(Params):
    """A CVQ that its owner lends."""

    kind: Literal["lent"]
    features: FeatureNames
    config: DeviceConfigParams = DeviceConfigParams()
    ring: RingParams


# Of memory, kick and call.
_Place = Annotated[int, Field(ge=0, lt=3)]


class DescriptorPlaces(Params):
    """Where among the descriptors that came with a request each of a lent ring's is, from 0."""

    memory: _Place
    kick: _Place
    call: _Place

    @model_validator(mode="after")
    def _refuse_one_place_twice(self) -> Self:
        names = {place: name for name, place in reversed(list(self))}
        for name, place in self:
            if names[place] != name:
                message = f"expected a place of its own, got {place}, which is {names[place]}'s"
                raise invalid(((name,), "duplicate", message))
        return self


IN_ORDER = DescriptorPlaces(memory=0, kick=1, call=2)

_MODELS: Mapping[str, type[Params]] = {
    "software": SoftwareParams,
    "vhost-vdpa": VhostVdpaParams,
    "lent": LentParams,
}

KINDS = tuple(_MODELS)
"""What a target may be, as the API names it."""

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


def _parse(value: Any) -> Params:
    target = target_of(_MODELS, value)
    if isinstance(target, LentParams):
        _require_config(target)
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


class AnyTarget(RootModel[SoftwareParams | VhostVdpaParams | LentParams]):
    """A target: one of these, by its kind."""

    root: Annotated[SoftwareParams | VhostVdpaParams | LentParams, Field(discriminator="kind")]


TargetParams = Annotated[Params, PlainValidator(_parse, json_schema_input_type=AnyTarget)]
