"""Fixtures: the machine, booted once, and a daemon in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.availability import skip_or_fail

from .host import Caller, Started, start
from .machine import Machine, machine, why_unavailable


@pytest.fixture(scope="session")
def vm() -> Iterator[Machine]:
    """One machine for all tests."""
    skip_or_fail(why_unavailable())
    with machine() as running:
        yield running


@pytest.fixture(scope="module")
def running_daemon(vm: Machine) -> Iterator[Started]:
    """One daemon for the tests of a file."""
    daemon = start(vm)
    yield daemon
    daemon.terminate()
    faults = [each for each in daemon.events() if "exception" in each]
    assert faults == []


@pytest.fixture
def daemon(running_daemon: Started) -> Iterator[Caller]:
    """The same, keeping no device once the test is over."""
    yield running_daemon
    for device in ("vp0", "sim0"):
        running_daemon.reply("release", device=device)
