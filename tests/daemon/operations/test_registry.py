"""How many operations there may be, and what is told and forgotten past that."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemon.lending import held
from tests.daemon.support import Caller, Json, is_error, is_report, serving, software, vlans
from tests.daemon.targets.slow_target import SlowTarget
from tests.support.users import ALICE, BOB, open_folder, users
from vdpad.daemon.daemon import Service
from vdpad.daemon.operations.changes import Changes
from vdpad.daemon.operations.operations import Operations
from vdpad.daemon.operations.running import RunningCommits
from vdpad.daemon.records.directory import Records
from vdpad.daemon.settings import Limits, Replay, Settings
from vdpad.service.refusal import Refusal


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


LARGE = vlans([0, 4095])


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
            assert "1 operation is prepared or committing" in error["message"]
            assert error["message"].endswith("can be cancelled: ask again when some have ended")


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
            error = await caller.error("prepare", **wish("vm-2", vlans(1)))
            assert is_error(error, "overloaded", "migration")
            assert error["data"]["migration"] == "vm-1"
            assert is_report(await caller.result("commit", migration="vm-1"), "restored")
            await caller.result("prepare", **wish("vm-2", vlans(1)))
            assert [each["migration"] for each in await caller.listed()] == ["vm-2"]


async def test_by_memory_the_one_is_named_whose_end_makes_room(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"memory_mib": 2}) as path:
        with Caller(path) as caller:
            await caller.result("prepare", **wish("small", vlans(1)))
            assert await _prepared(caller, "large", LARGE) > 2
            error = await caller.error("prepare", **wish("vm-1", vlans(1)))
            assert error["data"]["migration"] == "large-0"
            assert error["message"].endswith("large-0 is the first that is large enough")
            await caller.result("cancel", migration="large-0")
            await caller.result("prepare", **wish("vm-1", vlans(1)))


@pytest.mark.parametrize("limit", ["operations_at_once", "operations_kept"])
async def test_where_one_is_not_enough_none_is_named(tmp_path: Path, limit: str) -> None:
    settings = {"socket": tmp_path / "vdpad.sock"}
    service = Service(Settings.model_validate(settings))
    await service.start()
    try:
        with Caller(settings["socket"]) as caller:
            for number in range(4):
                await caller.result("prepare", **wish(f"vm-{number}", vlans(1)))
            service.reload(lambda: Settings.model_validate({**settings, "limits": {limit: 3}}))
            error = await caller.error("prepare", **wish("vm-x", vlans(1)))
            assert is_error(error, "overloaded")
            assert limit in error["message"]
            assert error["message"].endswith("; one of yours is not enough")
    finally:
        await service.stop()


# --- shares ---


async def test_what_one_user_has_prepared_leaves_room_for_another(folder: Path) -> None:
    """As much as he may, and for another a third of all."""
    limits = {"operations_at_once": 8}
    with users(ALICE, BOB) as made, ExitStack() as stack:
        async with serving(folder, socket_mode="0666", limits=limits) as path:
            alice, bob = (stack.enter_context(Caller(path, "", user)) for user in made)
            assert await _prepared(alice, "a") == 8
            assert await _prepared(bob, "b") == 2
            error = await bob.error("prepare", **wish("b-x", vlans(1)))
            assert is_error(error, "overloaded", "migration")
            assert error["data"]["migration"] == "b-0"
            assert "2 operations are prepared or committing, beside 8 of other" in error["message"]
            await bob.result("commit", migration="b-0")
            assert await _prepared(bob, "c") == 1


async def test_what_one_user_s_take_of_memory_leaves_some_too(folder: Path) -> None:
    with users(ALICE, BOB) as made, ExitStack() as stack:
        async with serving(folder, socket_mode="0666", limits={"memory_mib": 2}) as path:
            alice, bob = (stack.enter_context(Caller(path, "", user)) for user in made)
            assert await _prepared(alice, "a", LARGE) > 2
            assert (await bob.result("restore", **wish("b", vlans(1))))["outcome"] == "restored"


async def test_where_only_others_have_any_none_is_named_and_an_operator_is(folder: Path) -> None:
    with users(ALICE, BOB) as made, ExitStack() as stack:
        async with serving(folder, socket_mode="0666", limits={"operations_kept": 2}) as path:
            alice, bob = (stack.enter_context(Caller(path, "", user)) for user in made)
            assert await _prepared(alice, "a") == 2
            error = await bob.error("prepare", **wish("b", vlans(1)))
            assert is_error(error, "overloaded")
            assert "have an operator cancel what other users prepared" in error["message"]


async def test_many_records_of_one_user_push_out_none_of_another(folder: Path) -> None:
    limits = {"operations_kept": 6}
    with users(ALICE, BOB) as made, ExitStack() as stack:
        async with serving(folder, socket_mode="0666", limits=limits) as path:
            alice, bob = (stack.enter_context(Caller(path, "", user)) for user in made)
            for number in range(2):
                await alice.result("restore", **wish(f"a-{number}", vlans(number)))
            for number in range(20):
                await bob.result("restore", **wish(f"b-{number}", vlans(number)))
            assert [each["migration"] for each in await alice.listed()] == ["a-1", "a-0"]
            kept = [each["migration"] for each in await bob.listed()]
            assert kept == ["b-19", "b-18", "b-17", "b-16"]


async def _prepared(caller: Caller, name: str, state: Json | None = None) -> int:
    """How many can be prepared until there is no room."""
    for number in range(100):
        reply = await caller.call("prepare", **wish(f"{name}-{number}", state or vlans(1)))
        if "error" in reply:
            assert reply["error"]["data"]["kind"] == "overloaded"
            return number
    raise AssertionError("there is no end")
