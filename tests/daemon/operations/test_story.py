"""What a daemon tells of the migrations that it is asked for: one event a stage."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.lending import held_wish, lending
from tests.daemon.support import (
    STATE,
    STATE_COMMANDS,
    Caller,
    Json,
    faulty,
    request,
    slow,
    software,
    vlans,
)
from tests.support.waiting import GUARD, until
from vdpad.daemon.daemon import Service
from vdpad.daemon.events.operations import (
    Broken,
    Cancelled,
    CommitFailed,
    Committing,
    Incomplete,
    Prepared,
    Rejected,
    Restored,
)
from vdpad.daemon.events.requests import RequestRefused
from vdpad.daemon.settings import Settings
from vdpad.service.endpoints import endpoint as endpoints
from vdpad.service.events import announcing
from vdpad.service.events.event import Event, fields_of
from vdpad.service.events.kinds import FileNotWritten, InternalError, NotAllowed, SocketError


@asynccontextmanager
async def telling(folder: Path, **settings: Any) -> AsyncIterator[tuple[Caller, list[Event]]]:
    """Someone to ask a daemon, and what the daemon tells once it listens."""
    path = folder / "vdpad.sock"
    service = Service(Settings.model_validate({"socket": path, **settings}))
    await service.start()
    told: list[Event] = []
    service.announce.listeners.append(told.append)
    try:
        with Caller(path) as caller:
            yield caller, told
        service.announce.flush()
        assert service.announce.failures == 0
    finally:
        service.announce.listeners.remove(told.append)
        async with asyncio.timeout(GUARD):
            await service.stop()


def wish(migration: str = "vm-7", state: Json = STATE, target: Json | None = None) -> Json:
    return {"migration": migration, "state": state, "target": target or software()}


# --- stages ---


async def test_for_whom_it_was_prepared_is_told(tmp_path: Path) -> None:
    async with telling(tmp_path) as (caller, told):
        await caller.result("prepare", **wish("vm-7"), committer=0)
        await caller.result("prepare", **wish("vm-8"))
    named, unnamed = [each for each in told if isinstance(each, Prepared)]
    assert fields_of(named)["committer"] == 0
    assert "committer" not in fields_of(unnamed)


async def test_a_restore_is_prepared_committing_and_restored(tmp_path: Path) -> None:
    async with telling(tmp_path) as (caller, told):
        report = await caller.result("restore", **wish())
    prepared, committing, restored = told
    named = ("vm-7", "software", "sim0")
    assert prepared == Prepared(*named, STATE_COMMANDS, 1, report["prepare_us"], ())
    assert committing == Committing(*named, STATE_COMMANDS)
    assert restored == Restored(
        *named,
        outcome="restored",
        commands=STATE_COMMANDS,
        applied=STATE_COMMANDS,
        rejected=0,
        unanswered=0,
        command=(),
        doorbells=report["doorbells"],
        prepare_us=report["prepare_us"],
        commit_us=report["commit_us"],
        device_must_reset=False,
        fault="",
        acks=restored.acks if isinstance(restored, Restored) else {},
    )


async def test_a_repetition_tells_nothing_anew(tmp_path: Path) -> None:
    async with telling(tmp_path, software=[faulty("err", 0)]) as (caller, told):
        await caller.error("restore", **wish())
        await until(lambda: len(told) == 3)
        for _ in range(3):
            await caller.error("restore", **wish())
            await caller.error("commit", migration="vm-7")
            await caller.result("prepare", **wish())
            await caller.result("cancel", migration="vm-7")
            await caller.result("status", migration="vm-7")
    assert len(told) == 3


async def test_what_the_device_refused_is_told_by_name_with_arguments(tmp_path: Path) -> None:
    async with telling(tmp_path, software=[faulty("err", 1, 2)]) as (caller, told):
        await caller.error("restore", **wish(state=vlans(40, 41, 42, 43)))
    end = told[-1]
    assert isinstance(end, Rejected)
    assert end.command == ("VLAN_ADD vid=41", "VLAN_ADD vid=42")
    assert (end.applied, end.rejected, end.unanswered) == (2, 2, 0)
    assert end.acks == {("VLAN_ADD", "ok"): 2, ("VLAN_ADD", "err"): 2}
    assert "refused 2 of 4 commands: VLAN_ADD vid=41, VLAN_ADD vid=42" in end.sentence()


async def test_what_the_device_left_unanswered_is_told_after_what_it_refused(
    tmp_path: Path,
) -> None:
    device = {"name": "sim0", "misbehave": {"faults": {"0": "err", "2": "silence"}}}
    async with telling(tmp_path, software=[device]) as (caller, told):
        await caller.error("restore", **wish(state=vlans(40, 41, 42)), deadline_ms=200)
    end = told[-1]
    assert isinstance(end, Incomplete)
    assert end.command == ("VLAN_ADD vid=40", "VLAN_ADD vid=42")
    assert end.device_must_reset
    assert end.acks == {("VLAN_ADD", ack): 1 for ack in ("ok", "err", "none")}
    assert "left 1 of 3 commands unanswered by the deadline: VLAN_ADD vid=42" in end.sentence()


async def test_how_a_device_broke_the_rules_is_told(tmp_path: Path) -> None:
    async with telling(tmp_path, software=[faulty("id-out-of-range", 1)]) as (caller, told):
        error = await caller.error("restore", **wish(state=vlans(40, 41, 42)))
    end = told[-1]
    assert isinstance(end, Broken)
    assert end.fault
    assert end.fault in error["message"]
    assert end.fault in end.sentence()


async def test_a_long_list_is_cut_and_its_totals_are_not(tmp_path: Path) -> None:
    device = faulty("err", *range(200))
    async with telling(tmp_path, software=[device]) as (caller, told):
        await caller.error("restore", **wish(state=vlans([1, 300])))
    end = told[-1]
    assert isinstance(end, Rejected)
    assert (len(end.command), end.rejected) == (64, 200)
    assert end.acks == {("VLAN_ADD", "ok"): 100, ("VLAN_ADD", "err"): 200}
    assert end.sentence().endswith(", …")


async def test_widening_is_told_when_it_is_prepared(tmp_path: Path) -> None:
    state = {
        "version": 1,
        "features": ["CTRL_VQ", "CTRL_RX", "CTRL_RX_EXTRA"],
        "mac_table": {"unicast": [], "multicast": [], "unicast_overflow": True},
    }
    async with telling(tmp_path) as (caller, told):
        operation = await caller.result("prepare", **wish(state=state))
    (prepared,) = told
    assert isinstance(prepared, Prepared)
    assert prepared.widened == tuple(operation["widened"])
    assert prepared.widened[0] in prepared.sentence()


async def test_a_cancellation_is_told_once(tmp_path: Path) -> None:
    async with telling(tmp_path) as (caller, told):
        await caller.result("prepare", **wish())
        await caller.result("cancel", migration="vm-7")
        await caller.result("cancel", migration="vm-7")
    assert told[1:] == [Cancelled("vm-7", "software", "sim0")]


async def test_a_lent_ring_has_no_device_of_a_name(tmp_path: Path) -> None:
    async with telling(tmp_path) as (caller, told), lending() as lender:
        await caller.result("restore", lender.fds, **wish(target=lender.target))
    end = told[-1]
    assert isinstance(end, Restored)
    assert (end.target, end.device) == ("lent", "")
    assert "on a lent ring" in end.sentence()


async def test_nothing_is_told_while_commands_are_under_way(tmp_path: Path) -> None:
    async with telling(tmp_path) as (caller, told), lending(start=False) as lender:
        await caller.send(b"", lender.fds)  # its error says nothing of a migration
        await caller.receive()
        task = asyncio.create_task(caller.call("restore", lender.fds, **held_wish(lender, "vm-7")))
        await until(lambda: any(isinstance(each, Committing) for each in told))
        before = len(told)
        lender.device.start()
        await task
    assert [type(each) for each in told[before:]] == [Restored]
    assert type(told[before - 1]) is Committing


async def test_no_guest_waits_for_what_is_told_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "_SOON", GUARD)
    async with telling(tmp_path) as (caller, told):
        await caller.result("restore", **wish())
        assert told == []
    assert [type(each) for each in told] == [Prepared, Committing, Restored]


async def test_a_fault_of_the_daemons_own_in_a_commit_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise ValueError("no")

    monkeypatch.setattr("vdpad.daemon.operations.commits.replay", fail)
    async with telling(tmp_path) as (caller, told):
        await caller.error("restore", **wish())
    failed, internal = told[-2:]
    assert isinstance(failed, CommitFailed)
    assert (failed.migration, failed.outcome) == ("vm-7", "failed")
    assert isinstance(internal, InternalError)
    assert internal.exc_info is failed.exc_info
    assert internal.pid == os.getpid()


async def test_a_listener_that_fails_fails_no_commit(tmp_path: Path) -> None:
    def fail(_: Event) -> None:
        raise ValueError

    path = tmp_path / "vdpad.sock"
    service = Service(Settings(socket=path))
    await service.start()
    service.announce.listeners.append(fail)
    try:
        with Caller(path) as caller:
            assert (await caller.result("restore", **wish()))["outcome"] == "restored"
            assert (await caller.result("status", migration="vm-7"))["state"] == "restored"
        service.announce.flush()
        assert service.announce.failures == 3
    finally:
        await service.stop()


async def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "sim0.json"
    device = {"name": "sim0", "state_file": str(file)}
    async with telling(tmp_path, software=[device]) as (caller, told):
        await caller.result("restore", **wish())
        await until(lambda: len(told) == 4)
    assert told[-1] == FileNotWritten(str(file), "No such file or directory")


def test_an_error_on_the_socket_is_told() -> None:
    told: list[Event] = []
    queue: asyncio.Queue[Any] = asyncio.Queue()
    protocol = endpoints._BoundedProtocol(
        queue, queue, asyncio.Event(), lambda _data, _peer: None, told.append, "/vdpad"
    )
    protocol.error_received(OSError("odd"))
    assert told == [SocketError("odd")]


# --- refusals ---


async def test_what_a_device_cannot_take_is_told_with_all_reasons(tmp_path: Path) -> None:
    state = {**STATE, "queue_pairs": 64, "rss": {**STATE["rss"], "max_tx_queues": 64}}
    async with telling(tmp_path) as (caller, told):
        error = await caller.error("prepare", **wish(state=state))
    (refused,) = told
    assert isinstance(refused, RequestRefused)
    assert (refused.migration, refused.method) == ("vm-7", "prepare")
    assert (refused.target, refused.device) == ("software", "sim0")
    assert (refused.error, refused.reason) == ("incompatible", error["message"])
    problems = error["data"]["problems"]
    assert refused.problem == tuple(f"{each['path']}: {each['message']}" for each in problems)
    assert len(refused.problem) > 1


async def test_who_has_the_device_is_told(tmp_path: Path) -> None:
    async with telling(tmp_path, software=[slow(1)]) as (caller, told):
        await caller.result("prepare", **wish("vm-8", vlans(1)))
        await caller.result("prepare", **wish("vm-9", vlans(1)))
        await caller.send(request("commit", "vm-8", migration="vm-8"))
        await caller.error("commit", migration="vm-9")
        refused = told[-1]
        assert isinstance(refused, RequestRefused)
        assert (refused.migration, refused.error) == ("vm-9", "busy")
        assert "vm-8" in refused.reason
        assert (await caller.receive())["result"]["outcome"] == "restored"


async def test_what_was_lent_badly_is_told(tmp_path: Path) -> None:
    async with telling(tmp_path) as (caller, told), lending() as lender:
        await caller.result("prepare", **wish(target=lender.target))
        error = await caller.error("commit", migration="vm-7")
        assert (told[-1], type(told[-1])) == (
            RequestRefused("commit", "bad-lend", error["message"], migration="vm-7"),
            RequestRefused,
        )


@pytest.mark.parametrize("method", ["status", "check", "devices", "info"])
async def test_a_request_that_would_have_done_nothing_is_not_told(
    tmp_path: Path, method: str
) -> None:
    async with telling(tmp_path) as (caller, told):
        await caller.error(method, migration="vm-7", nonsense=1)
        await caller.error("status", migration="vm-7")
        await caller.error("nonsense")
    assert told == []


async def test_nothing_that_a_sender_made_up_is_told(tmp_path: Path) -> None:
    forged = "forged\nMESSAGE=forged"
    async with telling(tmp_path) as (caller, told):
        await caller.error("prepare", **{**wish(forged), forged: forged})
        await caller.error("prepare", **{**wish("vm-7"), forged: forged})
        await caller.error("release", device=forged)
        await caller.error("prepare", migration=[forged], target={"kind": forged, "name": forged})
        await caller.error("prepare", migration="vm-7", target=[forged])
    assert len(told) == 5
    assert "forged" not in repr(told)
    assert [each.migration for each in told if isinstance(each, RequestRefused)] == [
        *("", "vm-7", "", "", "vm-7"),
    ]


async def test_who_may_not_speak_is_told(tmp_path: Path) -> None:
    async with telling(tmp_path, allowed_uids=[os.getuid() + 1]) as (caller, told):
        error = await caller.error("status", migration="vm-7")
    assert told == [NotAllowed("status", error["message"], "vm-7")]
