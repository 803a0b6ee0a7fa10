"""A daemon in this process with one software device, and someone to ask it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.daemon.support import Caller, serving


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    """The socket of a daemon whose device, sim0, writes its state to `sim0.json`."""
    device = {"name": "sim0", "state_file": tmp_path / "sim0.json"}
    async with serving(tmp_path, software=[device]) as socket:
        yield socket


@pytest.fixture
async def caller(path: Path) -> AsyncIterator[Caller]:
    """Asks that daemon."""
    with Caller(path) as each:
        yield each
