"""The device of a back end, by what the command line names."""

from pathlib import Path

from vdpad.backend.faults import NoSuchDevice
from vdpad.host import sysfs
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.queues.software import tap
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.tap_device import TapDevice
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.queues.vhost_vdpa.shadowed_node import ShadowedNode

LOOP = "loop"
TAP = "tap:"
"""What a software device may do with a guest's packets: loop them back, or pass them through a TAP
interface, whose name stands behind this."""


def is_software(kind: str) -> bool:
    """Whether there is such a kind of software device; a TAP interface need not be there yet."""
    return kind == LOOP or (kind.startswith(TAP) and tap.is_name(kind.removeprefix(TAP)))


def open_software(kind: str) -> ShadowedDevice:
    """A software device of its own.

    Args:
        kind: LOOP, or TAP and the interface's name.

    Raises:
        NoSuchDevice: there is no such kind.
        TapError: the interface cannot be used, or a process has it (TapBusy).
    """
    if not is_software(kind):
        raise NoSuchDevice(
            f"{kind}: expected a software device of the kind {LOOP}, or {TAP} and an interface's "
            "name"
        )
    if kind == LOOP:
        return LoopDevice()
    return TapDevice(tap.Tap.attach(kind.removeprefix(TAP)))


def open_vhost_vdpa(named: str) -> ShadowedDevice:
    """A vhost-vdpa device. May sleep for as long as its driver does.

    Args:
        named: by its vdpa name, or the path of its node, which has a slash in it.

    Raises:
        VdpadError: it cannot be opened.
    """
    return open_node(node_of(named))


def open_node(node: Path) -> ShadowedDevice:
    """The same, by its node."""
    return ShadowedNode(Node(node))


def node_of(named: str) -> Path:
    """The node of a device by its vdpa name, or of a path.

    Raises:
        NoSuchDevice: its driver is another.
        VdpaError: there is none of this name.
    """
    if "/" in named:
        return Path(named)
    node = sysfs.node_of(named)
    if node is None:
        driver = sysfs.driver_of(named) or "no driver"
        raise NoSuchDevice(
            f"{named}: expected a device with the driver vhost_vdpa, this one has {driver}; bind "
            "it (docs/devices.md)"
        )
    return node
