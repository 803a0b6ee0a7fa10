"""The tables of `make bench-backend`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

COMMANDS = ("device", "EVENT_IDX", "commands", "median µs", "p99 µs")
STARTS_OF = ("device", "settings", "median ms", "min…max", "rounds")
PACKETS = ("device", "back end", "packets/s", "min…max", "rounds")
MAPPINGS = ("device", "pages", "there before", "256 MiB, s", "512 MiB, s", "1 GiB, s")


def us(value: float) -> str:
    """A figure of the tables."""
    return f"{value:.1f}"


def command_row(device: str, event_idx: str, sorted_us: Sequence[float]) -> list[str]:
    """Of commands, by how long each took."""
    at = len(sorted_us)
    median, p99 = sorted_us[at // 2], sorted_us[at * 99 // 100]
    return [device, event_idx, str(at), us(median), us(p99)]


def spread(figures: Sequence[float], digits: int = 1) -> list[str]:
    """The median, the range, and how many there are."""
    median = statistics.median(figures)
    least, most = min(figures), max(figures)
    return [f"{median:.{digits}f}", f"{least:.{digits}f}…{most:.{digits}f}", str(len(figures))]
