"""The wheel: installed by pip where nothing else is, its programs run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vdpad
from tests.support.marks import in_bulk

from .install import ROOT

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def run(*argv: str | Path) -> str:
    """A program's output, with nothing of the tests' environment on Python's path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        argv, cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as setuptools leaves files beside its source."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "vdpad", source / "vdpad", ignore=compiled)
    run(*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", made, source)
    (built,) = made.iterdir()
    return built


@pytest.fixture(scope="module")
def tested() -> Path:
    """Wheels of all packages as the lock has them, which stay in build/ for that lock."""
    lock = ROOT / "requirements-run.lock"
    folder = ROOT / "build/wheels" / f"{sys.implementation.cache_tag}-{_digest(lock)}"
    if not folder.exists():
        shutil.rmtree(folder.parent, ignore_errors=True)
        part = folder.with_name(f"{folder.name}.part")
        pinned = ("--no-deps", "--require-hashes", "-r", lock)
        run(*PIP, "wheel", "--quiet", "--wheel-dir", part, *pinned)
        part.rename(folder)
    return folder


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


# To look for the newest of each, pip goes through all that there ever was of it.
@pytest.mark.parametrize("others", ["tested", *in_bulk(["newest"])])
def test_it_is_installed_in_an_environment_of_its_own(
    wheel: Path, tmp_path: Path, others: str, request: pytest.FixtureRequest
) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path)
    pip = (*PIP, "--python", tmp_path / "bin/python")
    whence: tuple[str | Path, ...] = ()
    if others == "tested":
        whence = ("--no-index", "--find-links", request.getfixturevalue("tested"))
    # What it warns of, `check` would find.
    run(*pip, "install", "--quiet", "--no-compile", "--no-warn-conflicts", *whence, wheel)
    assert [*tmp_path.glob("lib/python*/site-packages/pydantic")]
    assert [*tmp_path.glob("lib/python*/site-packages/cryptography*")] == []
    run(*pip, "check")
    for program in ("vdpad", "vdpactl", "vdpad-vhost-user"):
        said = run(tmp_path / "bin" / program, "--version")
        assert said == f"{program} {vdpad.__version__}\n"
    shown = run(tmp_path / "bin/vdpactl", "decode", ROOT / "docs/examples/state.json")
    assert "52:54:00" in shown
