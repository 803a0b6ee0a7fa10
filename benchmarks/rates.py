"""How many packets pass in a while, and what a process spends on them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.fixed_ring import Pair

RECEIVED = ("receive queue", "packets/s", "processors", "µs of a processor a packet")
"""The table of them."""

# Of the clock's number (Linux, clock_getcpuclockid(3), which Python does not have).
_OF_ALL_THREADS = 2


@dataclass(frozen=True, slots=True)
class Rate:
    """What went round in a while."""

    packets: float
    """A second."""
    busy: float
    """Of the process that is measured: processors."""


def processor_seconds(pid: int) -> float:
    """What a process has had of processors, by all its threads."""
    return time.clock_gettime((~pid << 3) | _OF_ALL_THREADS)


def rate_of(pair: Pair, pid: int, batch: int, seconds: float) -> Rate:
    """So many packets at once, again and again for so long; what this process does for it."""
    done, busy, began = 0, processor_seconds(pid), time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        pair.go_round(batch)
        done += batch
    return Rate(done / took, (processor_seconds(pid) - busy) / took)


def received_row(state: str, rates: Sequence[Rate]) -> list[str]:
    """The median of some rounds, for the table."""
    packets = statistics.median(rate.packets for rate in rates)
    busy = statistics.median(rate.busy for rate in rates)
    return [state, f"{packets:.0f}", f"{busy:.2f}", f"{busy / packets * 1e6:.2f}"]
