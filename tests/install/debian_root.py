"""This host's files, with room for a package's beside them that goes when the context does.

An overlay whose upper layer is in memory, in a mount namespace of its own, with a /run that has
nothing of the host's: what a package's scripts do there, this host does not see. systemd does not
run in it.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import GUARD

_MOUNTED = """
set -e
mount -t tmpfs none "$1"
cd "$1"
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work none root
mount -t proc none root/proc
mount --rbind /dev root/dev
mount -t tmpfs -o mode=755 none root/run
mount --rbind "$2" root/mnt
echo ready
exec cat
"""


def why_unavailable() -> str | None:
    """What keeps this host from it, or None."""
    if os.geteuid() != 0:
        return "expected root, who may mount"
    missing = [each for each in ("dpkg", "unshare", "nsenter", "dh") if shutil.which(each) is None]
    return f"{', '.join(missing)}: not installed" if missing else None


@dataclass(frozen=True)
class DebianRoot:
    """Where packages can be installed."""

    pid: int
    """Of a process in its mount namespace."""
    folder: str

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Runs a program in it, as root."""
        return subprocess.run(
            ("nsenter", "-t", str(self.pid), "-m", "chroot", f"{self.folder}/root", *argv),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            timeout=GUARD,
            check=False,
        )

    def output(self, *argv: str) -> str:
        """What it prints; it must succeed."""
        done = self.run(*argv)
        assert done.returncode == 0, done
        return done.stdout

    def changed(self) -> set[str]:
        """The files that are there, or gone, since the beginning; and what is in /run."""
        root = Path(f"/proc/{self.pid}/root")
        upper = root / self.folder[1:] / "upper"
        run = root / self.folder[1:] / "root/run"
        files = {
            f"{base}{each.relative_to(folder)}"
            for base, folder in (("/", upper), ("/run/", run))
            for each in folder.rglob("*")
            if not stat.S_ISDIR(each.lstat().st_mode)
        }
        return files | {f"/run/{each.name}" for each in run.iterdir()}


@contextmanager
def debian_root(folder: Path, shown: Path) -> Iterator[DebianRoot]:
    """One for the time of the context.

    Args:
        folder: an empty one.
        shown: what lies in it at /mnt.
    """
    argv = ("unshare", "-m", "sh", "-c", _MOUNTED, "sh", str(folder), str(shown))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"ready\n"
            yield DebianRoot(holder.pid, str(folder))
        finally:
            holder.stdin.close()
