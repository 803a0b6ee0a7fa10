# How the machine is run
#
# As the one of tests/vm, with the same devices, judge and agent; but its first process is systemd.
# An initramfs of our own (init.sh) lays this host's files, read-only, under Debian's systemd and
# udev, those under what `make install` laid out, and all of it under a file system in memory. What
# a test changes in the machine goes when the machine goes.
"""A virtual machine in which systemd is PID 1 and vdpad is installed."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.qemu.versions import CACHE, PROGRAM
from tests.vm import machine as without
from tests.vm.machine import ROOT, UNTIMED, Machine, kernel, qemu_options, running

from . import initramfs

HERE = Path(__file__).resolve().parent

# What a kernel does against speculation costs a tenth of the speed; emulated processors do none.
FAST = f"{UNTIMED} mitigations=off"


@functools.cache
def systemd() -> Path | None:
    """The folder that .ci/systemd made, the newest of them."""
    ready = sorted(CACHE.glob("systemd-*/ready"), key=lambda each: each.stat().st_mtime)
    return ready[-1].parent if ready else None


@functools.cache
def why_unavailable() -> str | None:
    """What keeps this host from running the machine, or None."""
    if shutil.which("systemd-analyze") is None:
        return "systemd is not installed"
    if systemd() is None:
        reason = CACHE / "no-systemd"
        said = reason.read_text().strip() if reason.exists() else "run `make test`"
        return f"no systemd for the virtual machine: {said}"
    return without.why_unavailable()


@contextmanager
def machine(installed: Path | None = None, *, memory: str = "1G") -> Iterator[Machine]:
    """A machine for the time of the context.

    Args:
        installed: a folder that is laid over its root, as by `make install DESTDIR=`.
        memory: as QEMU's -m.
    """
    found = systemd()
    assert found is not None
    layers = [*([] if installed is None else [installed]), found, Path("/")]
    with running(lambda folder: _command(folder, layers, memory)) as vm:
        yield vm


def _command(folder: Path, layers: list[Path], memory: str) -> list[str]:
    found = kernel()
    assert found is not None
    release = (found / "ready").read_text().strip()
    tags = [f"layer{at}" for at in range(len(layers))]
    files = {
        "layers": "\n".join(tags),
        "kernel": str(found),
        "agent.service": (HERE / "agent.service")
        .read_text()
        .replace("@root@", str(ROOT))
        .replace("@modules@", str(found / "modules"))
        .replace("@python@", sys.executable),
    }
    initrd = folder / "initrd"
    initrd.write_bytes(initramfs.build(found / "lib/modules" / release, files))
    shared = [
        option
        for tag, layer in zip(tags, layers, strict=True)
        for option in (
            "-fsdev",
            f"local,id={tag},path={layer},security_model=none,readonly=on,multidevs=remap",
            "-device",
            f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
        )
    ]
    return [
        *(PROGRAM, "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", memory),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{folder}/console"),
        *("-kernel", str(found / f"boot/vmlinuz-{release}"), "-initrd", str(initrd)),
        *("-append", f"console=ttyS0 panic=-1 intel_iommu=on loglevel=4 audit=off {FAST}"),
        *shared,
        *qemu_options(folder).split(),
    ]
