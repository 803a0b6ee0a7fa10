# How it is laid out
#
#   /init           init.sh
#   /bin            busybox, as which init.sh installs its own links; ip, bridge, ethtool
#   /lib, /lib64 …  the shared libraries of those, where this host has them
#   /modules        kernel modules, unpacked, named in the order in which they are to be loaded
#
# The kernel makes /dev/console itself, and unpacks cpio's "newc": for each file a header of
# hexadecimal fields, its name, its contents, the last two padded to 4 bytes.
# Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
"""The guest's whole file system, as an archive for QEMU's -initrd."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

BUSYBOX = "busybox"
PROGRAMS = ("ip", "bridge", "ethtool")
MODULES = ("virtio_net", "8021q", "macvlan")
INIT = Path(__file__).with_name("init.sh")

_MAGIC = b"070701"
_END = "TRAILER!!!"


def program(name: str) -> Path | None:
    """Where this host has a program, also one for its administrator."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def initramfs(kernel: Path) -> bytes:
    """The archive, not compressed, for the kernel that .ci/kernel left in this folder."""
    files = {"init": INIT.read_bytes(), **dict(_programs()), **dict(_modules(kernel))}
    return _cpio(files)


def _programs() -> Iterator[tuple[str, bytes]]:
    libraries: set[Path] = set()
    for name in (BUSYBOX, *PROGRAMS):
        found = program(name)
        assert found is not None, f"{name} is not installed"
        yield f"bin/{name}", found.read_bytes()
        libraries.update(_libraries(found))
    for library in libraries:
        yield str(library).lstrip("/"), library.read_bytes()


def _libraries(found: Path) -> Iterator[Path]:
    """The loader and the libraries that ldd names; none for a static program."""
    listed = subprocess.run(["ldd", found], capture_output=True, text=True, check=False)
    return map(Path, re.findall(r"(/\S+) \(0x", listed.stdout))


def _modules(kernel: Path) -> Iterator[tuple[str, bytes]]:
    folder = kernel / "lib/modules" / (kernel / "ready").read_text().strip()
    for number, module in enumerate(_load_order((folder / "modules.dep").read_text())):
        yield f"modules/{number:02}-{module.name.split('.')[0]}.ko", _unpacked(folder / module)


def _load_order(dependencies: str) -> Iterable[PurePosixPath]:
    """Each module behind those that it needs; a line of modules.dep has the most basic last."""
    order: dict[PurePosixPath, None] = {}
    for name in MODULES:
        (needed,) = re.findall(rf"^(\S*/{name}\.ko\S*):(.*)$", dependencies, re.M)
        order.update(dict.fromkeys(map(PurePosixPath, reversed(" ".join(needed).split()))))
    return order


def _unpacked(module: Path) -> bytes:
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data


def _cpio(files: dict[str, bytes]) -> bytes:
    folders = {str(up) for name in files for up in PurePosixPath(name).parents} - {"."}
    entries = [(name, stat.S_IFDIR, b"") for name in sorted(folders)]
    entries += [(name, stat.S_IFREG, data) for name, data in files.items()]
    entries += [(_END, 0, b"")]
    return b"".join(_entry(inode, *each) for inode, each in enumerate(entries, start=1))


def _entry(inode: int, name: str, kind: int, data: bytes) -> bytes:
    path = name.encode() + b"\0"
    # Inode, mode, uid, gid, links, mtime, size, four of devices, name's length, no checksum.
    fields = (inode, kind | 0o755, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    header = _MAGIC + b"".join(b"%08x" % field for field in fields)
    return _padded(header + path) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
