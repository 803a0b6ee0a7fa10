"""Which commits run, and what waits for them."""

import asyncio

import pytest

from tests.support.waiting import GUARD
from vdpad.daemon.operations.running import RunningCommits


@pytest.fixture
def running() -> RunningCommits:
    return RunningCommits()


def test_who_has_a_device(running: RunningCommits) -> None:
    assert (len(running), running.owner("sim0")) == (0, None)
    running.add("sim0", "vm-1")
    running.add(("memory", 7), "vm-2")
    assert (running.owner("sim0"), running.owner(("memory", 7))) == ("vm-1", "vm-2")
    running.remove("sim0")
    assert (len(running), running.owner("sim0")) == (1, None)


async def test_where_none_runs_nobody_waits(running: RunningCommits) -> None:
    running.add("sim0", "vm-1")
    running.remove("sim0")
    async with asyncio.timeout(GUARD):
        await running.until_idle()


async def test_it_waits_for_the_last(
    running: RunningCommits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vdpad.daemon.operations.running._MAX_COURTESY", 2 * GUARD)
    running.add("sim0", "vm-1")
    running.add("sim1", "vm-2")
    waiting = asyncio.create_task(running.until_idle())
    for device in ("sim0", "sim1"):
        await asyncio.sleep(0.01)
        assert not waiting.done()
        running.remove(device)
    async with asyncio.timeout(GUARD):
        await waiting


async def test_a_commit_that_does_not_end_holds_nobody_up(
    running: RunningCommits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vdpad.daemon.operations.running._MAX_COURTESY", 0.01)
    running.add("sim0", "vm-1")
    async with asyncio.timeout(GUARD):
        await running.until_idle()
    assert running.owner("sim0") == "vm-1"


async def test_nor_those_who_come_when_it_has_had_its_moment(
    running: RunningCommits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vdpad.daemon.operations.running._MAX_COURTESY", 0.01)
    running.add("sim0", "vm-1")
    assert running.is_waited_for
    await running.until_idle()
    assert not running.is_waited_for
    coming = running.until_idle()
    # It does not suspend at all.
    with pytest.raises(StopIteration):
        coming.send(None)
    running.add("sim1", "vm-2")
    assert running.is_waited_for
