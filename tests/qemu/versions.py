"""The QEMUs that tests can run: this machine's own, and those of Debian's suites (.ci/qemu)."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vdpad"
"""Where .ci/kernel and .ci/qemu put what they fetch, and why they can't."""
PROGRAM = "qemu-system-x86_64"


@dataclass(frozen=True)
class Version:
    """One QEMU."""

    name: str
    """Debian's suite that it comes from, or "system" for the one on PATH."""
    program: str
    """For Options.qemu."""

    def __str__(self) -> str:
        return self.name


def of_suite(suite: str) -> Version:
    """Return the QEMU of a suite, whether it is in the cache or not."""
    return Version(suite, str(CACHE / f"qemu-{suite}" / "bin" / PROGRAM))


SYSTEM = Version("system", PROGRAM)
BOOKWORM = of_suite("bookworm")
"""7.2."""
TRIXIE = of_suite("trixie")
"""10.0."""
TRIXIE_BACKPORTS = of_suite("trixie-backports")
"""11.1, the first with features from 64 on."""
SUITES = (BOOKWORM, TRIXIE, TRIXIE_BACKPORTS)


def each_once() -> tuple[Version, ...]:
    """Return all that tests can run; without the system's where a suite has the same release.

    On Debian 12 it is bookworm's. All that no parameter chooses runs on the system's anyway.
    """
    releases = [release(version.program) for version in SUITES if why_unavailable(version) is None]
    return SUITES if release(SYSTEM.program) in releases else (SYSTEM, *SUITES)


@functools.cache
def release(program: str) -> tuple[int, int] | None:
    """Return a QEMU's version, such as (7, 2) of 7.2.22; None where there is none."""
    if shutil.which(program) is None:
        return None
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\d+)\.(\d+)", told.stdout)
    return found and (int(found[1]), int(found[2]))


def why_unavailable(version: Version) -> str | None:
    """Say why a suite's QEMU can't be had, or None. The system's is process.py's to look for."""
    if version == SYSTEM or (CACHE / f"qemu-{version.name}" / "ready").exists():
        return None
    reason = CACHE / f"no-qemu-{version.name}"
    said = reason.read_text().strip() if reason.exists() else "run `make test`"
    return f"no QEMU of {version.name}: {said}"
