"""A target's device among the vDPA devices of this host, and what the kernel tells of it."""

from dataclasses import dataclass
from pathlib import Path

from vdpad.daemon.targets.nodes import NodePaths
from vdpad.host import sysfs, vdpa_netlink
from vdpad.host.vdpa import VdpaConfig, VdpaDevice
from vdpad.service.refusal import Kind, Refusal
from vdpad.virtio.features import FeatureSet


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device that vhost_vdpa drives."""

    name: str
    node: Path


async def find(name: str, path: str, paths: NodePaths, user: int) -> DeviceNode:
    """The device that a request names, by one of the two.

    Args:
        name: of the device, or "".
        path: of its node, else.
        paths: looks at it.
        user: whose request it is.

    Raises:
        Refusal: there is none of this name or path, or the path cannot be looked at.
        VdpaError: sysfs does not tell.
    """
    found = name or await paths.name_of(Path(path), user)
    if found is None:
        raise Refusal(
            Kind.NO_SUCH_DEVICE,
            "expected the path of a vhost-vdpa device's node, such as /dev/vhost-vdpa-0, that "
            "this process sees (a service wants the drop-in vhost-vdpa.conf for that); "
            f"{_there()}",
        )
    node = sysfs.node_of(found)
    if node is None:
        driver = sysfs.driver_of(found) or "no driver"
        raise Refusal(
            Kind.NO_SUCH_DEVICE,
            f"expected a device with the driver vhost_vdpa, this one has {driver}; bind it "
            "(docs/devices.md)",
        )
    return DeviceNode(found, node)


def _there() -> str:
    return f"this host's vDPA devices: {', '.join(sysfs.names()) or 'none'}"


async def one_device(name: str) -> tuple[VdpaDevice, VdpaConfig, FeatureSet]:
    """A network device, its config, and the features that it offers.

    Raises:
        VdpaError: by a subclass that says why it cannot be told.
        Refusal: the kernel does not tell what the device offers.
    """
    device, config = await vdpa_netlink.network_device(name)
    if config.features is None:
        raise Refusal(
            Kind.INTERNAL,
            "expected the kernel to tell the features that the device offers, it does not "
            "(before 6.2); only `prepare`, which opens the device, can tell whether a state fits",
        )
    return device, config, config.features
