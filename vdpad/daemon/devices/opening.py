"""A vhost-vdpa device in our hands: how it comes and how it goes.

All of this sleeps in the device's driver for as long as that pleases, and runs on threads.
"""

import contextlib
from pathlib import Path
from typing import NamedTuple

from vdpad.daemon.devices.kept import Device
from vdpad.daemon.devices.store import DescriptorStore, Stored
from vdpad.daemon.faults import ApiError, Kind
from vdpad.host.sysfs import holders_of
from vdpad.queues.vhost_vdpa.adopted import AdoptedDevice
from vdpad.queues.vhost_vdpa.device import NoControlQueue, VhostVdpaDevice
from vdpad.queues.vhost_vdpa.memory import NoMemory
from vdpad.queues.vhost_vdpa.node import (
    MemoryLimit,
    NodeBusy,
    NoSuchNode,
    NotPermitted,
    VhostVdpaError,
)
from vdpad.virtio.features import FeatureSet

_KINDS: dict[type[Exception], Kind] = {
    NoSuchNode: Kind.NO_SUCH_DEVICE,
    NotPermitted: Kind.NOT_ALLOWED,
    MemoryLimit: Kind.NOT_ALLOWED,
    NoMemory: Kind.OVERLOADED,
}


class Opened(NamedTuple):
    """A device that is up."""

    device: Device
    store_key: str | None
    """What the store knows it by; None where there is none."""


def open_device(
    name: str, node: Path, guest: FeatureSet, owner: str, store: DescriptorStore
) -> Opened:
    """Opens a device, brings it up for a guest with these features, and stores it.

    Raises:
        ApiError: what the caller is told.
        NoControlQueue: passed on.
    """
    try:
        device = VhostVdpaDevice(node, guest)
    except NoControlQueue:
        raise
    except NodeBusy as error:
        raise _busy(node) from error
    except (VhostVdpaError, NoMemory) as error:
        kind = _KINDS.get(type(error), Kind.DEVICE_BROKEN)
        raise ApiError(kind, str(error)) from error
    if not store.is_there:
        return Opened(device, None)
    try:
        key = store.put(
            device=name,
            node=str(node),
            owner=owner,
            geometry=device.geometry,
            features=device.features,
            descriptors=device.descriptors(),
        )
    except BaseException:
        device.close()
        raise
    return Opened(device, key)


def adopt_device(stored: Stored) -> Opened:
    """A device that an earlier daemon brought up.

    Raises:
        VhostVdpaError: the device is none any more.
    """
    device = AdoptedDevice(Path(stored.node), stored.descriptors, stored.geometry, stored.features)
    return Opened(device, stored.key)


def give_back(device: Device, store_key: str | None, store: DescriptorStore) -> None:
    """Resets a device and closes it, here and in the store."""
    if store_key is not None:
        # What refuses is reset all the same, by the last copy's closing.
        with contextlib.suppress(VhostVdpaError):
            device.reset()
        store.drop(store_key)
    device.close()


def _busy(node: Path) -> ApiError:
    holders = holders_of(node)
    named = ", ".join(f"{each.command} (pid {each.pid})" for each in holders)
    return ApiError(
        Kind.BUSY,
        f"{named or 'another process'} has {node}; only one can, and closing it resets the device",
        holders=[{"pid": each.pid, "command": each.command} for each in holders],
    )
