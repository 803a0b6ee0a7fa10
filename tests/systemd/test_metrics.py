"""Metrics, where Debian's prometheus-node-exporter looks for them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from .service import Service
from .test_service import restore

ROOT = Path(__file__).resolve().parents[2]

COLLECTED = "/var/lib/prometheus/node-exporter/vdpad.prom"
WRITTEN = "/run/vdpad/metrics/vdpad.prom"


@pytest.fixture
def service(booted: Service) -> Iterator[Service]:
    """The service, with its metrics where a collector finds them, as docs/operating.md has it."""
    booted.change()
    # As prometheus-node-exporter's postinst leaves it; nobody stands in for the user prometheus.
    booted.vm.output("install", "-d", str(Path(COLLECTED).parent))
    booted.vm.output("chown", "nobody", str(Path(COLLECTED).parents[1]))
    for line in laid_out():
        booted.vm.output(*shlex.split(line))
    booted.drop_in("metrics", f'[metrics]\ntextfile = "{WRITTEN}"\ninterval_s = 1\n')
    yield booted
    booted.as_installed()
    left = ("/etc/tmpfiles.d/vdpad-metrics.conf", "/run/vdpad/metrics", COLLECTED)
    booted.vm.output("rm", "-r", *left)


def laid_out() -> list[str]:
    """The commands that the page has for it."""
    page = (ROOT / "docs" / "operating.md").read_text()
    text = page.split("\n## Metrics\n")[1].split("\nIn `/etc/vdpad/conf.d/50-metrics.toml`")[0]
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


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
