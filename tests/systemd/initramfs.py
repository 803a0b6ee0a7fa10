"""The initramfs of the machine: busybox, the modules that mount its root, and init.sh.

Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst, the "newc" archive.
"""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

# What init.sh needs before there is a root with the kernel's modules in it.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")

_FOLDER = 0o040755
_PROGRAM = 0o100755
_FILE = 0o100644


def build(modules: Path, files: dict[str, str]) -> bytes:
    """An initramfs whose /init is init.sh.

    Args:
        modules: the kernel's folder of modules, with modules.dep.
        files: what else lies in it, by name, such as "layers".
    """
    busybox = shutil.which("busybox", path="/bin:/usr/bin:/usr/local/bin")
    assert busybox is not None
    archive = [_entry(name, _FOLDER) for name in ("bin", "modules")]
    archive.append(_entry("bin/busybox", _PROGRAM, Path(busybox).read_bytes()))
    archive.append(_entry("init", _PROGRAM, (Path(__file__).parent / "init.sh").read_bytes()))
    for at, each in enumerate(_in_order(modules)):
        archive.append(_entry(f"modules/{at:02}.ko", _FILE, _unpacked(modules / each)))
    archive += [_entry(name, _FILE, text.encode()) for name, text in files.items()]
    return b"".join((*archive, _entry("TRAILER!!!", 0)))


def _in_order(modules: Path) -> list[str]:
    """The paths of MODULES and of what they depend on, each before what needs it."""
    lines = (line.split(":") for line in (modules / "modules.dep").read_text().splitlines())
    needs = {path: after.split() for path, after in lines}
    by_name = {Path(path).name.split(".")[0]: path for path in needs}
    order: list[str] = []
    for name in MODULES:
        if name in by_name:  # else the kernel has it built in
            path = by_name[name]
            # modules.dep lists them from the nearest to the furthest.
            order += [each for each in (*reversed(needs[path]), path) if each not in order]
    return order


def _unpacked(module: Path) -> bytes:
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data


def _entry(name: str, mode: int, data: bytes = b"") -> bytes:
    path = name.encode() + b"\0"
    # ino, mode, uid, gid, nlink, mtime, size, device, its own device, length of the name, no sum
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + b"".join(b"%08x" % each for each in fields)
    return _padded(header + path) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
