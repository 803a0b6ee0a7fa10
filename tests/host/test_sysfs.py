"""sysfs and /proc: trees made here, this machine's own, and names that want out."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vdpad.host import sysfs
from vdpad.host.sysfs import Holder
from vdpad.host.vdpa import NoSuchVdpaDevice

NULL = os.stat("/dev/null").st_rdev
ODD_NAMES = ["", ".", "..", "../drivers", "sim0/..", "/", "/etc", "a\0b", "x" * 256, "\ud800"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with a device for vhost, one for virtio, one for nobody; the first is /dev/null."""
    for name, driver in (("sim0", "vhost_vdpa"), ("sim1", "virtio_vdpa"), ("sim2", None)):
        folder = tmp_path / "devices" / name
        folder.mkdir(parents=True)
        if driver is not None:
            (tmp_path / "bus/vdpa/drivers" / driver).mkdir(parents=True)
            (folder / "driver").symlink_to(f"../../bus/vdpa/drivers/{driver}")
        (tmp_path / "bus/vdpa/devices").mkdir(exist_ok=True, parents=True)
        (tmp_path / "bus/vdpa/devices" / name).symlink_to(f"../../../devices/{name}")
    node = tmp_path / "devices/sim0/vhost-vdpa-7"
    node.mkdir()
    (node / "dev").write_text(f"{os.major(NULL)}:{os.minor(NULL)}\n")
    return tmp_path


# --- names, drivers, nodes ---


def test_names(root: Path) -> None:
    assert sysfs.names(root) == ("sim0", "sim1", "sim2")


def test_no_names_where_vdpa_is_not_loaded(tmp_path: Path) -> None:
    assert sysfs.names(tmp_path) == ()


def test_drivers(root: Path) -> None:
    drivers = [sysfs.driver_of(name, root) for name in sysfs.names(root)]
    assert drivers == ["vhost_vdpa", "virtio_vdpa", None]


def test_the_driver_of_what_a_device_was_made_on(root: Path) -> None:
    parent = root / "devices/pci0000:00/0000:00:03.0"
    (parent / "vp0").mkdir(parents=True)
    (parent / "driver").symlink_to("../../../bus/pci/drivers/vp-vdpa")
    (root / "bus/vdpa/devices/vp0").symlink_to(parent / "vp0")
    assert sysfs.parent_driver_of("vp0", root) == "vp-vdpa"
    assert sysfs.parent_driver_of("sim0", root) is None


def test_nodes(root: Path) -> None:
    nodes = [sysfs.node_of(name, root) for name in sysfs.names(root)]
    assert nodes == [Path("/dev/vhost-vdpa-7"), None, None]


def test_no_node_while_the_driver_makes_it(root: Path) -> None:
    (root / "devices/sim0/vhost-vdpa-7/dev").unlink()
    (root / "devices/sim0/vhost-vdpa-7").rmdir()
    assert sysfs.node_of("sim0", root) is None
    assert sysfs.name_of_node(Path("/dev/null"), root) is None


@pytest.mark.parametrize("name", ["sim9", *ODD_NAMES])
def test_no_such_device(name: str, root: Path) -> None:
    for look in (sysfs.driver_of, sysfs.node_of, sysfs.parent_driver_of):
        with pytest.raises(NoSuchVdpaDevice, match="expected the name of a vDPA device"):
            look(name, root)


def test_the_name_of_a_node(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    assert sysfs.name_of_node(Path("/dev/null"), root) == "sim0"
    assert sysfs.name_of_node(link, root) == "sim0"


def test_a_node_without_a_name(root: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    others = [
        "/dev/zero",
        "/nonexistent",
        "/",
        "/etc/passwd",
        "/dev/nu\0ll",
        str(tmp_path / "loop"),
    ]
    assert [sysfs.name_of_node(Path(each), root) for each in others] == [None] * len(others)


def test_a_device_that_went_since_it_was_listed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysfs, "names", lambda _root: ("gone", "sim0"))
    assert sysfs.name_of_node(Path("/dev/null"), root) == "sim0"


def test_this_machine_s_own_devices() -> None:
    """Most have none; where there are some, each node leads back to its device."""
    for name in sysfs.names():
        node = sysfs.node_of(name)
        assert (node is None) == (sysfs.driver_of(name) != "vhost_vdpa")
        assert node is None or not node.exists() or sysfs.name_of_node(node) == name


# --- who has it open ---


@pytest.fixture
def terminal() -> Iterator[Path]:
    """A character device that nobody else has open."""
    ours, theirs = os.openpty()
    path = Path(os.ttyname(theirs))
    os.close(theirs)
    yield path
    os.close(ours)


@pytest.fixture
def holder(terminal: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the terminal open."""
    code = "import sys; print(flush=True); sys.stdin.read()"
    with open(terminal, "rb", buffering=0) as held:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[held.fileno()],
        )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def _comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")


def test_the_process_that_has_it_open(terminal: Path, holder: subprocess.Popen[bytes]) -> None:
    assert sysfs.holders_of(terminal) == (Holder(holder.pid, _comm(holder.pid)),)


def test_it_is_known_by_any_path(
    terminal: Path, holder: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    other = tmp_path / "console"
    other.symlink_to(terminal)
    assert [each.pid for each in sysfs.holders_of(other)] == [holder.pid]


def test_nobody_has_it_open_any_more(terminal: Path, holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    holder.wait()
    assert sysfs.holders_of(terminal) == ()


def test_we_have_it_open_ourselves_twice(terminal: Path) -> None:
    with open(terminal, "rb", buffering=0), open(terminal, "rb", buffering=0):
        assert [each.pid for each in sysfs.holders_of(terminal)] == [os.getpid()]


def test_one_that_is_gone_is_known_by_its_path(tmp_path: Path) -> None:
    """So it is while somebody removes a device that is open."""
    node = tmp_path / "vhost-vdpa-0"
    with open(node, "wb"):
        node.unlink()
        assert [each.pid for each in sysfs.holders_of(node)] == [os.getpid()]
    assert sysfs.holders_of(node) == ()


def test_all_processes_can_be_looked_at() -> None:
    holders = sysfs.holders_of(Path("/dev/null"))
    assert all(each.command for each in holders)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with one process; it has /dev/null open."""
    (tmp_path / "10/fd").mkdir(parents=True)
    (tmp_path / "10/fd/0").symlink_to("/dev/null")
    (tmp_path / "10/comm").write_bytes(b"qemu\n")
    for other in ("self", "sys", "uptime"):
        (tmp_path / other).mkdir()
    return tmp_path


def test_processes_are_told_in_order(proc: Path) -> None:
    for pid in ("9", "100"):
        (proc / pid / "fd").mkdir(parents=True)
        (proc / pid / "fd/3").symlink_to("/dev/null")
        (proc / pid / "comm").write_bytes(pid.encode() + b"\n")
    holders = sysfs.holders_of(Path("/dev/null"), proc)
    assert holders == (Holder(9, "9"), Holder(10, "qemu"), Holder(100, "100"))


def test_a_process_that_goes_while_it_is_looked_at(proc: Path) -> None:
    (proc / "11").mkdir()
    (proc / "12/fd").mkdir(parents=True)
    (proc / "12/fd/0").symlink_to("/nonexistent")
    (proc / "10/comm").unlink()
    assert sysfs.holders_of(Path("/dev/null"), proc) == (Holder(10, "?"),)


def test_a_descriptor_that_is_closed_while_it_is_looked_at(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = sysfs._descriptors(proc / "10")
    monkeypatch.setattr(sysfs, "_descriptors", lambda _process: [*listed, proc / "10/fd/9"])
    assert sysfs.holders_of(Path("/dev/null"), proc) == (Holder(10, "qemu"),)


def test_a_process_that_is_not_ours_to_look_into(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> list[str]:
        if path.name == "fd":
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", refuse)
    assert sysfs.holders_of(Path("/dev/null"), proc) == ()


@pytest.mark.parametrize(
    ("comm", "shown"),
    [
        (b"vdpa sim: x\n", "vdpa sim: x"),
        (b"two\nlines\n", "two?lines"),
        (b"\x1b[31mred\n", "?[31mred"),
        (b"\xff\xfe\n", "\N{REPLACEMENT CHARACTER}" * 2),
    ],
)
def test_a_process_chooses_its_name_but_not_our_lines(comm: bytes, shown: str, proc: Path) -> None:
    (proc / "10/comm").write_bytes(comm)
    assert sysfs.holders_of(Path("/dev/null"), proc) == (Holder(10, shown),)
