"""How long to look at the ring before sleeping: `python -m benchmarks.looking`.

The full state on QEMU's device, by daemons that differ in `replay.poll_us` only and take turns on
the same device, round after round. Prints the median and the range of commit, and the doorbells.
"""

import asyncio
import os
import statistics
from contextlib import AsyncExitStack

from benchmarks.replay import DEVICES_CPUS, STATES, Series, daemon, pipelined, qemu_bench
from benchmarks.tables import show

LOOKS_US = (0, 200, 1000)
ROUNDS = 15
RINGS = (64, 256)


async def main() -> None:
    """Measures and prints the table."""
    os.sched_setaffinity(0, DEVICES_CPUS)
    rows = []
    async with AsyncExitStack() as stack:
        clients = {
            look: await stack.enter_async_context(daemon(replay={"poll_us": look}))
            for look in LOOKS_US
        }
        for ring_size in RINGS:
            series = {look: Series() for look in LOOKS_US}
            async with qemu_bench(ring_size, event_idx=True) as bench:
                for _ in range(ROUNDS):
                    for look, client in clients.items():
                        await pipelined(client, bench, STATES["full"], series[look])
            for look, each in series.items():
                commits = [us / 1000 for us in each.commit_us]
                rows.append(
                    [
                        ring_size,
                        look,
                        f"{statistics.median(commits):.2f}",
                        f"{min(commits):.2f}…{max(commits):.2f}",
                        f"{min(each.doorbells)}-{max(each.doorbells)}",
                    ]
                )
    headers = ("ring", "poll_us", "commit ms", "min…max", "doorbells")
    show(headers, rows)


if __name__ == "__main__":
    asyncio.run(main())
