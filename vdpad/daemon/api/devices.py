"""The reply of `devices`: the vDPA devices of this host (docs/api.md)."""

from typing import Any

from vdpad.host import sysfs, vdpa_netlink
from vdpad.host.vdpa import NoSuchVdpaDevice, VdpaConfig, VdpaDevice
from vdpad.virtio.commands import format_mac
from vdpad.virtio.features import FEATURES


async def all_devices() -> list[dict[str, Any]]:
    """The result of `devices`.

    Raises:
        VdpaError: by a subclass: vdpa is not loaded, or netlink does not answer.
    """
    return [_to_json(device, config) for device, config in await vdpa_netlink.everything()]


def _to_json(device: VdpaDevice, config: VdpaConfig | None) -> dict[str, Any]:
    try:
        node, driver = sysfs.node_of(device.name), sysfs.driver_of(device.name)
    except NoSuchVdpaDevice:
        node = driver = None  # removed since
    return {
        "name": device.name,
        "mgmtdev": device.mgmtdev,
        "driver": driver,
        "node": None if node is None else str(node),
        "features": FEATURES.names(sorted((config and config.features) or ())),
        "config": None if config is None else _config_json(config),
    }


def _config_json(config: VdpaConfig) -> dict[str, Any]:
    """What netlink tells of virtio_net_config, under the specification's names."""
    told = {
        "mac": config.mac and format_mac(config.mac),
        "status": config.status,
        "max_virtqueue_pairs": config.max_virtqueue_pairs,
        "mtu": config.mtu,
    }
    return {name: value for name, value in told.items() if value is not None}
