"""A daemon in a folder that can be shared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, daemon


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Daemon]:
    with daemon(folder, varlink=folder / "io.vdpad") as each:
        yield each
        assert "Traceback" not in each.log()


@pytest.fixture
def path(running: Daemon, folder: Path) -> Path:
    """Its stream socket."""
    return folder / "io.vdpad"
