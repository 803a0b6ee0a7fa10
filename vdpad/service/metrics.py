"""Metrics for Prometheus, as any process of ours has them.

Only this module and those that say what is counted know prometheus_client, whose import takes
55 ms: they are imported where metrics are configured, and nowhere else. The registry is our own, so
nothing of the process's or Python's is in it: node_exporter refuses a textfile that repeats its own
metrics.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


def registry() -> CollectorRegistry:
    """One with nothing in it."""
    # Timestamps that would double the number of series. The library knows no other way.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    return CollectorRegistry()


def rendered(of: CollectorRegistry) -> bytes:
    """All of it in Prometheus' text format."""
    return generate_latest(of)


def gauges(
    name: str,
    documentation: str,
    labels: tuple[str, ...],
    values: Iterable[tuple[tuple[str, ...], float]],
) -> Metric:
    """Numbers that go up and down, by their labels' values."""
    family = GaugeMetricFamily(name, documentation, labels=labels)
    for each, number in values:
        family.add_metric(each, number)
    return family


def counters(
    name: str,
    documentation: str,
    labels: tuple[str, ...],
    values: Iterable[tuple[tuple[str, ...], float]],
) -> Metric:
    """Numbers that only go up, by their labels' values; `name` is without "_total"."""
    family = CounterMetricFamily(name, documentation, labels=labels)
    for each, number in values:
        family.add_metric(each, number)
    return family


def by_one(values: Mapping[str, float]) -> Iterable[tuple[tuple[str, ...], float]]:
    """Numbers by the values of a single label."""
    return (((value,), number) for value, number in values.items())
