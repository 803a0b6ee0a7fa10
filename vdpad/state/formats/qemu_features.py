"""The features that a guest negotiated, as QMP's x-query-virtio-status tells them (QEMU 7.2 on).

QEMU gives sentences, "VIRTIO_NET_F_MQ: Multiqueue …", and a mask of those that it has none for. Two
of its sentences begin with another feature's name, so whole sentences are looked up first.

Source: seen on QEMU 7.2 and 10.0; qapi/virtio.json and hw/virtio/virtio-qmp.c of 10.2 for the bits
from 64 on.
"""

import re
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vdpad.state.found import FormatError
from vdpad.state.problems import problems_of, summary
from vdpad.virtio.bits import bits_of
from vdpad.virtio.features import FEATURES, Feature, FeatureSet

__all__ = ["guest_features"]

_MISNAMED = {
    "VIRTIO_NET_F_GUEST_USO4: Driver can receive USOv6": Feature.GUEST_USO6,
    "VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO: Driver can receive GSO over UDP tunnel packets requiring "
    "checksum offload for the outer header": Feature.GUEST_UDP_TUNNEL_GSO_CSUM,
}
# Names that virtio 1.4 has not, or has another for: Linux virtio_net.h, vhost_types.h; QEMU.
_OTHERS = {
    "VIRTIO_F_IOMMU_PLATFORM": int(Feature.ACCESS_PLATFORM),
    "VHOST_F_LOG_ALL": 26,
    "VHOST_USER_F_PROTOCOL_FEATURES": 30,
}
_NAME = re.compile(r"VIRTIO_(?:NET_)?(?:(RING_)F_|F_)([A-Z0-9_]+)")
_SHOWN = 80
# virtio 1.4, 2.2: 128 feature bits; QEMU tells them in two masks of 64.
_HALF = 64


class _Features(BaseModel):
    """QAPI's VirtioDeviceFeatures; what newer ones add is left alone."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)

    transports: list[str]
    dev_features: list[str] = Field(alias="dev-features", default=[])
    unknown: int = Field(alias="unknown-dev-features", default=0, ge=0, lt=1 << _HALF)
    unknown_high: int = Field(alias="unknown-dev-features2", default=0, ge=0, lt=1 << _HALF)


class _Status(BaseModel):
    """As much of QAPI's VirtioStatus as is needed."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)

    guest_features: _Features = Field(alias="guest-features")


def guest_features(status: object) -> FeatureSet:
    """What the guest's driver negotiated.

    Args:
        status: x-query-virtio-status' answer.

    Raises:
        FormatError: it is no such answer, or a sentence in it stands for no feature that is known.
    """
    try:
        found = _Status.model_validate(status).guest_features
    except ValidationError as error:
        raise FormatError(f"x-query-virtio-status: {summary(problems_of(error))}") from error
    named = list(_named([*found.transports, *found.dev_features]))
    if len(set(named)) != len(named):
        raise FormatError("x-query-virtio-status: expected each feature once, got one twice")
    return frozenset(named) | bits_of(found.unknown | found.unknown_high << _HALF)


def _named(sentences: Iterable[str]) -> Iterable[int]:
    for sentence in sentences:
        bit = _MISNAMED.get(sentence) or _bit(sentence.partition(":")[0])
        if bit is None:
            got = repr(sentence[:_SHOWN])
            raise FormatError(f"x-query-virtio-status: expected features that are known, got {got}")
        yield bit


def _bit(name: str) -> int | None:
    match = _NAME.fullmatch(name)
    if name in _OTHERS or match is None:
        return _OTHERS.get(name)
    known = f"{match[1] or ''}{match[2]}"
    return FEATURES.bit(known) if known in Feature.__members__ else None
