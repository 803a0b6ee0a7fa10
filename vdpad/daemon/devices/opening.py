"""A vhost-vdpa device in our hands: how it comes and how it goes.

All of this sleeps in the device's driver for as long as that pleases, and runs on threads.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vdpad.daemon.devices.kept import Device
from vdpad.daemon.devices.store import DescriptorStore, Stored
from vdpad.host.sysfs import Holder, holders_of, named_holders
from vdpad.queues.vhost_vdpa.adopted import AdoptedDevice
from vdpad.queues.vhost_vdpa.device import VhostVdpaDevice
from vdpad.queues.vhost_vdpa.errors import NodeBusy, VhostVdpaError
from vdpad.virtio.features import FeatureSet


class OwnedElsewhere(NodeBusy):
    """Another process has the device."""

    def __init__(self, node: Path, holders: Sequence[Holder]) -> None:
        super().__init__(
            f"{named_holders(holders)} has {node}; only one can, and closing it resets the device"
        )
        self.holders = holders


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
        OwnedElsewhere: another process has it.
        VhostVdpaError: by a subclass that says why it does not come up.
        NoMemory: for the rings.
    """
    try:
        device = VhostVdpaDevice(node, guest)
    except NodeBusy as error:
        raise OwnedElsewhere(node, holders_of(node)) from error
    if not store.is_present:
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
