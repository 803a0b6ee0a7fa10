"""The wheel: installed by pip where nothing else is, its programs run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vdpad

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
    shutil.copytree(ROOT / "vdpad", source / "vdpad")
    run(*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", made, source)
    (built,) = made.iterdir()
    return built


def test_it_is_installed_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path)
    pip = (*PIP, "--python", tmp_path / "bin/python")
    run(*pip, "install", "--quiet", "--no-compile", wheel)
    assert "cryptography" not in run(*pip, "list")
    run(*pip, "check")
    for program in ("vdpad", "vdpactl", "vdpad-vhost-user"):
        said = run(tmp_path / "bin" / program, "--version")
        assert said == f"{program} {vdpad.__version__}\n"
    shown = run(tmp_path / "bin/vdpactl", "decode", ROOT / "docs/examples/state.json")
    assert "52:54:00" in shown
