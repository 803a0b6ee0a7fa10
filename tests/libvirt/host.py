"""A host of the tests' own: namespaces, a root folder that has libvirtd, and vdpad beside it.

Nothing is installed. The host shares this machine's network, so that two of them reach each other
on ports of 127.0.0.1, and all else is its own. It ends with everything in it when its first process
does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from tests.availability import skip_or_fail
from tests.clients.programs import CACHE
from tests.support.daemon import ROOT
from tests.support.waiting import GUARD, wait_until

LIBVIRT = CACHE / "libvirt"
_SCRIPT = Path(__file__).with_name("host.sh")
_SYSTEM = "qemu:///system"


def why_unavailable() -> str | None:
    """Why there can be no host here, if so."""
    if os.geteuid() != 0:
        return "a host of the tests' own needs root"
    if shutil.which("qemu-system-x86_64") is None:
        return "qemu-system-x86_64 is not installed"
    if not (LIBVIRT / "ready").exists():
        reason = CACHE / "no-libvirt"
        said = reason.read_text().strip() if reason.exists() else "run `make test`"
        return f"no libvirt: {said}"
    return None


class Host:
    """One that runs."""

    def __init__(self, folder: Path, port: int, pid: int) -> None:
        """
        Args:
            folder: of which its hooks, what lies there for them and its logs are.
            port: where its libvirtd listens.
            pid: of its first process.
        """
        self.hooks = folder / "hooks" / "qemu.d"
        self.moves = folder / "moves"
        self.uri = f"qemu+tcp://127.0.0.1:{port}/system"
        self._folder = folder
        self._pid = pid

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command on it."""
        root = f"--root=/proc/{self._pid}/root{self._folder}/memory/root"
        enter = ("nsenter", f"--target={self._pid}", "-m", "-u", "-i", "-p", root, "--wd=/")
        return subprocess.run(
            [*enter, *command], capture_output=True, text=True, timeout=GUARD, check=False
        )

    def output(self, *command: str) -> str:
        """What it says; it must succeed."""
        done = self.run(*command)
        assert done.returncode == 0, done.stderr + self.log()
        return done.stdout

    def virsh(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.run("virsh", "--quiet", "--connect", _SYSTEM, *command)

    def guests(self) -> list[str]:
        """Those that it has."""
        return self.virsh("list", "--name").stdout.split()

    def calls(self) -> list[tuple[str, ...]]:
        """Of its hooks since they were cleared: guest, operation, sub-operation, extra."""
        path = self.moves / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [tuple(each.split(maxsplit=3)) for each in lines]

    def clear(self) -> None:
        """Takes away what is there for its hooks, and all but the first of these."""
        for each in self.moves.iterdir():
            if each.is_dir():
                shutil.rmtree(each)
            elif each.name == "calls":
                each.unlink()
        for each in self.hooks.glob("[!1]*"):
            each.unlink()

    def log(self) -> str:
        """Of everything that runs on it."""
        return "".join(each.read_text() for each in self._folder.glob("*.log"))

    def is_ready(self) -> bool:
        return self.virsh("list").returncode == 0


def add_hook(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@contextmanager
def host(folder: Path, name: str, port: int) -> Iterator[Host]:
    """One of this name, whose libvirtd listens."""
    skip_or_fail(why_unavailable())
    for each in ("memory", "moves", "hooks/qemu.d"):
        (folder / each).mkdir(parents=True)
    # libvirtd looks for others once it has found one at its start.
    add_hook(folder / "hooks" / "qemu.d" / "10-calls", 'echo "$@" >> /var/lib/vdpad-moves/calls')
    own = ("unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--kill-child")
    arguments = (name, str(port), str(uuid4()), str(folder), str(LIBVIRT), str(ROOT))
    with (folder / "host.log").open("wb") as log:
        process = subprocess.Popen([*own, "bash", _SCRIPT, *arguments], stdout=log, stderr=log)
    try:
        wait_until(lambda: (folder / "begun").exists(), said=(folder / "host.log").read_text)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        made = Host(folder, port, int(children.split()[0]))
        wait_until(made.is_ready, every=0.2, said=made.log)
        yield made
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
