"""Fixtures: the guest, booted once, and as booted for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.availability import skip_or_fail
from tests.qemu.versions import Version
from tests.qemu.versions import why_unavailable as why_no_version

from .machine import Guest, booted, why_unavailable


@pytest.fixture(scope="package")
def running() -> Iterator[Guest]:
    """One guest for all tests, for those that leave its interfaces as they are."""
    skip_or_fail(why_unavailable())
    with booted() as guest:
        yield guest


@pytest.fixture
def guest(running: Guest) -> Iterator[Guest]:
    """The same, for those that set its interfaces: they are as booted before and after."""
    yield running
    running.run("restart")


@pytest.fixture(scope="package")
def of_version(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A guest of the QEMU that is its parameter, one for all tests with this QEMU."""
    version: Version = request.param
    skip_or_fail(why_unavailable() or why_no_version(version))
    with booted(qemu=version) as guest:
        yield guest
