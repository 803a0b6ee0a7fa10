"""An operation is whose it was prepared for: nobody else commits it, ends it, or sees it."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.lending import lending
from tests.daemon.support import (
    Caller,
    Json,
    is_error,
    is_operation,
    request,
    serving,
    software,
    until_state,
    vlans,
)
from tests.support.users import ALICE, BOB, CAROL, User, open_folder, users

NAMES = {"alice": ALICE, "bob": BOB, "carol": CAROL}


class Host:
    """Users, each with a socket to ask a daemon that everybody may open."""

    def __init__(self, path: Path, made: list[User], stack: ExitStack) -> None:
        callers = [stack.enter_context(Caller(path, "", user)) for user in made]
        self.alice, self.bob, self.carol = callers
        self.root = stack.enter_context(Caller(path))


@asynccontextmanager
async def host(folder: Path, **settings: Any) -> AsyncIterator[Host]:
    """A daemon, and who asks it."""
    with users(ALICE, BOB, CAROL) as made, ExitStack() as stack:
        async with serving(folder, socket_mode="0666", **settings) as path:
            yield Host(path, made, stack)


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


def wish(migration: str = "vm-1", **more: Any) -> Json:
    return {"migration": migration, "state": vlans(1), "target": software(), **more}


async def test_what_another_prepared_is_not_one_s_own(folder: Path) -> None:
    async with host(folder) as there:
        prepared = await there.alice.result("prepare", **wish())
        for method in ("commit", "cancel", "status"):
            error = await there.bob.error(method, migration="vm-1")
            assert is_error(error, "not-allowed")
            assert f"uid {BOB}" in error["message"]
        for method in ("prepare", "restore"):
            for state in (vlans(1), vlans(2)):
                error = await there.bob.error(method, **{**wish(), "state": state})
                assert is_error(error, "not-allowed")
        assert await there.alice.result("status", migration="vm-1") == prepared
        assert (await there.alice.result("commit", migration="vm-1"))["outcome"] == "restored"
        assert is_error(await there.bob.error("commit", migration="vm-1"), "not-allowed")


async def test_who_it_was_prepared_for_may_commit_it(folder: Path) -> None:
    async with host(folder) as there:
        prepared = await there.alice.result("prepare", **wish(committer=BOB))
        assert await there.bob.result("status", migration="vm-1") == prepared
        assert is_error(await there.carol.error("commit", migration="vm-1"), "not-allowed")
        assert (await there.bob.result("commit", migration="vm-1"))["outcome"] == "restored"
        status = await there.alice.result("status", migration="vm-1")
        assert is_operation(status, "restored", "restored")


@pytest.mark.parametrize("name", ["alice", "bob"])
async def test_both_may_cancel_and_prepare_it_again(folder: Path, name: str) -> None:
    async with host(folder) as there:
        prepared = await there.alice.result("prepare", **wish(committer=BOB))
        caller: Caller = getattr(there, name)
        assert await caller.result("prepare", **wish()) == prepared
        assert is_operation(await caller.result("cancel", migration="vm-1"), "cancelled")


async def test_the_same_for_another_committer_is_a_conflict(folder: Path) -> None:
    async with host(folder) as there:
        digest = (await there.alice.result("prepare", **wish(committer=BOB)))["digest"]
        error = await there.alice.error("prepare", **wish(committer=CAROL))
        assert is_error(error, "conflict", "digest")
        assert error["data"]["digest"] == digest
        assert f"another committer, uid {BOB}" in error["message"]
        assert is_error(await there.carol.error("commit", migration="vm-1"), "not-allowed")


async def test_only_prepare_names_a_committer(folder: Path) -> None:
    async with host(folder) as there:
        for method in ("commit", "restore", "cancel"):
            params = wish() if method == "restore" else {"migration": "vm-1"}
            error = await there.alice.error(method, **params, committer=BOB)
            assert is_error(error, "invalid-params", "problems")
        for committer in (-1, 2**32 - 1, "bob", True, 1.0):
            error = await there.alice.error("prepare", **wish(), committer=committer)
            assert is_error(error, "invalid-params", "problems")


async def test_a_list_has_what_is_one_s_own(folder: Path) -> None:
    async with host(folder) as there:
        await there.alice.result("prepare", **wish("vm-1"))
        await there.alice.result("prepare", **wish("vm-2", committer=BOB))
        await there.bob.result("prepare", **wish("vm-3"))
        for caller, names in (
            (there.alice, ["vm-2", "vm-1"]),
            (there.bob, ["vm-3", "vm-2"]),
            (there.carol, []),
            (there.root, ["vm-3", "vm-2", "vm-1"]),
        ):
            listed = await caller.result("status")
            assert [each["migration"] for each in listed["operations"]] == names
            assert listed["total"] == len(names)
        error = await there.bob.error("status", after="vm-1")
        assert is_error(error, "no-such-migration")


@pytest.mark.parametrize("operators", [{"users": [CAROL]}, {"groups": [CAROL]}], ids=str)
async def test_operators_may_what_owners_may(folder: Path, operators: Json) -> None:
    async with host(folder, operators=operators) as there:
        await there.alice.result("prepare", **wish("vm-1"))
        await there.alice.result("prepare", **wish("vm-2"))
        for caller, name in ((there.carol, "vm-1"), (there.root, "vm-2")):
            assert len(await caller.listed()) == 2
            assert is_operation(await caller.result("status", migration=name), "prepared")
            assert is_operation(await caller.result("cancel", migration=name), "cancelled")
        assert is_error(await there.bob.error("cancel", migration="vm-1"), "not-allowed")


async def test_while_it_is_being_prepared_it_is_one_s_own_too(folder: Path) -> None:
    async with host(folder) as there:
        await there.alice.send(request("prepare", 1, **wish()))
        await there.bob.send(request("prepare", 1, **wish()))
        first, second = await asyncio.gather(there.alice.receive(), there.bob.receive())
        assert first["result"]["state"] == "prepared"
        assert is_error(second["error"], "not-allowed")


async def test_whose_it_is_outlives_the_daemon(folder: Path) -> None:
    records = {"directory": folder / "operations"}
    async with host(folder, records=records) as there:
        await there.alice.result("prepare", **wish("vm-1", committer=BOB))
        await there.alice.result("restore", **wish("vm-2"))
    async with host(folder, records=records) as there:
        assert len(await there.alice.listed()) == 2
        (seen,) = await there.bob.listed()
        assert seen["migration"] == "vm-1"
        assert is_error(await there.bob.error("restore", **wish("vm-2")), "not-allowed")
        # What may be prepared again is for the same two, whoever of them does it.
        assert is_error(await there.carol.error("prepare", **wish()), "not-allowed")
        await there.bob.result("prepare", **wish())
        assert (await there.alice.result("commit", migration="vm-1"))["outcome"] == "restored"


# --- another ring ---


async def test_who_lends_another_ring_is_never_told_that_it_was_restored(path: Path) -> None:
    async with AsyncExitStack() as stack:
        caller = stack.enter_context(Caller(path))
        first, second = [await stack.enter_async_context(lending()) for _ in range(2)]
        asked = {"migration": "vm-1", "state": vlans(1), "target": first.target}
        report = await caller.result("restore", first.fds, **asked)
        assert report["outcome"] == "restored"
        for method, params in (("restore", asked), ("commit", {"migration": "vm-1"})):
            for fds in (
                second.fds,
                [first.fds[0], *second.fds[1:]],
                [second.fds[0], *first.fds[1:]],
                [first.fds[0], first.fds[2], first.fds[1]],
            ):
                error = await caller.error(method, fds, **params)
                assert is_error(error, "conflict", "digest")
                assert "another ring" in error["message"]
            # The same again, also by copies, and by who lends nothing.
            copies = [os.dup(fd) for fd in first.fds]
            assert await caller.result(method, copies, **params) == report
            assert await caller.result(method, **params) == report
            for fd in copies:
                os.close(fd)
        assert second.indices() == (0, 0)


async def test_nor_while_the_first_is_being_worked_on(path: Path) -> None:
    async with AsyncExitStack() as stack:
        caller = stack.enter_context(Caller(path))
        other = stack.enter_context(Caller(path))
        first = await stack.enter_async_context(lending(start=False))
        second = await stack.enter_async_context(lending())
        asked = {"migration": "vm-1", "state": vlans(1), "target": first.target}
        going = asyncio.create_task(caller.result("restore", first.fds, **asked))
        await until_state(other, "vm-1", "committing")
        error = await other.error("commit", second.fds, migration="vm-1")
        assert is_error(error, "conflict", "digest")
        first.device.start()
        assert (await going)["outcome"] == "restored"


async def test_nor_by_the_next_daemon(tmp_path: Path) -> None:
    records = {"directory": tmp_path / "operations"}
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(lending()) for _ in range(2)]
        asked = {"migration": "vm-1", "state": vlans(1), "target": first.target}
        async with serving(tmp_path, records=records) as path:
            with Caller(path) as caller:
                report = await caller.result("restore", first.fds, **asked)
        async with serving(tmp_path, records=records) as path:
            with Caller(path) as caller:
                error = await caller.error("commit", second.fds, migration="vm-1")
                assert is_error(error, "conflict", "digest")
                assert await caller.result("commit", first.fds, migration="vm-1") == report
