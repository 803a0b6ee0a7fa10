"""What may go wrong with a vhost-vdpa device, and the one place that knows what an errno means."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vdpad.errors import VdpadError
from vdpad.virtio.features import FeatureSet


class VhostVdpaError(VdpadError):
    """The kernel or the device refused a step."""


class NoSuchNode(VhostVdpaError):
    """There is no such device node, it is none of a vhost-vdpa device's, or its device is gone."""


class NodeBusy(VhostVdpaError):
    """Another process has the device."""


class NotPermitted(VhostVdpaError):
    """This process lacks the permission to open or own the device."""


class Unsupported(VhostVdpaError):
    """The kernel or the device's driver has no such step; the device is as it was."""


class BadMapping(VhostVdpaError):
    """Memory that cannot be mapped or unmapped as it was asked."""


class BadVring(VhostVdpaError):
    """A ring that the device cannot have."""


class MemoryLimit(VhostVdpaError):
    """RLIMIT_MEMLOCK keeps the memory from being mapped for the device."""


class OutOfOrder(VhostVdpaError):
    """A step that the kernel would have taken too early or too late without a word."""


class DeviceRefused(VhostVdpaError):
    """The device does not come up, or is none that has a CVQ."""


class PackedRingsOnly(DeviceRefused):
    """A device that came up with no split ring, as octeon_ep does."""

    def __init__(self, refusal: str) -> None:
        super().__init__(
            f"{refusal}. It offers RING_PACKED, which was not asked for, and some devices come up "
            "with nothing else (octeon_ep); guests' rings are split ones here: take another device"
        )


class NoNetworkDevice(DeviceRefused):
    """A device of another type."""


class NoControlQueue(DeviceRefused):
    """The device does not offer CTRL_VQ."""

    def __init__(self, offered: FeatureSet) -> None:
        super().__init__("expected a device that offers CTRL_VQ, this one does not")
        self.offered = offered


# The kernel's own ENOTSUPP, which has no name in user space (include/linux/errno.h).
_ENOTSUPP = 524

_UNSUPPORTED = (Unsupported, "the kernel or the device's driver does not have it")

_KINDS: Mapping[int, tuple[type[VhostVdpaError], str]] = {
    errno.EBUSY: (NodeBusy, "another process has the device, or this one; only one can"),
    errno.ENOENT: (
        NoSuchNode,
        "bind the vdpa device to the driver vhost_vdpa; where it is, let this service see the node "
        "(its drop-in vhost-vdpa.conf)",
    ),
    errno.ENODEV: (NoSuchNode, "the device is being removed"),
    errno.ENXIO: (
        NoSuchNode,
        "no device has this node any more; name the device itself, or the node that it has now",
    ),
    errno.EISDIR: (NoSuchNode, "name the node of a vhost-vdpa device"),
    errno.EACCES: (NotPermitted, "give this user the node (a udev rule, or DeviceAllow=)"),
    errno.EPERM: (NotPermitted, "give this service the node (DeviceAllow=char-vhost-vdpa rw)"),
    # A kernel that is older than the ioctl, and a driver that lacks it.
    errno.ENOTTY: _UNSUPPORTED,
    errno.EOPNOTSUPP: _UNSUPPORTED,
    _ENOTSUPP: (
        VhostVdpaError,
        "its driver needs an IOMMU that keeps caches coherent; switch it on (intel_iommu=on)",
    ),
    errno.ENOBUFS: (VhostVdpaError, "the device has no virtqueue of this index"),
}
_OTHER = (VhostVdpaError, "the kernel's log may say why")


@contextmanager
def refused(path: Path, step: str) -> Iterator[None]:
    """Turns a failure of this step on this node into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise _meant_by(error, f"{path}: {step}") from error


def _meant_by(error: OSError, what: str) -> VhostVdpaError:
    code = error.errno or 0
    kind, advice = _KINDS.get(code, _OTHER)
    name = "ENOTSUPP" if code == _ENOTSUPP else errno.errorcode.get(code, str(code))
    return kind(f"{what}: {error.strerror} ({name}); {advice}")
