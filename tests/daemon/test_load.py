"""64 clients and 256 software devices at once: every outcome right, nothing grows, nothing leaks.

The clients and their stories are the benchmark's too (benchmarks/load.py), which asks for ten times
as much. No test here is about how long something takes, but for answers that never come.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.daemon.support import Caller, request, software, vlans
from tests.support.daemon import Daemon
from tests.support.descriptors import count_of_descriptors
from tests.support.load import heap
from tests.support.load.crowd import Crowd, daemon
from tests.support.load.tally import Tally
from tests.support.marks import in_bulk
from tests.support.waiting import until

REQUESTS = 10_000

# Few enough for all that is bounded to reach its bounds in the first half of the requests.
KEPT = 512

# From then on, in KiB. 95 were measured, of strings that pydantic-core keeps, 16 384 at the most.
# With an object of 50 bytes left by each request they were 417.
MAX_GROWN = 250

OUTCOMES = {
    *("info ok", "check compatible", "check incompatible", "prepare prepared", "prepare restored"),
    *("prepare conflict", "prepare no-such-device", "commit restored", "commit conflict"),
    *("commit device-broken", "commit no-such-migration", "restore restored", "restore rejected"),
    *("restore timeout", "restore device-broken", "restore conflict", "restore busy"),
    *("restore overloaded", "restore incompatible", "restore invalid-params", "cancel cancelled"),
    *("cancel busy", "status restored", "status failed", "status no-such-migration"),
    *("reset method-not-found", "datagram parse-error", "datagram invalid-request"),
    *("datagram invalid-params", "datagram ok", "report in status the same"),
    *("restore again the same", "commit again the same", "refused command the same"),
}


@contextlib.contextmanager
def on_tmpfs() -> Iterator[Path]:
    """A folder where a service's RuntimeDirectory is."""
    with tempfile.TemporaryDirectory(prefix="vdpad-load-", dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def folder() -> Iterator[Path]:
    with on_tmpfs() as name:
        yield name


class Held(NamedTuple):
    """What a daemon has of the kernel."""

    descriptors: int
    mapped_files: int


@dataclass
class Run:
    """What became of all requests."""

    tally: Tally
    grown_kib: int
    """By how much what is allocated has grown over the second half."""
    held: list[Held]
    """Before the first request, and after each half."""
    log: str


@pytest.fixture(scope="module")
def run() -> Run:
    whole = Tally()
    with (
        on_tmpfs() as folder,
        daemon(folder, heap.command(folder / "heap"), KEPT) as running,
        Crowd(running.socket) as crowd,
    ):
        held, allocated = [held_when_idle(running)], []
        for _ in range(2):
            whole.add(crowd.ask(REQUESTS // 2))
            held.append(held_when_idle(running))
            allocated.append(heap.allocated_kib(running, folder / "heap"))
        log = running.log()
    return Run(whole, allocated[1] - allocated[0], held, log)


def held_when_idle(running: Daemon) -> Held:
    """What it has once that no longer changes: records stay mapped for a moment."""
    held, since = held_by(running), time.monotonic()
    while time.monotonic() - since < 1.5:
        time.sleep(0.1)
        now = held_by(running)
        if now != held:
            held, since = now, time.monotonic()
    return held


def held_by(running: Daemon) -> Held:
    return Held(count_of_descriptors(running.pid), len(running.mappings(" /")))


def test_every_outcome_is_right(run: Run) -> None:
    assert run.tally.wrong == []
    assert run.tally.requests >= REQUESTS
    assert run.tally.outcomes.keys() >= OUTCOMES
    assert "internal-error" not in run.log
    assert "Traceback" not in run.log


def test_memory_stays_as_it_is(run: Run) -> None:
    assert run.grown_kib < MAX_GROWN


def test_no_descriptor_is_leaked(run: Run) -> None:
    before, halfway, after = run.held
    assert before.descriptors == after.descriptors
    assert halfway == after


# --- clients that behave badly ---


async def deaf(path: Path, pause: float) -> None:
    """Asks, for large replies too, and never reads one."""
    with Caller(path) as caller:
        while True:
            await caller.send(request("status", 1))
            await caller.send(request("info", 2))
            await asyncio.sleep(pause)


async def flooding(path: Path, pause: float) -> None:
    """Sends as fast as it can, without a pause, and takes what comes."""
    with Caller(path) as caller:
        while True:
            await caller.send(request("info", 1).ljust(100_000))
            while caller.received() is not None:
                pass


async def nameless(path: Path, pause: float) -> None:
    """Restores, from a socket that cannot be answered."""
    wish = {"migration": "nameless", "state": vlans(1), "target": software("sim3")}
    with Caller(path, address=None) as caller:
        while True:
            await caller.send(request("restore", 1, **wish))
            await asyncio.sleep(pause)


async def dying(path: Path, pause: float) -> None:
    """Is gone as soon as it has asked, and soon comes again."""
    target = software("sim3")
    while True:
        with Caller(path) as caller:
            await caller.send(request("restore", 1, migration="x", state=vlans(1), target=target))
            await caller.send(b"{")
        await asyncio.sleep(pause)


Villain = Callable[[Path, float], Coroutine[None, None, None]]
"""By the daemon's socket, and the seconds that it lets pass before it asks again."""


@pytest.mark.parametrize("villain", [deaf, flooding, nameless, dying])
@pytest.mark.parametrize(("requests", "pause"), [(300, 0.005), *in_bulk([(3000, 0.001)])])
async def test_clients_that_behave_badly_cost_nobody_an_answer(
    folder: Path, villain: Villain, requests: int, pause: float
) -> None:
    """Nobody but those that are `overloaded` before they are looked at, who then ask again."""
    with daemon(folder, None) as running, Crowd(running.socket) as crowd:
        before = await asyncio.to_thread(held_when_idle, running)
        behaving = asyncio.create_task(villain(running.socket, pause))
        tally = await asyncio.to_thread(crowd.ask, requests)
        # It lasted as long as they did.
        assert not behaving.done()
        behaving.cancel()
        await asyncio.wait([behaving])
        assert tally.wrong == []
        assert tally.requests >= requests
        assert await asyncio.to_thread(held_when_idle, running) == before


# --- the end ---


async def test_a_stop_under_full_load_answers_everybody(folder: Path) -> None:
    with daemon(folder, None) as running, Crowd(running.socket, ending=True) as crowd:
        began = running.cpu_seconds()
        crowd.begin(1_000_000)
        await until(lambda: running.cpu_seconds() > began + 1)
        running.terminate()
        assert await asyncio.to_thread(running.wait) == 0
        tally = await asyncio.to_thread(crowd.end)
        assert "Traceback" not in running.log()
    assert tally.wrong == []
    assert 0 < tally.requests < 1_000_000
    assert len(crowd.remembered) > 64
    with daemon(folder, None) as running, Caller(running.socket) as caller:
        for migration, outcome in crowd.remembered:
            operation = await caller.result("status", migration=migration)
            assert operation["report"]["outcome"] == outcome
        states = {each["state"] for each in await caller.listed()}
    assert states <= {"restored", "failed", "cancelled"}
