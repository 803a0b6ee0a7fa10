"""vDPA devices as the kernel tells of them and takes them, and what can go wrong in asking it.

Plain data: how the kernel is asked is in `vdpa_netlink`, `vdpa_making` and `sysfs`.
Source: Linux include/uapi/linux/vdpa.h and drivers/vdpa/vdpa.c.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vdpad.errors import VdpadError
from vdpad.virtio.config import HashType, NetConfig, TunnelType
from vdpad.virtio.features import FeatureSet

NETWORK = 1
"""The device ID and class of a network device (virtio 1.4, 5 "Device Types")."""

# A device's name is a folder's in sysfs: NAME_MAX in Linux include/uapi/linux/limits.h.
_MAX_NAME = 255

# By what the kernel said.
_ADVICE = {
    "EPERM": "; it wants CAP_NET_ADMIN",
    "EAFNOSUPPORT": "; the unit keeps it from netlink: enable vdpad's drop-in vhost-vdpa.conf",
}

# How much of a name that nobody knows is repeated in a message: it is the sender's text.
_SHOWN = 40


def handle(bus: str | None, name: str) -> str:
    """A management device as the `vdpa` tool prints it: "pci/0000:00:03.0", or "vdpasim_net"."""
    return name if bus is None else f"{bus}/{name}"


class VdpaError(VdpadError):
    """The kernel did not tell what it was asked of vDPA devices."""


class NotLoaded(VdpaError):
    """The kernel has no vdpa here."""

    def __init__(self) -> None:
        super().__init__(
            "vdpa is not loaded on this host: expected its netlink family, got none; "
            "`modprobe vdpa`, or where it is loaded, run vdpad in the host's own network "
            "namespace, since no other has the family"
        )


class NoSuchVdpaDevice(VdpaError):
    """No vDPA device has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"expected the name of a vDPA device, got {name[:_SHOWN]!r}; `vdpa dev show` lists them"
        )


class NoSuchManagementDevice(VdpaError):
    """No management device has this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        """Takes the name that was given, and the handles of those that there are."""
        super().__init__(
            f"expected a management device, got {name[:_SHOWN]!r}; this host has "
            f"{', '.join(known) or 'none: load the driver that makes them'}"
        )


class NameInUse(VdpaError):
    """A vDPA device of this name is there already."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"expected a name that no vDPA device has, got {name[:_SHOWN]!r}; "
            "`vdpa dev show` lists them"
        )


class NotANetworkDevice(VdpaError):
    """A vDPA device of another class."""


class NetlinkStuck(VdpaError):
    """The kernel did not answer in time."""


class NetlinkRefused(VdpaError):
    """The kernel answered a netlink request with an error."""

    def __init__(self, code: str, words: str) -> None:
        """Takes the error's name, such as "EPERM", and what the kernel said of it."""
        super().__init__(f"the kernel refused: {words} ({code}){_ADVICE.get(code, '')}")
        self.code = code
        self.words = words


class NetlinkForbidden(NetlinkRefused):
    """The kernel said that this process may not ask."""


class OddReply(VdpaError):
    """An exchange that no kernel known to vdpad would have with us."""


class AskerFailed(VdpaError):
    """The process that asks the kernel did not do its work."""


@dataclass(frozen=True, slots=True)
class ManagementDevice:
    """What vDPA devices can be made on."""

    bus: str | None
    """None for a simulator, which is on no bus."""
    name: str
    supported_classes: frozenset[int]
    """Device IDs of the devices that it makes."""
    max_vqs: int | None
    """None where the kernel does not tell: before 5.17."""
    features: FeatureSet | None
    """What its devices may offer; None where the kernel does not tell: before 5.17."""

    @property
    def handle(self) -> str:
        """Its name with its bus, as the `vdpa` tool prints it."""
        return handle(self.bus, self.name)


@dataclass(frozen=True, slots=True)
class VdpaDevice:
    """A vDPA device of any class."""

    name: str
    mgmtdev: str
    """The handle of its management device."""
    device_id: int
    vendor_id: int
    max_vqs: int
    max_vq_size: int
    """Descriptors."""
    min_vq_size: int | None
    """Descriptors; None where the kernel does not tell: before 5.17."""


@dataclass(frozen=True, slots=True)
class VdpaConfig:
    """A network device's features and config space; None where the kernel does not tell."""

    name: str
    features: FeatureSet | None
    """What the device offers; None before 6.2."""
    negotiated: FeatureSet | None
    """What its driver took; None until the driver has said FEATURES_OK."""
    mac: bytes | None
    """None without MAC."""
    status: int | None
    """virtio_net_config's: bit 0 is link up, bit 1 announce. None without STATUS."""
    max_virtqueue_pairs: int | None
    """None without MQ and without RSS."""
    mtu: int | None
    """None without MTU."""


@dataclass(frozen=True, slots=True)
class WantedDevice:
    """A network device as it is to be made; what is None is left to its driver."""

    features: FeatureSet
    """All that it offers."""
    mac: bytes | None
    max_virtqueue_pairs: int | None
    mtu: int | None


@dataclass(frozen=True, slots=True)
class VendorStatistic:
    """A counter by the vendor's name for it."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class VendorStatistics:
    """What the vendor counts on one virtqueue of a network device."""

    name: str
    queue_index: int
    negotiated: FeatureSet
    """What the device's driver took."""
    max_virtqueue_pairs: int | None
    """None where neither MQ nor RSS was negotiated."""
    statistics: tuple[VendorStatistic, ...]


def config_space(max_virtqueue_pairs: int | None) -> NetConfig:
    """A device's config space by netlink alone; of what netlink does not tell the most there is.

    Args:
        max_virtqueue_pairs: as VdpaConfig has it.
    """
    return NetConfig(
        max_virtqueue_pairs=max_virtqueue_pairs or 1,
        rss_max_key_size=0xFF,
        rss_max_indirection_table_length=0xFFFF,
        supported_hash_types=frozenset(HashType),
        supported_tunnel_types=frozenset(TunnelType),
    )


def check_name(name: str) -> None:
    """Refuses what no device can be called, before it becomes a path or a request.

    Raises:
        NoSuchVdpaDevice: it is no name, or would leave the folder of devices.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise NoSuchVdpaDevice(name) from None
    if not 0 < size <= _MAX_NAME or name in (".", "..") or "/" in name or "\0" in name:
        raise NoSuchVdpaDevice(name)
