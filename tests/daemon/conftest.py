"""What tests of the daemon have in common: one in this process, someone to ask it, its records."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.daemon.support import Caller, serving
from tests.daemon.udp_support import serving_udp
from vdpad.daemon.records.directory import Records
from vdpad.service.endpoints.udp import UdpEndpoint


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


@pytest.fixture
async def udp(tmp_path: Path) -> AsyncIterator[UdpEndpoint]:
    """Where a daemon in this process is asked by UDP."""
    async with serving_udp(tmp_path) as endpoint:
        yield endpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where records are kept."""
    return tmp_path / "operations"


@pytest.fixture
def records(folder: Path) -> Iterator[Records]:
    """To be closed before the next daemon may read."""
    made = Records(folder)
    yield made
    made.close()
