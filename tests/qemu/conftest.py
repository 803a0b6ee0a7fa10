"""Fixtures: whether QEMU can run here, a daemon in a process of its own, a client of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from vdpad.client import Client
from vdpad.virtio.features import Feature

from .guestless import why_unavailable
from .versions import VERSIONS, Version
from .versions import why_unavailable as why_version_unavailable

START_SECONDS = 20.0
END_SECONDS = 10.0


@dataclass(frozen=True)
class Daemon:
    """A running vdpad."""

    pid: int
    socket: Path
    log: Path
    """Its standard error, one JSON object a line."""


@pytest.fixture(scope="session", autouse=True)
def _qemu_can_run() -> None:
    skip_or_fail(why_unavailable())


@pytest.fixture(scope="session")
def daemon(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Daemon]:
    """One daemon for all tests: whatever a lender does to it, the next one is served."""
    directory = tmp_path_factory.mktemp("vdpad")
    socket, log = directory / "vdpad.sock", directory / "log"
    with running(socket, log, pytestconfig.rootpath) as pid:
        yield Daemon(pid, socket, log)
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture
async def vdpad(daemon: Daemon) -> AsyncIterator[Client]:
    """A client of the daemon."""
    async with Client(daemon.socket) as client:
        yield client


@pytest.fixture(params=[(), (Feature.RING_EVENT_IDX,)], ids=["event-idx", "no-event-idx"])
def without(request: pytest.FixtureRequest) -> frozenset[int]:
    """Options.without, for tests that run with RING_EVENT_IDX and without it."""
    return frozenset(request.param)


@pytest.fixture(params=VERSIONS, ids=[version.name for version in VERSIONS])
def program(request: pytest.FixtureRequest) -> str:
    """Options.qemu, for tests that run with every QEMU that can be had."""
    version: Version = request.param
    skip_or_fail(why_version_unavailable(version))
    return version.program


@contextmanager
def running(socket: Path, log: Path, root: Path) -> Iterator[int]:
    """Run a daemon for the time of the context; yield its pid. It must end well when asked to."""
    daemon = [sys.executable, "-m", "vdpad.cli.vdpad", "--socket", str(socket)]
    # As for QEMU: it goes with the test process, however that ends.
    command = ["setpriv", "--pdeathsig", "KILL", *daemon]
    with log.open("wb") as output, subprocess.Popen(command, cwd=root, stderr=output) as child:
        try:
            _wait_for(socket, child, log)
            yield child.pid
            child.terminate()
            assert child.wait(END_SECONDS) == 0, log.read_text()
        finally:
            child.kill()


def _wait_for(socket: Path, child: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while "listening" not in log.read_text():
        if child.poll() is not None or time.monotonic() > until:
            pytest.fail(f"the daemon doesn't listen on {socket}: {log.read_text()}")
        time.sleep(0.01)
