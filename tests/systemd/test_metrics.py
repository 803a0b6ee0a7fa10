"""Metrics, where Debian's prometheus-node-exporter looks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .service import PLACED, Service
from .test_service import restore

COLLECTED = "/var/lib/prometheus/node-exporter/vdpad.prom"
WRITTEN = "/run/vdpad/metrics/vdpad.prom"


@pytest.fixture
def service(booted: Service) -> Iterator[Service]:
    """The service, with its metrics where a collector finds them."""
    booted.change()
    booted.vm.output("ln", "-s", f"{PLACED}/vdpad-metrics.conf", "/etc/tmpfiles.d/")
    booted.vm.output("systemd-tmpfiles", "--create", "vdpad-metrics.conf")
    booted.drop_in("metrics", f'[metrics]\ntextfile = "{WRITTEN}"\ninterval_s = 1\n')
    yield booted
    booted.as_installed()
    booted.vm.output("rm", "-r", "/etc/tmpfiles.d/vdpad-metrics.conf", "/run/vdpad/metrics")


def collected(service: Service) -> str:
    """What a user who is nobody to vdpad finds there."""
    nobody = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups")
    return service.vm.output(*nobody, "cat", COLLECTED)


def test_metrics_come_to_the_collector(service: Service) -> None:
    assert collected(service) == ""
    restore(service)
    service.until(lambda: 'vdpad_operations_total{outcome="restored"' in collected(service))
    said = service.vm.output("stat", "-c", "%U:%G %a", "/run/vdpad/metrics", WRITTEN)
    assert said.splitlines() == ["vdpad:vdpad 755", "vdpad:vdpad 644"]
    # That folder, and not the one of all who have metrics.
    can = {name for name, told in service.probe().items() if told == "yes"}
    assert "write metrics" in can
    assert "write collected" not in can
