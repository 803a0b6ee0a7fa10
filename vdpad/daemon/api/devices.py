"""The reply of `devices`: the vDPA devices of this host (docs/api.md)."""

from vdpad.daemon.api.results import DeviceResult, NetConfigResult
from vdpad.host import sysfs, vdpa_netlink
from vdpad.host.vdpa import NoSuchVdpaDevice, VdpaConfig, VdpaDevice
from vdpad.virtio.commands import format_mac
from vdpad.virtio.features import FEATURES


async def all_devices() -> tuple[DeviceResult, ...]:
    """The result of `devices`.

    Raises:
        VdpaError: by a subclass: vdpa is not loaded, or netlink does not answer.
    """
    return tuple(_result(device, config) for device, config in await vdpa_netlink.everything())


def _result(device: VdpaDevice, config: VdpaConfig | None) -> DeviceResult:
    try:
        node, driver = sysfs.node_of(device.name), sysfs.driver_of(device.name)
    except NoSuchVdpaDevice:
        node = driver = None  # removed since
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
