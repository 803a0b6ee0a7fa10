"""One by one against pipelined, side by side: `make bench`, or `python -m benchmarks.replay`.

The daemon runs as a process of its own and is asked over its socket; its reports give the figures
of the pipelined way. The devices: our software device in a process beside it, and QEMU's virtio-net
without a guest, where this process is the VMM that passes doorbells and interrupts on. The two ways
take turns, round after round, on the same device. Whoever drives the queue has a processor of its
own, and the device and its VMM have the others, as on a host.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.states import full, usual
from benchmarks.tables import show
from tests.qemu import lender
from tests.qemu.guestless import Options, guestless, why_unavailable
from tests.support.daemon import VDPAD, running
from tests.support.device_process import device_process
from tests.support.devices import config, geometry_of
from tests.support.lent import lent_target
from vdpad.client import Client
from vdpad.virtio.features import FEATURES, Feature

CPUS = sorted(os.sched_getaffinity(0))
DRIVERS_CPU, DEVICES_CPUS = CPUS[:1], CPUS[1:] or CPUS
SOFTWARE_RING = 64
QEMU_RINGS = (64, 128, 256)
STATES = {"full": full(), "usual": usual()}
_numbers = itertools.count(1)
HEADERS = (
    *("device", "ring", "EVENT_IDX", "commands", "way", "doorbells"),
    *("commit ms", "min…max", "prepare ms", "own µs/cmd"),
)


@dataclass
class Series:
    """The figures of one way on one device."""

    commit_us: list[int] = field(default_factory=list)
    doorbells: list[int] = field(default_factory=list)
    prepare_us: list[int] = field(default_factory=list)
    own_us: list[float] = field(default_factory=list)
    """What is left of a commit per command when the device's own time is taken off."""


@dataclass(frozen=True)
class Bench:
    """A device to measure on."""

    name: str
    ring_size: int
    event_idx: bool
    target: dict[str, Any]
    fds: Sequence[int]
    reset: Callable[[], None] = lambda: None
    busy_ns: Callable[[], int] | None = None


@asynccontextmanager
async def daemon(**settings: Any) -> AsyncIterator[Client]:
    """A running daemon with these settings, and a client of it."""
    with tempfile.TemporaryDirectory(prefix="vdpad-bench-") as folder:
        async with running(Path(folder), VDPAD, **settings) as process:
            os.sched_setaffinity(process.pid, DRIVERS_CPU)
            async with Client(process.socket, timeout=120) as client:
                yield client


async def pipelined(client: Client, bench: Bench, state: dict[str, Any], series: Series) -> None:
    """One restore over the API."""
    name = f"bench-{next(_numbers)}"
    await client.prepare(name, state, bench.target)
    bench.reset()
    before = bench.busy_ns() if bench.busy_ns else 0
    report = await client.commit(name, fds=bench.fds, deadline_ms=60_000)
    series.commit_us.append(report["commit_us"])
    series.doorbells.append(report["doorbells"])
    series.prepare_us.append(report["prepare_us"])
    if bench.busy_ns:
        own = report["commit_us"] - (bench.busy_ns() - before) / 1000
        series.own_us.append(own / report["commands"])


async def one_by_one(bench: Bench, state: dict[str, Any], series: Series) -> None:
    """One pass in a process of its own."""
    bench.reset()
    fds = [str(fd) for fd in bench.fds]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.one_by_one", *fds),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        pass_fds=bench.fds,
        preexec_fn=lambda: os.sched_setaffinity(0, DRIVERS_CPU),
    )
    asked = json.dumps({"state": state, "target": bench.target}).encode()
    answer = json.loads((await process.communicate(asked))[0])
    if answer["refused"]:
        raise SystemExit(f"{bench.name}: {answer['refused']} commands were refused one by one")
    series.commit_us.append(answer["commit_us"])
    series.doorbells.append(answer["doorbells"])


async def measure(client: Client, bench: Bench, rounds: int) -> list[list[Any]]:
    """All states both ways on one device; the first round warms up and does not count."""
    rows = []
    for name, state in STATES.items():
        ways = {"one by one": Series(), "pipelined": Series()}
        for done in range(rounds + 1):
            await one_by_one(bench, state, ways["one by one"])
            await pipelined(client, bench, state, ways["pipelined"])
            if not done:
                ways = {"one by one": Series(), "pipelined": Series()}
        commands = (await client.check(state, bench.target))["commands"]
        rows += [row(bench, commands, way, series) for way, series in ways.items()]
        print(f"{bench.name}, {name}: done", file=sys.stderr)
    return rows


def row(bench: Bench, commands: int, way: str, series: Series) -> list[Any]:
    """A line of the table."""

    def ms(values: list[int]) -> str:
        return f"{statistics.median(values) / 1000:.2f}" if values else ""

    few, many = min(series.doorbells), max(series.doorbells)
    return [
        bench.name,
        bench.ring_size,
        "yes" if bench.event_idx else "no",
        commands,
        way,
        few if few == many else f"{few}-{many}",
        ms(series.commit_us),
        f"{min(series.commit_us) / 1000:.2f}…{max(series.commit_us) / 1000:.2f}",
        ms(series.prepare_us),
        f"{statistics.median(series.own_us):.2f}" if series.own_us else "",
    ]


async def on_software(client: Client, event_idx: bool, rounds: int) -> list[list[Any]]:
    """On our device, in a process beside the daemon's."""
    configured = config(ring_size=SOFTWARE_RING, event_idx=event_idx)
    geometry = await geometry_of(configured)
    target = lent_target(FEATURES.names(configured.features), geometry)
    with device_process(ring_size=SOFTWARE_RING, event_idx=event_idx) as device:
        lent = device.descriptors
        fds = (lent.memory, lent.kick, lent.call)
        bench = Bench(
            "software", SOFTWARE_RING, event_idx, target, fds, device.reset, device.busy_ns
        )
        return await measure(client, bench, rounds)


@asynccontextmanager
async def qemu_bench(ring_size: int, *, event_idx: bool) -> AsyncIterator[Bench]:
    """QEMU's device, this process being its VMM."""
    without = frozenset() if event_idx else frozenset({int(Feature.RING_EVENT_IDX)})
    options = Options(ring_size=ring_size, device_properties="rss=on,hash=on", without=without)
    async with guestless(options) as qemu:
        target = lender.lent_target(qemu)
        yield Bench("QEMU", ring_size, event_idx, target, lender.descriptors(qemu.lend))


async def on_qemu(client: Client, ring_size: int, event_idx: bool, rounds: int) -> list[list[Any]]:
    """On QEMU's."""
    async with qemu_bench(ring_size, event_idx=event_idx) as bench:
        return await measure(client, bench, rounds)


async def main(rounds: int) -> None:
    """Measures everything and prints the table."""
    os.sched_setaffinity(0, DEVICES_CPUS)
    reason = why_unavailable()
    if reason is not None:
        print(f"QEMU's device is left out: {reason}", file=sys.stderr)
    rows: list[list[Any]] = []
    async with daemon() as client:
        for event_idx in (True, False):
            rows += await on_software(client, event_idx, rounds)
            for ring_size in QEMU_RINGS if reason is None else ():
                rows += await on_qemu(client, ring_size, event_idx, rounds)
    rows.sort(key=lambda each: each[:3], reverse=True)
    show(HEADERS, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    asyncio.run(main(parser.parse_args().rounds))
