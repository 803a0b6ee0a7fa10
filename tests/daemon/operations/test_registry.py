"""How many operations there may be, and what is told and forgotten past that."""

import asyncio
from pathlib import Path

import pytest

from tests.daemon.lending import held
from tests.daemon.support import Caller, Json, is_error, is_report, serving, software, vlans
from tests.daemon.targets.slow_target import SlowTarget
from vdpad.daemon.operations.changes import Changes
from vdpad.daemon.operations.operations import Operations
from vdpad.daemon.operations.running import RunningCommits
from vdpad.daemon.records.directory import Records
from vdpad.daemon.settings import Limits, Replay
from vdpad.service.refusal import Refusal


def wish(migration: str, state: Json) -> Json:
    return {"migration": migration, "state": state, "target": software()}


async def test_operations_past_the_limit_are_overloaded_until_some_end(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"operations_at_once": 2}) as path:
        with Caller(path) as caller:
            for name in ("vm-1", "vm-2"):
                await caller.result("prepare", **wish(name, vlans(1)))
            for method in ("prepare", "restore"):
                error = await caller.error(method, **wish("vm-3", vlans(1)))
                assert is_error(error, "overloaded", "migration")
                assert error["data"]["migration"] == "vm-1"
                assert "2 operations are prepared or committing" in error["message"]
                assert (
                    "`cancel` gives up what is prepared; vm-1 was prepared first"
                    in (error["message"])
                )
            await caller.result("prepare", **wish("vm-1", vlans(1)))
            await caller.result("commit", migration="vm-1")
            assert is_report(await caller.result("restore", **wish("vm-3", vlans(1))), "restored")
            await caller.result("prepare", **wish("vm-4", vlans(1)))
            error = await caller.error("prepare", **wish("vm-5", vlans(1)))
            assert is_error(error, "overloaded", "migration")
            assert error["data"]["migration"] == "vm-2"
            await caller.result("cancel", migration="vm-2")
            await caller.result("prepare", **wish("vm-5", vlans(1)))


async def test_where_none_is_prepared_none_is_named_to_be_cancelled(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"operations_at_once": 1}) as path, held(path):
        with Caller(path) as caller:
            error = await caller.error("prepare", **wish("vm-2", vlans(1)))
            assert is_error(error, "overloaded")
            assert error["message"].endswith("gives up what is prepared")


async def test_what_is_being_prepared_counts() -> None:
    slow_to_come = SlowTarget()
    limits = Limits.model_validate({"operations_at_once": 2})
    operations = Operations(limits, Replay(), Records(None), RunningCommits(), Changes())
    preparing = [
        asyncio.create_task(operations.prepare(slow_to_come.wish(f"vm-{number}")))
        for number in range(2)
    ]
    await slow_to_come.until_asked(2)
    with pytest.raises(Refusal, match="2 operations are prepared or committing"):
        await operations.prepare(slow_to_come.wish("vm-3"))
    await operations.stop()
    await asyncio.gather(*preparing, return_exceptions=True)


async def test_what_is_being_prepared_counts_as_kept(tmp_path: Path) -> None:
    """Else many at once would be more than are kept."""
    limits = {"operations_at_once": 8, "operations_kept": 3}
    slow_to_come = SlowTarget()
    operations = Operations(
        Limits.model_validate(limits), Replay(), Records(None), RunningCommits(), Changes()
    )
    preparing = [
        asyncio.create_task(operations.prepare(slow_to_come.wish(f"vm-{number}")))
        for number in range(3)
    ]
    await slow_to_come.until_asked(3)
    with pytest.raises(Refusal, match="operations_kept"):
        await operations.prepare(slow_to_come.wish("vm-3"))
    await operations.stop()
    await asyncio.gather(*preparing, return_exceptions=True)


async def test_the_oldest_that_have_ended_are_forgotten_first(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"operations_kept": 3}) as path:
        with Caller(path) as caller:
            await caller.result("prepare", **wish("waits", vlans(1)))
            for number in range(4):
                await caller.result("restore", **wish(f"vm-{number}", vlans(1)))
            known = [each["migration"] for each in await caller.listed()]
            assert known == ["vm-3", "vm-2", "waits"]
            assert is_error(await caller.error("status", migration="vm-0"), "no-such-migration")


async def test_records_of_what_has_not_ended_are_never_forgotten(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"operations_kept": 1}) as path:
        with Caller(path) as caller:
            await caller.result("prepare", **wish("vm-1", vlans(1)))
            assert is_error(await caller.error("prepare", **wish("vm-2", vlans(1))), "overloaded")
            assert is_report(await caller.result("commit", migration="vm-1"), "restored")
            await caller.result("prepare", **wish("vm-2", vlans(1)))
            assert [each["migration"] for each in await caller.listed()] == ["vm-2"]
