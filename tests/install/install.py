"""make install, as the tests run it."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make install DESTDIR=` lays out."""
    folder = tmp_path_factory.mktemp("installed")
    install(DESTDIR=str(folder))
    return folder


def install(**variables: str) -> None:
    """Runs it; the .venv that the tests run in is taken as it is."""
    arguments = [f"{name}={value}" for name, value in variables.items()]
    with (ROOT / "Makefile").open() as makefile:
        # Another test process may install too, and man pages are made in one place.
        fcntl.flock(makefile, fcntl.LOCK_EX)
        done = subprocess.run(
            ["make", "-s", "-o", ".venv/ready", "install", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
