"""A commit against a driver in C, on the same lent ring: `make bench`, or by itself.

    .venv/bin/python -m benchmarks.lent

The device is QEMU's virtio-net without a guest, its control queue lent, split and packed. The C
program (lent_replay.c) is given the commands that the daemon sends, encoded, and the same memory
and kick. The two take turns, round after round, and each goes on where the other has left the ring.
Whoever drives the queue has a processor of its own, and QEMU and its VMM have the others.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.c_drivers import built, write_batch
from benchmarks.replay import DEVICES_CPUS, DRIVERS_CPU, QEMU_RINGS, daemon
from benchmarks.states import full
from benchmarks.tables import show
from tests.qemu import lender
from tests.qemu.guestless import Guestless, Options, guestless, why_unavailable
from vdpad.client import Client
from vdpad.daemon.targets.lent import LentTarget
from vdpad.daemon.targets.target_params import LentParams
from vdpad.restore.plan import Plan, plan
from vdpad.state.model import NetState
from vdpad.virtio.commands import Command
from vdpad.virtio.features import Feature
from vdpad.virtio.packed_ring import position_at

HEADERS = (
    *("layout", "ring", "EVENT_IDX", "doorbells", "commit ms", "min…max"),
    *("C's doorbells", "C ms", "C's min…max", "commit / C"),
)


@dataclass
class Series:
    """The figures of one way."""

    us: list[float] = field(default_factory=list)
    doorbells: list[int] = field(default_factory=list)

    def add(self, us: float, doorbells: int) -> None:
        """Those of one round."""
        self.us.append(us)
        self.doorbells.append(doorbells)

    @property
    def ms(self) -> float:
        """The median."""
        return statistics.median(self.us) / 1000

    def told(self) -> tuple[str, str, str]:
        """Doorbells, the median, the least and the most."""
        few, many = min(self.doorbells), max(self.doorbells)
        rung = f"{few}" if few == many else f"{few}-{many}"
        return rung, f"{self.ms:.2f}", f"{min(self.us) / 1000:.2f}…{max(self.us) / 1000:.2f}"


@dataclass
class Bench:
    """A lent ring, and where it stands."""

    qemu: Guestless
    event_idx: bool
    ring: Mapping[str, int] = field(default_factory=dict)
    """As the last report has it."""

    def target(self) -> dict[str, Any]:
        """What is lent now. A split ring says itself where it stands."""
        return lender.lent_target(self.qemu, ring=self.ring if self.qemu.lend.packed else {})

    def stands_at(self, position: int) -> None:
        """The ring stands there by now; of a split one both indices."""
        size = self.qemu.lend.ring_size
        at, wrap = position % size, 1 - position // size % 2
        self.ring = {
            "next_available": at,
            "next_used": at,
            "available_wrap": wrap,
            "used_wrap": wrap,
        }

    async def in_c(self, program: Path, batch: Path, series: Series) -> None:
        """One pass of the C driver's."""
        lend = self.qemu.lend
        start = 0
        if lend.packed and self.ring:
            place = self.ring["next_available"], self.ring["available_wrap"]
            start = position_at(*place, lend.ring_size)
        numbers = (lend.memory_fd, lend.kick_fd, f"{lend.memory_iova:x}", lend.ring_size)
        areas = (lend.descriptors, lend.available, lend.used, lend.buffers_iova)
        process = await asyncio.create_subprocess_exec(
            program,
            *["--packed"] * lend.packed,
            *["--event-idx"] * self.event_idx,
            batch,
            *map(str, (*numbers, *(f"{each:x}" for each in areas), start)),
            stdout=subprocess.PIPE,
            pass_fds=(lend.memory_fd, lend.kick_fd),
            preexec_fn=lambda: os.sched_setaffinity(0, DRIVERS_CPU),
        )
        told = json.loads((await process.communicate())[0])
        if told["rejected"]:
            raise SystemExit(f"{told['rejected']} commands were refused from C")
        self.stands_at(told["next"])
        series.add(told["us"], told["doorbells"])

    async def committed(self, client: Client, state: dict[str, Any], series: Series) -> None:
        """One restore over the API."""
        name = lender.migration()
        await client.prepare(name, state, self.target())
        fds = lender.descriptors(self.qemu.lend)
        report = await client.commit(name, fds=fds, deadline_ms=60_000)
        self.ring = report["ring"]
        series.add(report["commit_us"], report["doorbells"])


async def measured(client: Client, bench: Bench, program: Path, rounds: int) -> list[Any]:
    """A line of the table; the first round warms up and does not count."""
    state = full()
    in_c, commits = Series(), Series()
    with tempfile.TemporaryDirectory(prefix="vdpad-bench-") as folder:
        batch = Path(folder) / "batch"
        write_batch(_commands(state, bench.target()), batch)
        for done in range(rounds + 1):
            if done == 1:
                in_c, commits = Series(), Series()
            await bench.in_c(program, batch, in_c)
            await bench.committed(client, state, commits)
    lend = bench.qemu.lend
    return [
        "packed" if lend.packed else "split",
        lend.ring_size,
        "yes" if bench.event_idx else "no",
        *commits.told(),
        *in_c.told(),
        f"{commits.ms / in_c.ms:.2f}",
    ]


def _commands(state: dict[str, Any], target: dict[str, Any]) -> tuple[Command, ...]:
    params = LentParams.model_validate_json(json.dumps(target))
    parsed = NetState.model_validate_json(json.dumps(state))
    planned = plan(parsed, LentTarget.of(params).capabilities)
    assert isinstance(planned, Plan), planned
    return planned.commands


async def main(rounds: int) -> None:
    """Measures everything and prints the table."""
    os.sched_setaffinity(0, DEVICES_CPUS)
    reason = why_unavailable()
    if reason is not None:
        print(f"a driver in C is left out: {reason}", file=sys.stderr)
        return
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory(prefix="vdpad-bench-") as folder:
        program = built("lent_replay", Path(folder))
        async with daemon() as client:
            for event_idx, packed, size in product((True, False), (False, True), QEMU_RINGS):
                async with guestless(_options(size, packed, event_idx)) as qemu:
                    rows.append(await measured(client, Bench(qemu, event_idx), program, rounds))
                print(*rows[-1], file=sys.stderr)
    show(HEADERS, rows)


def _options(size: int, packed: bool, event_idx: bool) -> Options:
    without = frozenset() if event_idx else frozenset({int(Feature.RING_EVENT_IDX)})
    properties = "rss=on,hash=on"
    return Options(ring_size=size, packed=packed, device_properties=properties, without=without)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    asyncio.run(main(parser.parse_args().rounds))
