"""What the relay costs where little goes on: how much later a packet comes, and an idle processor.

    make bench-moving

The back end has a process and a processor of its own, with the software device in it; the guest,
which is this process, has the other. A guest sends one packet and waits until it comes back, a
millisecond later the next. It either sleeps until it is called, as Linux does at such rates, or
asks for no calls and looks at its ring all the time, as DPDK does: then nobody wakes the relay
either, which looks at its tick (vdpad/backend/relay_thread.py).
"""

from __future__ import annotations

import asyncio
import os
import select
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.back_end_tables import spread, us
from benchmarks.fixed_ring import Pair, new_guest, pair_of
from benchmarks.rates import processor_seconds
from benchmarks.tables import show
from tests.backend.process import PROGRAM, running
from tests.backend.vmm import PLAIN, Vmm
from tests.vhost_user.log_file import log_file
from tests.vm.steps.logged import LOG_SIZE
from vdpad.virtio.features import Feature

LATENCIES = ("guest", "receive queue", "packets", "median µs", "p99 µs", "% of a processor")
IDLE = ("idle receive queue", "% of a processor", "min…max", "rounds")

_ROUNDS, _PACKETS = 7, 250
_APART = 1e-3
_IDLE_ROUNDS, _IDLE_SECONDS = 3, 3.0
# A packet that takes as long is lost.
_GUARD = 2.0

STATES = ("passed through", "relayed")
Waits = Callable[[Pair, int], None]


def _called(pair: Pair, call: int) -> None:
    """Sleeps until the device calls."""
    while pair.receive.returned != pair.receive.offered:
        select.select([call], [], [], _GUARD)
        os.eventfd_read(call)


def _polls(pair: Pair, _call: int) -> None:
    """Looks at the ring all the while."""
    while pair.receive.returned != pair.receive.offered:
        pass


GUESTS: dict[str, Waits] = {"sleeps until it is called": _called, "polls": _polls}


def _round_trips(pair: Pair, call: int, waits: Waits) -> list[float]:
    """Microseconds of each packet."""
    took = []
    for _ in range(_PACKETS):
        time.sleep(_APART)
        pair.receive.ask_for_calls(wanted=waits is _called)
        began = time.perf_counter_ns()
        pair.receive.offer(1)
        pair.transmit.offer(1)
        waits(pair, call)
        took.append((time.perf_counter_ns() - began) / 1000)
    return took


@dataclass(slots=True)
class Quiet:
    """What was measured of one guest in one state."""

    took: list[float] = field(default_factory=list)
    """Microseconds of each packet."""
    shares: list[float] = field(default_factory=list)
    """Percent of a processor in each round."""


Latencies = dict[tuple[str, str], Quiet]


async def _measured(guest: Vmm, pid: int) -> tuple[Latencies, dict[str, list[float]]]:
    """In each state, which take turns: each packet's microseconds, and shares of a processor."""
    latencies: Latencies = {(kind, state): Quiet() for kind in GUESTS for state in STATES}
    idle: dict[str, list[float]] = {state: [] for state in STATES}
    call = guest.guest.queues[0].call
    with pair_of(guest) as pair, log_file(LOG_SIZE) as log:
        pair.transmit.ask_for_calls(wanted=False)
        for at in range(_ROUNDS):
            for state in STATES:
                if state == "relayed":
                    await guest.log(log)
                for kind, waits in GUESTS.items():
                    quiet = latencies[kind, state]
                    with _share(pid, quiet.shares):
                        quiet.took += _round_trips(pair, call, waits)
                if at < _IDLE_ROUNDS:
                    with _share(pid, idle[state]):
                        await asyncio.sleep(_IDLE_SECONDS)
                if state == "relayed":
                    await guest.log_no_more()
    return latencies, idle


@contextmanager
def _share(pid: int, shares: list[float]) -> Iterator[None]:
    """Adds the percent of a processor that the back end takes meanwhile."""
    before, began = processor_seconds(pid), time.perf_counter()
    yield
    shares.append(100 * (processor_seconds(pid) - before) / (time.perf_counter() - began))


async def measure() -> tuple[Latencies, dict[str, list[float]]]:
    """All of it, on a back end of its own."""
    cpus = sorted(os.sched_getaffinity(0))
    guest = new_guest()
    with TemporaryDirectory(prefix="vdpad-bench-") as folder:
        os.sched_setaffinity(0, cpus[1:2] or cpus)
        async with running(Path(folder), "--stay", program=PROGRAM) as process:
            os.sched_setaffinity(0, cpus[:1])
            async with process.vmm(guest) as connected:
                machine = Vmm(guest, connected.front_end, PLAIN - {Feature.MQ})
                await machine.start()
                found = await _measured(machine, process.process.pid)
                await machine.stop()
    os.sched_setaffinity(0, cpus)
    guest.close()
    return found


def main() -> None:
    """Measures and prints the tables."""
    latencies, idle = asyncio.run(measure())
    rows = []
    for (kind, state), quiet in latencies.items():
        took, share = quiet.took, f"{statistics.median(quiet.shares):.1f}"
        p99 = statistics.quantiles(took, n=100)[-1]
        rows.append([kind, state, str(len(took)), us(statistics.median(took)), us(p99), share])
    show(LATENCIES, rows)
    show(IDLE, [[state, *spread(shares, 2)] for state, shares in idle.items()])


if __name__ == "__main__":
    main()
