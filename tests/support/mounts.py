"""Mount namespaces of a test's own, and in them file systems that are small, full or read-only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.namespaces import namespace
from tests.support.waiting import GUARD

_UNSHARE = ("unshare", "-m" if os.geteuid() == 0 else "-rm")


@dataclass(frozen=True)
class SmallDisk:
    """A tmpfs on a folder, which only those that run within see."""

    pid: int
    """Of the process that holds the namespace."""
    folder: Path

    def command(self, *arguments: str) -> tuple[str, ...]:
        """The command line that runs something within, in the folder that it is run in."""
        user = () if os.geteuid() == 0 else ("-U", "--preserve-credentials")
        here = f"--wd={Path.cwd()}"
        return ("nsenter", "-t", str(self.pid), *user, "-m", here, "--", *arguments)

    def path(self, name: str) -> Path:
        """A file there, as others reach it."""
        return Path(f"/proc/{self.pid}/root{self.folder}", name)

    def fill(self) -> None:
        """Takes all room that is left."""
        with self.path("filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                return

    def make_room(self) -> None:
        """Gives that back."""
        self.path("filler").unlink()

    def remount(self, options: str) -> None:
        """With other options: "ro" or "rw"."""
        self._must("mount", "-o", f"remount,{options}", str(self.folder))

    def _must(self, *arguments: str) -> None:
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=GUARD, check=False
        )
        assert done.returncode == 0, (arguments, done.stderr)


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[SmallDisk]:
    """One with so much room on a folder, which is made, until the end of the context."""
    folder.mkdir()
    with namespace(*_UNSHARE) as held:
        disk = SmallDisk(held.pid, folder)
        options = f"size={kib}k,mode=0700"
        disk._must("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
        yield disk
