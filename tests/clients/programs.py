"""Where the programs are that were not made here, and how one runs as in a container."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.availability import skip_or_fail
from tests.support.waiting import GUARD

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vdpad"
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"

# Where the shared folder is in the container, whose own `folder` has nothing: $1 and $2.
_IN_A_CONTAINER = 'mount --bind "$1" "$2" && mount -t tmpfs none "$1" && shift 2 && exec "$@"'
SHARED = Path("/mnt")


def fetched(name: str) -> Path:
    """A program that .ci/NAME puts into the cache; skips where it could not be had."""
    program = CACHE / name / "bin" / name
    if not program.exists():
        reason = CACHE / f"no-{name}"
        said = reason.read_text().strip() if reason.exists() else "run `make test`"
        skip_or_fail(f"no {name}: {said}")
    return program


def installed(name: str) -> Path:
    """A program of this machine; skips where there is none."""
    program = shutil.which(name)
    skip_or_fail(None if program else f"{name} is not installed")
    return Path(str(program))


def run(
    *argv: str | Path,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """What a program says and how it ends; it has these descriptors beside."""
    return subprocess.run(
        argv,
        env={**os.environ, **(env or {})},
        input=stdin,
        pass_fds=fds,
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
    )


def run_in_a_container(folder: Path, *argv: str | Path) -> subprocess.CompletedProcess[str]:
    """The same in a network and a mount namespace of its own, with a umask that is its own too.

    Of this host's `folder` it sees what is in it at SHARED only.
    """
    namespaces: Sequence[str] = ["unshare", "--net", "--mount", "--propagation=private"]
    if os.geteuid() != 0:
        namespaces = [*namespaces, "--map-root-user"]
    script = f"umask 077; {_IN_A_CONTAINER}"
    return run(*namespaces, "sh", "-ec", script, "sh", folder, SHARED, *argv)
