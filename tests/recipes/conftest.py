"""A daemon with a device that takes everything and one that refuses VLANs, and what lies there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, daemon

from .moves import DEVICES, Moves


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is shared with containers."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def running(run_folder: Path) -> Iterator[Daemon]:
    with daemon(run_folder, varlink=run_folder / "io.vdpad", software=DEVICES) as each:
        yield each
        assert "Traceback" not in each.log()


@pytest.fixture
def moves(running: Daemon, run_folder: Path, tmp_path: Path) -> Moves:
    """What an orchestrator lays down."""
    return Moves(tmp_path / "moves", run_folder / "io.vdpad")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A migration's, of this test alone."""
    test: str = request.node.name
    return test.replace("[", "/").rstrip("]")
