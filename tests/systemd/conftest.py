"""Fixtures: vdpad installed, a machine that has it, and the machine's service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.availability import skip_or_fail

from .install import install
from .machine import machine, why_unavailable
from .service import Service


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make install DESTDIR=` lays out."""
    folder = tmp_path_factory.mktemp("installed")
    install(DESTDIR=str(folder))
    return folder


@pytest.fixture(scope="session")
def booted(installed: Path) -> Iterator[Service]:
    """A machine for all tests, its service set up as a package's scripts and an operator would."""
    skip_or_fail(why_unavailable())
    with machine(installed) as vm:
        vm.output("systemd-sysusers")
        vm.output("systemd-tmpfiles", "--create", "vdpad.conf")
        vm.output("systemctl", "daemon-reload")
        vm.output("systemctl", "enable", "--now", "vdpad.socket")
        yield Service(vm)


@pytest.fixture
def service(booted: Service) -> Iterator[Service]:
    """The service as it was installed, whatever a test has changed."""
    yield booted
    booted.as_installed()
