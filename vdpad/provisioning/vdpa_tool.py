"""The command line of iproute2's `vdpa` that makes a device: vdpa-dev(8)."""

import shlex

from vdpad.host.vdpa import WantedDevice
from vdpad.virtio.bits import mask_of
from vdpad.virtio.mac import format_mac


def dev_add(name: str, mgmtdev: str, wanted: WantedDevice) -> str:
    """A line for a shell; `device_features` is known to iproute2 since 6.2."""
    words = ["vdpa", "dev", "add", "name", name, "mgmtdev", mgmtdev]
    words += ["device_features", f"{mask_of(wanted.features):#x}"]
    if wanted.mac is not None:
        words += ["mac", format_mac(wanted.mac)]
    if wanted.max_virtqueue_pairs is not None:
        words += ["max_vqp", str(wanted.max_virtqueue_pairs)]
    if wanted.mtu is not None:
        words += ["mtu", str(wanted.mtu)]
    return shlex.join(words)
