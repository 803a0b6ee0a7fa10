"""Debian packages of what `make install` laid out."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.availability import skip_or_fail

from .install import ROOT

DPKG = ("dpkg", "--path-include=/usr/*")  # containers tend to leave documentation out
UNTRIGGERED = (*DPKG, "--no-triggers")  # which index all manual pages, each time
NAMES = ("vdpad", "vdpad-remote", "vdpad-vhost-user")


@pytest.fixture(scope="session")
def packages(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a NAME.deb of each."""
    skip_or_fail(None if shutil.which("dh") else "debhelper is not installed")
    folder = tmp_path_factory.mktemp("packages")
    environment = {
        **os.environ,
        # Compressed they would take a minute.
        "DPKG_DEB_COMPRESSOR_TYPE": "none",
        # As of who says which Python is to build vdpad.
        "MAKEFLAGS": "-- PYTHON=/usr/bin/python3",
    }
    done = subprocess.run(
        ("sh", ROOT / "debian/build.sh", installed, folder),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        (built,) = folder.glob(f"{name}_*.deb")
        built.rename(folder / f"{name}.deb")
    return folder


def newer(package: Path, folder: Path) -> Path:
    """The same package in a later version."""
    tree, made = folder / package.stem, folder / f"{package.stem}-later.deb"
    subprocess.run(("dpkg-deb", "-R", package, tree), check=True)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("+deb", "+later+deb"))
    subprocess.run(
        ("dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, made),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(tree)
    return made
