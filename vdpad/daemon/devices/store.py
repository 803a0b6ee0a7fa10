"""The descriptor store: what of a kept device systemd holds while the daemon is restarted.

Each device goes there as five descriptors, each under a name of its own: node, memory, kick, call,
and a description, a sealed memfd with what the next daemon must know, in JSON. systemd keeps their
order nowhere, and a name is all that it tells of one. A set that is not complete is let go, and so
the device reset: the daemon died while it stored it, when nothing had been sent to the device yet,
or systemd had no room for all of it (FileDescriptorStoreMax=).

Storing and dropping are messages to systemd that nobody answers. `drop` waits until systemd has
read them, since its copy of the node keeps others from opening the device.

Source: sd_notify(3), FDSTORE=; systemd.service(5), FileDescriptorStoreMax=.
"""

import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

import structlog
from pydantic import Field, ValidationError

from vdpad.errors import VdpadError
from vdpad.queues.vhost_vdpa.device import DeviceDescriptors
from vdpad.service.systemd.memfd import sealed_memfd
from vdpad.service.systemd.notify import Notifier
from vdpad.state.problems import problems_of, summary
from vdpad.state.strict_model import StrictModel
from vdpad.virtio.bits import bits_of, mask_of
from vdpad.virtio.features import FeatureSet
from vdpad.virtio.layouts import AnyGeometry

log: structlog.stdlib.BoundLogger = structlog.get_logger("vdpad.store")

PREFIX = "kept."
"""What the names of stored descriptors begin with."""

DESCRIPTORS_PER_DEVICE = 5
_DESCRIPTION = "description"
_PARTS = (*DeviceDescriptors._fields, _DESCRIPTION)

# A description has about 1 KiB.
_MAX_BYTES = 64 * 1024


class _Description(StrictModel):
    """What goes into a description."""

    version: Annotated[int, Field(ge=1, le=1)] = 1
    device: Annotated[str, Field(min_length=1, max_length=255)]
    node: Annotated[str, Field(min_length=1, max_length=4096)]
    migration: Annotated[str, Field(min_length=1, max_length=128)]
    """The owner."""
    geometry: AnyGeometry
    features: Annotated[int, Field(ge=0, lt=1 << 64)]


@dataclass(frozen=True, slots=True)
class Stored:
    """A device that systemd held."""

    key: str
    """What its names have in common."""
    device: str
    node: str
    owner: str
    geometry: AnyGeometry
    features: FeatureSet
    descriptors: DeviceDescriptors


class _BadDescription(VdpadError):
    """A description that says nothing that can be used."""


class DescriptorStore:
    """systemd's store; or none, where there is nobody to tell."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier

    @property
    def is_present(self) -> bool:
        """Whether anything can be stored."""
        return self._notifier.is_heard

    def put(
        self,
        *,
        device: str,
        node: str,
        owner: str,
        geometry: AnyGeometry,
        features: FeatureSet,
        descriptors: DeviceDescriptors,
    ) -> str:
        """Stores copies of a device's descriptors; gives the key to drop them by."""
        key = PREFIX + secrets.token_hex(8)
        description = _Description(
            device=device,
            node=node,
            migration=owner,
            geometry=geometry,
            features=mask_of(features),
        )
        memory = sealed_memfd("vdpad-kept", description.model_dump_json().encode())
        try:
            for part, fd in zip(_PARTS, (*descriptors, memory), strict=True):
                self._notifier.store(f"{key}.{part}", fd)
        finally:
            os.close(memory)
        return key

    def drop(self, key: str) -> None:
        """Has systemd close its copies; returns once it has, or has taken too long."""
        self._notifier.forget(f"{key}.{part}" for part in _PARTS)

    def take(self, inherited: Iterable[tuple[str, int]]) -> Iterator[Stored]:
        """The devices among what systemd handed over; what is no whole device is closed.

        Args:
            inherited: names and descriptors; those of other names are left alone.
        """
        sets: dict[str, dict[str, int]] = {}
        for name, fd in inherited:
            key, _, part = name.rpartition(".")
            if name.startswith(PREFIX):
                _close(sets.setdefault(key, {}).pop(part, None))
                sets[key][part] = fd
        for key, parts in sets.items():
            try:
                yield _stored(key, parts)
            except (_BadDescription, OSError) as error:
                log.error("stored device let go", key=key, why=str(error))
                for fd in parts.values():
                    _close(fd)
                self.drop(key)


def _stored(key: str, parts: dict[str, int]) -> Stored:
    if parts.keys() != set(_PARTS):
        raise _BadDescription(f"expected {', '.join(_PARTS)}; got {', '.join(parts) or 'nothing'}")
    data = os.pread(parts[_DESCRIPTION], _MAX_BYTES, 0)
    try:
        said = _Description.model_validate_json(data)
    except ValidationError as error:
        raise _BadDescription(summary(problems_of(error))) from error
    _close(parts.pop(_DESCRIPTION))
    return Stored(
        key=key,
        device=said.device,
        node=said.node,
        owner=said.migration,
        geometry=said.geometry,
        features=bits_of(said.features),
        descriptors=DeviceDescriptors(**parts),
    )


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
