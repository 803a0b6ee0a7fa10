"""When the records of what has ended are made small: some time after, and while no commit runs."""

import asyncio
from pathlib import Path

import pytest

from tests.daemon.lending import held
from tests.daemon.support import Caller, serving, software, vlans
from tests.support.waiting import GUARD, until
from vdpad.daemon.operations.bookkeeping import Bookkeeping

SMALL = 4096
SOON = 0.01


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vdpad.daemon.operations.bookkeeping._SETTLES_AFTER", SOON)


async def restore(caller: Caller, *migrations: str) -> None:
    for migration in migrations:
        wish = {"migration": migration, "state": vlans([1, 4094]), "target": software()}
        await caller.result("restore", **wish)


def large(folder: Path) -> int:
    """How many records are."""
    return sum(path.stat().st_size > SMALL for path in folder.iterdir())


async def test_all_are_made_small_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "operations"
    async with serving(tmp_path, records={"directory": folder}) as path:
        with Caller(path) as caller:
            for names in (("a", "b", "c"), ("d", "e")):
                await restore(caller, *names)
                await until(lambda: large(folder) == 0)
            status = await caller.listed()
    assert len(list(folder.iterdir())) == 5
    async with serving(tmp_path, records={"directory": folder}) as path:
        with Caller(path) as caller:
            assert await caller.listed() == status


async def test_it_waits_for_commits_that_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vdpad.daemon.operations.running._MAX_COURTESY", GUARD)
    folder = tmp_path / "operations"
    async with serving(tmp_path, records={"directory": folder}) as path:
        async with held(path):
            with Caller(path) as caller:
                await restore(caller, "a")
                await asyncio.sleep(10 * SOON)
                assert large(folder) == 1
        await until(lambda: large(folder) == 0)


async def test_a_commit_that_does_not_end_keeps_no_record_large(tmp_path: Path) -> None:
    folder = tmp_path / "operations"
    async with serving(tmp_path, records={"directory": folder}) as path, held(path):
        with Caller(path) as caller:
            await restore(caller, "a")
            await until(lambda: large(folder) == 0)


async def test_one_timer_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0

    def turn(_: Bookkeeping) -> None:
        nonlocal turns
        turns += 1

    monkeypatch.setattr(Bookkeeping, "_settle_in_peace", turn)
    async with serving(tmp_path, records={"directory": tmp_path / "operations"}) as path:
        with Caller(path) as caller:
            await restore(caller, "a", "b", "c")
            await asyncio.sleep(3 * SOON)
    assert turns == 1
