"""Fixtures: whether QEMU can run here, a daemon in a process of its own, a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.availability import skip_or_fail
from tests.support import daemon as daemons
from tests.support.daemon import VDPAD, Daemon
from vdpad.client import Client
from vdpad.virtio.features import Feature

from .guestless import why_unavailable
from .versions import Version, each_once
from .versions import why_unavailable as why_version_unavailable

# As for QEMU: it goes with the test process, however that ends.
_MORTAL = ("setpriv", "--pdeathsig", "KILL", *VDPAD)


@pytest.fixture(scope="session", autouse=True)
def _qemu_can_run() -> None:
    skip_or_fail(why_unavailable())


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all tests: whatever a lender does to it, the next one is served."""
    with daemons.daemon(tmp_path_factory.mktemp("vdpad"), _MORTAL) as running:
        yield running
        assert running.stop() == 0, running.log()
        assert "Traceback" not in running.log(), running.log()


@pytest.fixture
async def vdpad(daemon: Daemon) -> AsyncIterator[Client]:
    """A client of the daemon."""
    async with Client(daemon.socket) as client:
        yield client


@pytest.fixture(params=[(), (Feature.RING_EVENT_IDX,)], ids=["event-idx", "no-event-idx"])
def without(request: pytest.FixtureRequest) -> frozenset[int]:
    """Options.without, for tests that run with RING_EVENT_IDX and without it."""
    return frozenset(request.param)


@pytest.fixture(params=each_once(), ids=str)
def program(request: pytest.FixtureRequest) -> str:
    """Options.qemu, for tests that run with every QEMU that can be had."""
    version: Version = request.param
    skip_or_fail(why_version_unavailable(version))
    return version.program
