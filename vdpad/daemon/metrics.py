"""Metrics for Prometheus: a listener to events, and counts that are looked up when they are read.

daemon.py imports it where metrics are configured, and nobody else (service/metrics.py says why).

Every label has few values, all of them ours: kinds of targets, outcomes, commands, methods, errors.
A migration's or device's name is never one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from vdpad.daemon.events.operations import Ended, Prepared, ReplayEnded
from vdpad.daemon.targets.target_params import KINDS
from vdpad.service import metrics
from vdpad.service.events.event import Event

# In seconds. A batch that fits the ring takes some 50 µs on the software device, one of a real
# device's commands up to milliseconds, and the deadline is 5 s unless it is configured.
_BUCKETS = (
    *(25e-6, 50e-6, 100e-6, 250e-6, 500e-6),
    *(1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)

_OUTCOMES = (
    *("restored", "rejected", "incomplete", "broken"),
    *("failed", "cancelled", "interrupted"),
)


@dataclass(frozen=True, slots=True)
class Sources:
    """What others count, looked up when metrics are written. None of them may take long."""

    operations: Callable[[], Mapping[str, int]]
    """Records by state."""
    kept_devices: Callable[[], int]
    requests: Callable[[], Mapping[tuple[str, str], int]]
    """By method and result."""
    datagrams_refused: Callable[[], Mapping[tuple[str, str], int]]
    """By endpoint and reason."""
    replies_dropped: Callable[[], Mapping[str, int]]
    """By endpoint."""
    journal_dropped: Callable[[], int]
    listener_failures: Callable[[], int]


class Metrics:
    """All metrics of a daemon."""

    def __init__(self, version: str, sources: Sources) -> None:
        self._registry = registry = metrics.registry()
        registry.register(_Looked(version, sources))
        self._ended = Counter(
            "vdpad_operations",
            "Operations that came to their end, by outcome and kind of target.",
            ("outcome", "target"),
            registry=registry,
        )
        for outcome, target in product(_OUTCOMES, KINDS):
            self._ended.labels(outcome, target)
        self._prepare = _histogram(registry, "vdpad_prepare_seconds", "Time to prepare.")
        self._commit = _histogram(
            registry,
            "vdpad_commit_seconds",
            "Time from the first command's image copied to the last ack read.",
        )
        commands = Counter(
            "vdpad_commands",
            "Commands of commits that ended, by name and ack: ok, err, none.",
            ("command", "ack"),
            registry=registry,
        )
        # Looked up once each: the library takes 2 µs for it, and a caller waits for its report.
        self._commands = cache(commands.labels)
        self._doorbells = Counter(
            "vdpad_doorbells",
            "How often devices were kicked in commits.",
            ("target",),
            registry=registry,
        )

    def heard(self, event: Event) -> None:
        """Counts what is to be counted of an event; there may be nothing."""
        match event:
            case ReplayEnded():
                self._count_replay(event)
            case Prepared():
                self._prepare.labels(event.target).observe(event.prepare_us / 1e6)
        if isinstance(event, Ended):
            self._ended.labels(event.outcome, event.target).inc()

    def _count_replay(self, event: ReplayEnded) -> None:
        self._commit.labels(event.target).observe(event.commit_us / 1e6)
        self._doorbells.labels(event.target).inc(event.doorbells)
        for (command, ack), count in event.acks.items():
            self._commands(command, ack).inc(count)

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return metrics.rendered(self._registry)


def _histogram(registry: CollectorRegistry, name: str, documentation: str) -> Histogram:
    histogram = Histogram(name, documentation, ("target",), registry=registry, buckets=_BUCKETS)
    for target in KINDS:
        histogram.labels(target)
    return histogram


class _Looked(Collector):
    """Metrics that are not counted but looked up whenever somebody asks for them."""

    def __init__(self, version: str, sources: Sources) -> None:
        self._version = version
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        """Their names, so that none is there twice."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """All of them as they are now."""
        now = self._sources
        yield metrics.gauges(
            "vdpad_build_info", "1, with vdpad's version.", ("version",), [((self._version,), 1)]
        )
        yield metrics.gauges(
            "vdpad_operations_recorded",
            "Operations that `status` knows, by state.",
            ("state",),
            metrics.by_one(now.operations()),
        )
        yield metrics.gauges(
            "vdpad_kept_devices",
            "vhost-vdpa devices that vdpad keeps.",
            (),
            [((), now.kept_devices())],
        )
        yield metrics.counters(
            "vdpad_requests",
            "Requests answered, by method and result: ok, or the error's kind.",
            ("method", "result"),
            now.requests().items(),
        )
        yield metrics.counters(
            "vdpad_datagrams_refused",
            "Datagrams that were refused before they became requests.",
            ("endpoint", "reason"),
            now.datagrams_refused().items(),
        )
        yield metrics.counters(
            "vdpad_replies_dropped",
            "Replies that could not be sent: the client was gone, or did not read.",
            ("endpoint",),
            metrics.by_one(now.replies_dropped()),
        )
        yield metrics.counters(
            "vdpad_journal_dropped",
            "Log entries that did not get through.",
            (),
            [((), now.journal_dropped())],
        )
        yield metrics.counters(
            "vdpad_listener_failures",
            "Faults of vdpad's own in its log or metrics.",
            (),
            [((), now.listener_failures())],
        )
