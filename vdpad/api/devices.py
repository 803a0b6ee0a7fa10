"""The vDPA devices of this host, as `devices` lists them (docs/api.md)."""

from typing import Annotated

from pydantic import Field

from vdpad.api.results import Count, Result, is_none
from vdpad.host import sysfs, vdpa_netlink
from vdpad.host.vdpa import NoSuchVdpaDevice, VdpaConfig, VdpaDevice
from vdpad.virtio.features import FEATURES
from vdpad.virtio.mac import format_mac


class NetConfigResult(Result):
    """What netlink tells of virtio_net_config; each only where the device has its feature."""

    mac: Annotated[str | None, Field(exclude_if=is_none)] = None
    status: Annotated[Count | None, Field(exclude_if=is_none)] = None
    max_virtqueue_pairs: Annotated[Count | None, Field(exclude_if=is_none)] = None
    mtu: Annotated[Count | None, Field(exclude_if=is_none)] = None


class DeviceResult(Result):
    """A vDPA device of the daemon's host."""

    name: str
    mgmtdev: str
    driver: str | None
    node: str | None
    features: tuple[str, ...]
    config: NetConfigResult | None


async def all_devices() -> tuple[DeviceResult, ...]:
    """The result of `devices`.

    Raises:
        VdpaError: by a subclass: vdpa is not loaded, or netlink does not answer.
    """
    return tuple(listed(device, config) for device, config in await vdpa_netlink.everything())


def listed(device: VdpaDevice, config: VdpaConfig | None) -> DeviceResult:
    """One device; one that has been removed since has neither driver nor node."""
    try:
        node, driver = sysfs.node_of(device.name), sysfs.driver_of(device.name)
    except NoSuchVdpaDevice:
        node = driver = None
    return DeviceResult(
        name=device.name,
        mgmtdev=device.mgmtdev,
        driver=driver,
        node=None if node is None else str(node),
        features=tuple(FEATURES.names(sorted((config and config.features) or ()))),
        config=None if config is None else _config(config),
    )


def _config(config: VdpaConfig) -> NetConfigResult:
    """What netlink tells of virtio_net_config, under the specification's names."""
    return NetConfigResult(
        mac=config.mac and format_mac(config.mac),
        status=config.status,
        max_virtqueue_pairs=config.max_virtqueue_pairs,
        mtu=config.mtu,
    )
