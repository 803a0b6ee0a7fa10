"""Which vDPA device is which node under /dev, which driver has it, and which processes do.

`/sys/bus/vdpa/devices/NAME/` has a link `driver`, and where that is vhost_vdpa a folder
`vhost-vdpa-N` with the node's numbers in `dev`. Names come from whoever asks, so a name is checked
before it becomes a path. Devices and processes come and go while they are looked at: what is gone
was not there.

Sources: Linux drivers/vdpa/vdpa.c (the bus), drivers/vhost/vdpa.c (vhost_vdpa_probe, the node).
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vdpad.host.vdpa import NoSuchVdpaDevice, check_name

SYS = Path("/sys")
PROC = Path("/proc")

_DEVICES = "bus/vdpa/devices"
_DRIVER = "vhost_vdpa"
_NODE = "vhost-vdpa-"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a device open."""

    pid: int
    command: str
    """Its name as ps shows it, at most 15 characters; the process itself chose it."""


def named_holders(holders: Iterable[Holder]) -> str:
    """Processes in a message; "another process" where none of them could be seen."""
    return ", ".join(f"{each.command} (pid {each.pid})" for each in holders) or "another process"


def names(root: Path = SYS) -> tuple[str, ...]:
    """The vDPA devices of this host, in order; none where vdpa is not loaded."""
    try:
        return tuple(sorted(os.listdir(root / _DEVICES)))
    except FileNotFoundError:
        return ()


def driver_of(name: str, root: Path = SYS) -> str | None:
    """The driver that a device is bound to, such as "vhost_vdpa"; None where it is to none.

    Raises:
        NoSuchVdpaDevice: there is no device of this name.
    """
    folder = _folder(name, root)
    try:
        return Path(os.readlink(folder / "driver")).name
    except FileNotFoundError:
        return None


def parent_driver_of(name: str, root: Path = SYS) -> str | None:
    """The driver of the device that this one was made on; None for a simulator, which has none.

    Raises:
        NoSuchVdpaDevice: there is no device of this name.
    """
    try:
        return Path(os.readlink(_folder(name, root).resolve().parent / "driver")).name
    except OSError:
        return None


def node_of(name: str, root: Path = SYS) -> Path | None:
    """The node with which a device is opened; None where its driver is not vhost_vdpa.

    Raises:
        NoSuchVdpaDevice: there is no device of this name.
    """
    if driver_of(name, root) != _DRIVER:
        return None
    node = _node_folder(_folder(name, root))
    return None if node is None else Path("/dev", node.name)


def name_of_node(path: Path, root: Path = SYS) -> str | None:
    """The device that this node, or a link to it, opens; None where it opens none."""
    number = _device_number(path)
    if number is None:
        return None
    wanted = f"{os.major(number)}:{os.minor(number)}"
    for name in names(root):
        node = _node_folder(root / _DEVICES / name)
        if node is not None and _text(node / "dev") == wanted:
            return name
    return None


def holders_of(node: Path, proc: Path = PROC) -> tuple[Holder, ...]:
    """The processes that have this node open, as far as this process may look into them.

    They are known by the device's number, whatever they call it. Where the node itself is gone,
    because somebody is removing the device, they are known by its path.

    It looks at every descriptor of the host, and blocks as long as the file system of one of them
    does: call it in a thread.
    """
    number = _device_number(node)
    paths = {str(node), f"{node} (deleted)"}
    found = []
    for pid in _pids(proc):
        if any(_is_node(fd, number, paths) for fd in _descriptors(proc / str(pid))):
            found.append(Holder(pid, _command(proc / str(pid))))
    return tuple(found)


def _folder(name: str, root: Path) -> Path:
    check_name(name)
    folder = root / _DEVICES / name
    if not folder.is_dir():
        raise NoSuchVdpaDevice(name)
    return folder


def _node_folder(folder: Path) -> Path | None:
    try:
        entries = os.listdir(folder)
    except OSError:
        return None
    for entry in entries:
        if entry.startswith(_NODE):
            return folder / entry
    return None


def _device_number(path: Path) -> int | None:
    """A character device's number; None where there is none at this path."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return status.st_rdev if stat.S_ISCHR(status.st_mode) else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _pids(proc: Path) -> list[int]:
    return sorted(int(entry) for entry in os.listdir(proc) if entry.isdecimal())


def _descriptors(process: Path) -> Iterator[Path]:
    try:
        entries = os.listdir(process / "fd")
    except OSError:
        return  # it is gone, or not ours to look into
    for entry in entries:
        yield process / "fd" / entry


def _is_node(fd: Path, number: int | None, paths: set[str]) -> bool:
    try:
        path = os.readlink(fd)
    except OSError:
        return False
    if number is None:
        return path in paths
    # Sockets, pipes and the like, most of all descriptors, have no path: no need to ask them.
    return path.startswith("/") and _device_number(fd) == number


def _command(process: Path) -> str:
    try:
        name = (process / "comm").read_bytes()
    except OSError:
        return "?"
    text = name.removesuffix(b"\n").decode(errors="replace")
    return "".join(each if each.isprintable() else "?" for each in text)
