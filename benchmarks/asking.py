"""What a client's start costs a guest that is stopped: `python -m benchmarks.asking`.

An ordinary guest's state is prepared on the software device and committed, by a client that is up
and by vdpactl, in turns; beside them a Python that does nothing, to see how much of it is Python's
own start. Prints the median and the range from the asking to the answer, which is what the guest
waits for, and of that what the daemon's commit took.
"""

import asyncio
import itertools
import json
import statistics
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.replay import daemon
from benchmarks.tables import show
from vdpad.client import Client

ROUNDS = 30
STATE = json.loads(Path("docs/examples/state.json").read_text())
TARGET = {"kind": "software", "name": "sim0"}

_numbers = itertools.count()


@dataclass
class Way:
    """Someone who asks, and what it took, in ms; the first round warms up and does not count."""

    name: str
    ask: Callable[[str], Awaitable[None]]
    took: list[float] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)

    def row(self) -> list[str]:
        """For the table."""
        took = self.took[1:]
        commit = f"{statistics.median(self.commits[1:]):.2f}" if self.commits else ""
        return [
            self.name,
            f"{statistics.median(took):.2f}",
            f"{min(took):.2f}…{max(took):.2f}",
            commit,
        ]


async def main() -> None:
    """Measures and prints the table."""
    async with daemon(limits={"operations_at_once": 1024}) as client:
        ways = _ways(client)
        for _ in range(ROUNDS + 1):
            for way in ways:
                await _measure(client, way)
    headers = ("who asks", "ms", "min…max", "commit ms")
    rows = [each.row() for each in ways]
    show(headers, rows)


def _ways(client: Client) -> list[Way]:
    async def up(migration: str) -> None:
        await client.commit(migration)

    async def vdpactl(migration: str) -> None:
        await _run("-m", "vdpad.cli.vdpactl", "--socket", str(client._path), "commit", migration)

    async def nothing(_: str) -> None:
        await _run("-c", "pass")

    return [
        Way("a client that is up", up),
        Way("vdpactl", vdpactl),
        Way("a Python that does nothing", nothing),
    ]


async def _measure(client: Client, way: Way) -> None:
    migration = f"asking-{next(_numbers)}"
    await client.prepare(migration, STATE, TARGET)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await way.ask(migration)
    way.took.append((loop.time() - began) * 1000)
    report = (await client.status(migration))["report"]
    if report is not None:
        way.commits.append(report["commit_us"] / 1000)


async def _run(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


if __name__ == "__main__":
    asyncio.run(main())
