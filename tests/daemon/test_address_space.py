"""RLIMIT_AS: below what it may need the daemon says so and does not start; at that it works."""

import asyncio
import re
import shlex
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.daemon.lending import lending
from tests.daemon.support import Caller, Json, is_report, software, vlans
from tests.daemon.test_reload import reloaded
from tests.support.daemon import ROOT, VDPAD, Daemon, running
from tests.support.marks import in_bulk
from tests.support.waiting import GUARD
from vdpad.daemon.address_space import needed_mib
from vdpad.daemon.settings import Limits, Settings

# Of a command for each VLAN, as large as a state without RSS gets.
LARGE = vlans(*range(1, 4095))

LITTLE = {"memory_mib": 16, "operations_at_once": 24}
BOUND = needed_mib(Limits(**LITTLE))


def bounded(mib: int) -> tuple[str, ...]:
    """The command line of a daemon whose address space is bounded."""
    return ("sh", "-c", f'ulimit -v {mib << 10} && exec {shlex.join(VDPAD)} "$@"', "vdpad")


@asynccontextmanager
async def running_in_little(folder: Path) -> AsyncIterator[Daemon]:
    """A daemon that has just the space that its limits may need."""
    async with running(folder, bounded(BOUND), limits=LITTLE) as daemon:
        yield daemon
        assert await asyncio.to_thread(daemon.stop) == 0


@pytest.mark.parametrize("mib", [120, 200, needed_mib(Limits()) - 1, *in_bulk([160, 300, 400])])
def test_too_little_is_refused_at_the_start(tmp_path: Path, mib: int) -> None:
    done = subprocess.run(
        [*bounded(mib), "--socket", tmp_path / "vdpad.sock"],
        capture_output=True,
        cwd=ROOT,
        timeout=GUARD,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    need = needed_mib(Settings().limits)
    assert done.stderr.startswith(f"vdpad: expected {need} MiB of address space at least, got ")
    assert re.search(rf"a bound of {mib} \(RLIMIT_AS.*limits\.memory_mib", done.stderr)
    assert not (tmp_path / "vdpad.sock").exists()


async def test_all_that_the_limits_let_in_is_answered(tmp_path: Path) -> None:
    async with running_in_little(tmp_path) as daemon:
        with Caller(daemon.socket) as caller:
            replies = [await prepared(caller, f"vm-{each}") for each in range(40)]
            kinds = {each["error"]["data"]["kind"] for each in replies if "error" in each}
            assert kinds == {"overloaded"}
            assert sum("result" in each for each in replies) > 16
            await caller.result("cancel", migration="vm-0")
            await caller.result("cancel", migration="vm-1")
            report = await caller.result(
                "restore", migration="kept", state=LARGE, target=software()
            )
            assert is_report(report, "restored")
            async with lending() as lender:
                wish = {"migration": "lent", "state": vlans(1, 2), "target": lender.target}
                report = await caller.result("restore", lender.fds, **wish)
                assert is_report(report, "restored")


async def prepared(caller: Caller, migration: str) -> Json:
    """The reply to a prepare of all there can be."""
    return await caller.call("prepare", migration=migration, state=LARGE, target=software())


async def test_datagrams_of_the_largest_size_are_answered_while_others_wait(
    tmp_path: Path,
) -> None:
    async with running_in_little(tmp_path) as daemon:
        await asyncio.gather(*(asks_for_much(daemon.socket) for _ in range(60)))
        with Caller(daemon.socket) as caller:
            assert (await caller.result("info"))["name"] == "vdpad"


async def asks_for_much(socket: Path) -> None:
    """Sends what is as long as a datagram may be, and is nothing."""
    with Caller(socket) as caller:
        error = await caller.error("check", state=[0] * 60_000, target=software())
        assert error["data"]["kind"] in ("invalid-params", "overloaded")


async def test_limits_that_do_not_fit_are_not_taken_on_a_reload(tmp_path: Path) -> None:
    config = tmp_path / "vdpad.toml"
    async with running_in_little(tmp_path) as daemon:
        with Caller(daemon.socket) as caller:
            before = (await caller.result("info"))["limits"]
            event = await reloaded(daemon, config, "[limits]\nmemory_mib = 1024\n")
            assert event["event"] == "not-reloaded"
            assert f"a bound of {BOUND} (RLIMIT_AS" in event["reason"]
            assert (await caller.result("info"))["limits"] == before
