"""All metrics of a daemon and of a back end, written once everything has happened."""

from collections.abc import Iterable
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from vdpad.backend.control.results import BackEndPhase
from vdpad.backend.metrics import BackEndMetrics, BackEndSources
from vdpad.daemon.events.operations import Restored
from vdpad.daemon.metrics import Metrics, Sources
from vdpad.service.refusal import Kind
from vdpad.wire.sealing import Reason

RESULTS = ("ok", *Kind)
ACKS = ("ok", "err", "none")


def of_a_daemon() -> list[Metric]:
    """Its families, with each result of a request and each reason to refuse a datagram."""
    metrics = Metrics(
        "1",
        Sources(
            operations=lambda: {"restored": 1},
            kept_devices=lambda: 1,
            requests=lambda: {("prepare", result): 1 for result in RESULTS},
            datagrams_refused=lambda: {
                ("unix", "queue-full"): 1,
                **{("udp", str(reason)): 1 for reason in Reason},
            },
            replies_dropped=lambda: {"unix": 1},
            journal_dropped=lambda: 1,
            listener_failures=lambda: 1,
        ),
    )
    given: dict[str, Any] = {field.name: 0 for field in fields(Restored)}
    acks = {("VLAN_ADD", ack): 1 for ack in ACKS}
    metrics.heard(Restored(**given | {"acks": acks, "target": "lent"}))
    return families(metrics.render())


def of_a_back_end(phase: BackEndPhase = BackEndPhase.RUNNING) -> list[Metric]:
    """Its families, in this phase, with a monitor that is asked."""
    metrics = BackEndMetrics(
        "net0",
        BackEndSources(
            phase=lambda: phase,
            commands=lambda: SimpleNamespace(forwarded=2, acked=1, refused=1),
            packets_dropped=lambda: 1,
            follows=lambda: True,
            requests=lambda: {("info", result): 1 for result in RESULTS},
            datagrams_refused=lambda: 1,
            replies_dropped=lambda: 1,
            journal_dropped=lambda: 1,
            listener_failures=lambda: 1,
        ),
    )
    return families(metrics.render())


def families(text: bytes) -> list[Metric]:
    """By Prometheus' own parser."""
    return list(text_string_to_metric_families(text.decode()))


def labels_by_name(found: Iterable[Metric]) -> dict[str, set[str]]:
    """Each metric as queries name it, and its labels."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): {
            label for sample in family.samples for label in sample.labels if label != "le"
        }
        for family in found
    }
