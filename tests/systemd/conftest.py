"""Fixtures: vdpad installed, a machine that has it, and the machine's service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.install.install import installed as installed

from .machine import machine, why_unavailable
from .service import DROP_INS, RULES, Service, give_time


@pytest.fixture(scope="session")
def booted(installed: Path) -> Iterator[Service]:
    """A machine for all tests, its service set up as a package's scripts and an operator would."""
    skip_or_fail(why_unavailable())
    with machine(installed) as vm:
        vm.output("systemd-sysusers")
        vm.output("systemd-tmpfiles", "--create", "vdpad.conf")
        give_time(vm, "vdpad.service")
        vm.output("systemctl", "daemon-reload")
        vm.output("systemctl", "enable", "--now", "vdpad.socket")
        service = Service(vm)
        yield service
        messages = (str(each.get("MESSAGE")) for each in service.entries())
        assert [each for each in messages if "Traceback" in each or "not told" in each] == []


@pytest.fixture
def service(booted: Service) -> Iterator[Service]:
    """The service as it was installed, whatever a test has changed."""
    yield booted
    booted.as_installed()


@pytest.fixture(scope="module")
def with_drop_in(booted: Service) -> Iterator[Service]:
    """The service with its devices, as docs/operating.md has it set up."""
    booted.give_devices()
    booted.systemctl("restart", "vdpad.service")
    yield booted
    booted.vm.output("rm", RULES, f"{DROP_INS}/vhost-vdpa.conf")
    booted.vm.output("sh", "-c", "chown root /dev/vhost-vdpa-*")
    booted.vm.output("udevadm", "control", "--reload")
    booted.systemctl("daemon-reload")
    booted.systemctl("stop", "vdpad.service")
