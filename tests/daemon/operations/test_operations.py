"""What the methods give where nothing goes wrong, and an operation's life."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cases import case
from tests.daemon.lending import held, held_wish, lending
from tests.daemon.support import (
    CHECK,
    FEATURES,
    HASH_REPORT,
    MAX_DATAGRAM,
    STATE,
    STATE_COMMANDS,
    Caller,
    Json,
    faulty,
    give_small_buffers,
    has_shape,
    is_error,
    is_operation,
    is_report,
    is_summary_of,
    request,
    serving,
    slow,
    software,
    until_state,
    vlans,
)
from tests.support.lent import CONFIG


def wish(migration: str, state: Json = STATE, target: Json | None = None, **more: Any) -> Json:
    return {"migration": migration, "state": state, "target": target or software(), **more}


# --- info ---


async def test_info_tells_what_the_daemon_is_and_takes(caller: Caller) -> None:
    info = await caller.result("info")
    limits = {
        "datagram_bytes",
        "descriptors",
        "operations_at_once",
        "operations_kept",
        "report_lines",
        "deadline_ms",
        "deadline_ms_max",
    }
    assert has_shape(
        info,
        {
            "name": str,
            "version": str,
            "api": int,
            "limits": dict.fromkeys(limits, int),
            "formats": [str],
            "targets": [str],
        },
    )
    assert (info["name"], info["api"]) == ("vdpad", 1)
    assert info["limits"]["datagram_bytes"] == MAX_DATAGRAM
    assert info["limits"]["descriptors"] == 3
    assert info["limits"]["report_lines"] == 64
    assert {"software", "lent"} <= set(info["targets"])
    assert "native" in info["formats"]


async def test_info_tells_the_limits_that_are_configured(tmp_path: Path) -> None:
    limits = {"operations_at_once": 3, "operations_kept": 5}
    async with serving(tmp_path, limits=limits, replay={"deadline_ms": 1234}) as path:
        with Caller(path) as caller:
            told = (await caller.result("info"))["limits"]
    assert (told["operations_at_once"], told["operations_kept"]) == (3, 5)
    assert told["deadline_ms"] == 1234


# --- check ---


async def test_check_of_a_state_that_fits_tells_the_plan_and_touches_nothing(
    caller: Caller, tmp_path: Path
) -> None:
    check = await caller.result("check", state=STATE, target=software())
    assert has_shape(check, CHECK)
    assert check["compatible"] is True
    assert (check["problems"], check["widened"]) == ([], [])
    assert check["commands"] == STATE_COMMANDS
    assert check["doorbells"] == 1
    assert sum(step["count"] for step in check["plan"]) == STATE_COMMANDS
    assert check["plan"][0] == {"command": "MAC_ADDR_SET", "count": 1}
    assert {"command": "VLAN_ADD", "count": 4} in check["plan"]
    assert await caller.listed() == []
    assert not (tmp_path / "sim0.json").exists()


async def test_check_of_a_state_that_does_not_fit_tells_every_reason(tmp_path: Path) -> None:
    small = {
        "name": "small",
        "features": [name for name in FEATURES if name not in ("CTRL_VLAN", "CTRL_RX_EXTRA")],
        "max_queue_pairs": 2,
        "rss_max_key_size": 8,
        "rss_max_indirection_table_length": 2,
        "supported_hash_types": ["IPv6"],
    }
    async with serving(tmp_path, software=[small]) as path:
        with Caller(path) as caller:
            check = await caller.result("check", state=STATE, target=software("small"))
            errors = [
                await caller.error(method, **wish("vm-1", target=software("small")))
                for method in ("prepare", "restore")
            ]
            assert await caller.listed() == []
    assert has_shape(check, CHECK)
    assert check["compatible"] is False
    assert (check["commands"], check["doorbells"]) == (0, 0)
    assert (check["plan"], check["widened"]) == ([], [])
    assert {problem["path"] for problem in check["problems"]} == {
        "features",
        "rx.nobcast",
        "vlans",
        "queue_pairs",
        "rss.max_tx_queues",
        "rss.indirection_table",
        "rss.indirection_table.2",
        "rss.unclassified_queue",
        "rss.hash_types",
        "rss.key",
    }
    for error in errors:
        assert is_error(error, "incompatible", "problems")
        assert error["data"]["problems"] == check["problems"]


async def test_check_of_a_table_that_overflowed_tells_what_is_widened(caller: Caller) -> None:
    table = {**STATE["mac_table"], "unicast_overflow": True}
    check = await caller.result("check", state={**STATE, "mac_table": table}, target=software())
    assert check["compatible"] is True
    (sentence,) = check["widened"]
    assert "mac_table.unicast" in sentence


@pytest.mark.parametrize(
    ("name", "commands", "notes"),
    [
        ("tso_no_csum.json", 3, ["GUEST_TSO4, GUEST_TSO6 without GUEST_CSUM"]),
        ("offloads_no_cvq.json", 0, []),
        ("hash_report_no_cvq.json", 0, ["HASH_REPORT without CTRL_VQ"]),
    ],
)
async def test_features_that_real_guests_have_are_restored_with_a_note_at_most(
    caller: Caller, name: str, commands: int, notes: list[str]
) -> None:
    state = json.loads(case(name))
    check = await caller.result("check", state=state, target=software())
    told = check.pop("notes", [])
    assert has_shape(check, CHECK)
    assert (check["compatible"], check["commands"]) == (True, commands)
    assert [note.partition(", which ")[0] for note in told] == [
        f"the guest negotiated {note}" for note in notes
    ]
    report = await caller.result("restore", migration="vm-1", state=state, target=software())
    assert is_report(report, "restored")
    assert report["applied"] == commands


# --- prepare, commit, restore ---


async def test_a_migration_goes_from_prepared_to_restored(caller: Caller, tmp_path: Path) -> None:
    prepared = await caller.result("prepare", **wish("vm-1"))
    assert is_operation(prepared, "prepared")
    assert prepared["migration"] == "vm-1"
    assert prepared["target"] == software()
    assert (prepared["commands"], prepared["doorbells"]) == (STATE_COMMANDS, 1)
    assert prepared["widened"] == []
    assert not (tmp_path / "sim0.json").exists()
    assert await caller.result("status", migration="vm-1") == prepared

    report = await caller.result("commit", migration="vm-1")
    assert is_report(report, "restored")
    assert (report["migration"], report["commands"]) == ("vm-1", STATE_COMMANDS)
    assert report["applied"] == STATE_COMMANDS
    assert report["doorbells"] == 1
    assert report["prepare_us"] == prepared["prepare_us"]
    assert report["ring"] == {"next_available": STATE_COMMANDS, "next_used": STATE_COMMANDS}

    ended = await caller.result("status", migration="vm-1")
    assert is_operation(ended, "restored", "restored")
    assert ended == {**prepared, "state": "restored", "report": report}
    (summary,) = await caller.listed()
    assert is_summary_of(summary, ended)


@pytest.mark.parametrize("state", [STATE, HASH_REPORT, vlans([0, 4095])])
async def test_a_restored_device_holds_the_state(
    caller: Caller, tmp_path: Path, state: Json
) -> None:
    report = await caller.result("restore", **wish("vm-1", state))
    assert is_report(report, "restored")
    held = json.loads((tmp_path / "sim0.json").read_text())
    wanted = {**state, "features": held["features"]}
    if state["features"] == ["CTRL_VQ", "CTRL_VLAN"]:
        wanted["vlans"] = list(range(4096))
    assert {part: held[part] for part in wanted} == wanted


async def test_a_state_with_nothing_to_restore_is_restored(caller: Caller) -> None:
    state = {"version": 1, "features": []}
    check = await caller.result("check", state=state, target=software())
    assert (check["compatible"], check["commands"], check["doorbells"]) == (True, 0, 0)
    report = await caller.result("restore", **wish("vm-1", state))
    assert is_report(report, "restored")
    assert (report["commands"], report["doorbells"]) == (0, 0)


async def test_what_was_widened_is_told_by_every_answer(caller: Caller) -> None:
    table = {**STATE["mac_table"], "unicast_overflow": True}
    prepared = await caller.result("prepare", **wish("vm-1", {**STATE, "mac_table": table}))
    report = await caller.result("commit", migration="vm-1")
    assert len(prepared["widened"]) == 1
    assert report["widened"] == prepared["widened"]


async def test_the_digest_is_the_states_and_the_targets(tmp_path: Path) -> None:
    two = [{"name": "sim0"}, {"name": "sim1"}]
    async with serving(tmp_path, software=two) as path:
        with Caller(path) as caller:
            wishes = [
                wish("vm-1", vlans(1, 2)),
                wish("vm-2", vlans(2, 1)),
                wish("vm-3", vlans([1, 2])),
                wish("vm-4", vlans(1, 3)),
                wish("vm-5", vlans(1, 2), software("sim1")),
            ]
            digests = [(await caller.result("prepare", **each))["digest"] for each in wishes]
    assert digests[0] == digests[1] == digests[2]
    assert len(set(digests[2:])) == 3


# --- doing the same again ---


@pytest.mark.parametrize("again", ["commit", "restore"])
async def test_what_was_restored_is_told_again_and_not_done_again(
    caller: Caller, tmp_path: Path, again: str
) -> None:
    report = await caller.result("restore", **wish("vm-1"))
    (tmp_path / "sim0.json").unlink()
    params = {"migration": "vm-1"} if again == "commit" else wish("vm-1")
    assert await caller.result(again, **params) == report
    assert await caller.result(again, **params, deadline_ms=1) == report
    assert not (tmp_path / "sim0.json").exists()


async def test_preparing_twice_is_preparing_once(caller: Caller) -> None:
    prepared = await caller.result("prepare", **wish("vm-1"))
    assert await caller.result("prepare", **wish("vm-1")) == prepared
    (summary,) = await caller.listed()
    assert is_summary_of(summary, prepared)
    report = await caller.result("commit", migration="vm-1")
    again = await caller.result("prepare", **wish("vm-1"))
    assert again == {**prepared, "state": "restored", "report": report}


async def test_restoring_what_was_prepared_commits_it(caller: Caller) -> None:
    prepared = await caller.result("prepare", **wish("vm-1"))
    report = await caller.result("restore", **wish("vm-1"))
    assert is_report(report, "restored")
    assert report["prepare_us"] == prepared["prepare_us"]
    assert len(await caller.listed()) == 1


async def test_the_same_state_in_other_words_is_the_same(caller: Caller) -> None:
    report = await caller.result("restore", **wish("vm-1"))
    state = {
        **STATE,
        "features": sorted(FEATURES),
        "mac": STATE["mac"].upper(),
        "vlans": [[100, 101], 5, 1],
        "rss": {**STATE["rss"], "key": STATE["rss"]["key"].upper()},
    }
    assert await caller.result("restore", **wish("vm-1", state)) == report


@pytest.mark.parametrize("fault", ["err", "silence", "strange-ack"])
async def test_committing_what_failed_gives_the_same_error_and_touches_nothing(
    tmp_path: Path, fault: str
) -> None:
    state_file = tmp_path / "state.json"
    device = {**faulty(fault, 2), "state_file": state_file}
    async with serving(tmp_path, software=[device]) as path:
        with Caller(path) as caller:
            error = await caller.error("restore", **wish("vm-1", deadline_ms=100))
            state_file.unlink()
            assert await caller.error("commit", migration="vm-1") == error
            assert await caller.error("restore", **wish("vm-1")) == error
            ended = await caller.result("prepare", **wish("vm-1"))
            assert is_operation(ended, "failed", error["data"]["report"]["outcome"])
            assert ended["report"] == error["data"]["report"]
    assert not state_file.exists()


async def test_a_duplicate_of_a_commit_under_way_gets_the_same_end(path: Path) -> None:
    async with held(path) as commit:
        with Caller(path) as one, Caller(path) as two, Caller(path) as three:
            await one.send(request("commit", 1, migration="vm-1"))
            await two.send(request("restore", 1, **held_wish(commit.lender)), commit.lender.fds)
            await three.result("info")
            assert one.received() is two.received() is None
            report = await commit.let_go()
            assert is_report(report, "restored")
            assert (await one.receive())["result"] == report
            assert (await two.receive())["result"] == report
        assert commit.lender.indices() == (2, 2)


# --- conflict ---


@pytest.mark.parametrize(
    ("state", "target"),
    [(vlans(2), software()), (vlans(1), software("sim1"))],
    ids=["another state", "another target"],
)
@pytest.mark.parametrize("method", ["prepare", "restore"])
async def test_a_migration_known_with_something_else_is_a_conflict(
    tmp_path: Path, method: str, state: Json, target: Json
) -> None:
    async with serving(tmp_path, software=[{"name": "sim0"}, {"name": "sim1"}]) as path:
        with Caller(path) as caller:
            prepared = await caller.result("prepare", **wish("vm-1", vlans(1)))
            error = await caller.error(method, **wish("vm-1", state, target))
            assert is_error(error, "conflict", "digest")
            assert error["data"]["digest"] == prepared["digest"]
            await caller.result("commit", migration="vm-1")
            assert await caller.error(method, **wish("vm-1", state, target)) == error


# --- cancel ---


async def test_a_cancelled_migration_stays_so(caller: Caller, tmp_path: Path) -> None:
    prepared = await caller.result("prepare", **wish("vm-1"))
    cancelled = await caller.result("cancel", migration="vm-1")
    assert is_operation(cancelled, "cancelled")
    assert cancelled == {**prepared, "state": "cancelled"}
    assert await caller.result("cancel", migration="vm-1") == cancelled
    assert await caller.result("prepare", **wish("vm-1")) == cancelled
    for method, params in (("commit", {"migration": "vm-1"}), ("restore", wish("vm-1"))):
        error = await caller.error(method, **params)
        assert is_error(error, "conflict", "digest")
        assert error["data"]["digest"] == prepared["digest"]
    assert not (tmp_path / "sim0.json").exists()


async def test_cancelling_what_has_ended_changes_nothing(tmp_path: Path) -> None:
    devices = [{"name": "sim0"}, faulty("err", 0, name="bad")]
    async with serving(tmp_path, software=devices) as path:
        with Caller(path) as caller:
            await caller.result("restore", **wish("vm-1", vlans(1)))
            await caller.error("restore", **wish("vm-2", vlans(1), software("bad")))
            one = await caller.result("cancel", migration="vm-1")
            two = await caller.result("cancel", migration="vm-2")
            listed = await caller.listed()
            assert all(map(is_summary_of, listed, [two, one]))
    assert is_operation(one, "restored", "restored")
    assert is_operation(two, "failed", "rejected")


async def test_a_commit_under_way_cannot_be_cancelled(path: Path, caller: Caller) -> None:
    async with held(path) as commit:
        error = await caller.error("cancel", migration="vm-1")
        assert is_error(error, "busy", "migration")
        assert error["data"]["migration"] == "vm-1"
        assert is_report(await commit.let_go(), "restored")


# --- while a commit runs ---


async def test_others_are_answered_while_a_commit_runs(path: Path, caller: Caller) -> None:
    async with held(path) as commit:
        for number in range(20):
            await caller.result("info")
            await caller.result("check", state=STATE, target=commit.lender.target)
            await caller.result("restore", **wish(f"other-{number}", vlans(1)))
        committing = await caller.result("status", migration="vm-1")
        assert is_operation(committing, "committing")
        assert is_report(await commit.let_go(), "restored")


async def test_preparing_waits_for_no_commit_that_has_ended(path: Path, caller: Caller) -> None:
    """It gives way to commits that run, for 50 ms at the most: 100 of them would take 5 s."""
    async with held(path) as commit:
        await commit.let_go()
    loop = asyncio.get_running_loop()
    before = loop.time()
    for number in range(100):
        await caller.result("prepare", **wish(f"later-{number}", vlans(1)))
    assert loop.time() - before < 4.5


async def test_a_device_that_a_commit_has_is_busy_and_the_other_stays_prepared(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, software=[slow(0.2)]) as path:
        with Caller(path) as caller:
            await caller.send(request("restore", "one", **wish("vm-1", vlans(1))))
            await caller.send(request("restore", "two", **wish("vm-2", vlans(2))))
            second, first = await caller.receive(), await caller.receive()
            assert second["id"] == "two"
            assert is_error(second["error"], "busy", "migration")
            assert second["error"]["data"]["migration"] == "vm-1"
            assert is_report(first["result"], "restored")
            assert is_operation(await caller.result("status", migration="vm-2"), "prepared")
            assert is_report(await caller.result("commit", migration="vm-2"), "restored")


async def test_memory_that_a_commit_has_is_busy(path: Path, caller: Caller) -> None:
    async with held(path) as commit:
        lender = commit.lender
        error = await caller.error("restore", lender.fds, **held_wish(lender, "vm-2"))
        assert is_error(error, "busy", "migration")
        assert error["data"]["migration"] == "vm-1"
        assert is_report(await commit.let_go(), "restored")
        assert lender.indices() == (2, 2)
        # The device has these VLANs by now.
        error = await caller.error("commit", lender.fds, migration="vm-2")
        assert is_error(error, "rejected", "report")
        assert lender.indices() == (4, 4)


async def test_memory_that_a_commit_has_is_busy_whatever_addresses_it_is_given(
    path: Path, caller: Caller
) -> None:
    async with held(path) as commit:
        ring = commit.lender.ring
        elsewhere = commit.lender.target_with(
            memory={**ring["memory"], "iova": ring["memory"]["iova"] + 4096},
            buffers={**ring["buffers"], "iova": ring["buffers"]["iova"] + 4096},
            **{key: ring[key] + 4096 for key in ("descriptors", "available", "used")},
        )
        second = wish("vm-2", vlans(1), elsewhere, deadline_ms=100)
        error = await caller.error("restore", commit.lender.fds, **second)
        assert is_error(error, "busy", "migration")
        assert is_report(await commit.let_go(), "restored")


async def test_a_commit_goes_on_when_its_client_dies(path: Path, caller: Caller) -> None:
    async with lending(start=False) as lender:
        with Caller(path) as dying:
            await dying.send(request("restore", 1, **held_wish(lender)), lender.fds)
            await until_state(caller, "vm-1", "committing")
        lender.device.start()
        ended = await until_state(caller, "vm-1", "restored")
    assert is_operation(ended, "restored", "restored")


# --- deadlines ---


@pytest.mark.parametrize("method", ["commit", "restore"])
async def test_a_requests_deadline_is_for_its_whole_replay(tmp_path: Path, method: str) -> None:
    configured = {"deadline_ms": 600_000}
    async with serving(tmp_path, software=[faulty("silence", 0)], replay=configured) as path:
        with Caller(path) as caller:
            if method == "commit":
                await caller.result("prepare", **wish("vm-1"))
                error = await caller.error("commit", migration="vm-1", deadline_ms=120)
            else:
                error = await caller.error("restore", **wish("vm-1"), deadline_ms=120)
    assert is_error(error, "timeout", "report")
    assert error["data"]["report"]["commit_us"] >= 120_000


async def test_a_request_without_a_deadline_has_the_configured_one(tmp_path: Path) -> None:
    configured = {"deadline_ms": 120}
    async with serving(tmp_path, software=[faulty("silence", 0)], replay=configured) as path:
        with Caller(path) as caller:
            error = await caller.error("restore", **wish("vm-1"))
    assert is_error(error, "timeout", "report")
    assert error["data"]["report"]["commit_us"] >= 120_000


async def test_a_device_that_was_late_starts_afresh_for_the_next(tmp_path: Path) -> None:
    """The first 40 commands would take it 20 s, of which the second must see nothing."""
    async with serving(tmp_path, software=[slow(0.5)]) as path:
        with Caller(path) as caller:
            first = wish("vm-1", vlans([1, 40]), deadline_ms=50)
            assert is_error(await caller.error("restore", **first), "timeout", "report")
            second = wish("vm-2", vlans(1), deadline_ms=8000)
            reply = await caller.call("restore", **second)
    assert "result" in reply, reply
    assert is_report(reply["result"], "restored")


# --- status ---


async def test_status_lists_the_newest_first(caller: Caller) -> None:
    names = [f"vm-{number}" for number in range(5)]
    for name in names:
        await caller.result("prepare", **wish(name, vlans(1)))
    await caller.result("commit", migration="vm-1")
    operations = await caller.listed()
    assert [each["migration"] for each in operations] == names[::-1]
    assert [each["state"] for each in operations].count("restored") == 1


@pytest.mark.parametrize("small_buffers", [False, True])
async def test_a_list_longer_than_a_datagram_is_cut_to_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_buffers: bool
) -> None:
    if small_buffers:
        give_small_buffers(monkeypatch)
    features = [f"bit_{bit}" for bit in range(128) if bit not in (34, 35)]
    async with serving(tmp_path) as path, lending(start=False) as lender:
        target = {**lender.target, "features": features, "config": CONFIG}
        names = [f"{number:0>128}" for number in range(200)]
        with Caller(path) as caller:
            for name in names:
                await caller.result("prepare", **wish(name, vlans(1), target))
            listed = await caller.listed(limit=1000)
    assert len(json.dumps(listed)) > MAX_DATAGRAM * 0.9
    newest_first = names[::-1]
    assert [each["migration"] for each in listed] == newest_first[: len(listed)]
    assert len(listed) < len(names)


# --- not-allowed ---


@pytest.mark.parametrize(
    "method", ["info", "check", "prepare", "commit", "restore", "status", "cancel"]
)
async def test_who_is_not_among_the_allowed_uids_may_not_speak(tmp_path: Path, method: str) -> None:
    async with serving(tmp_path, allowed_uids=[os.getuid() + 1]) as path:
        with Caller(path) as caller:
            assert is_error(await caller.error(method), "not-allowed")


async def test_who_is_among_the_allowed_uids_may_speak(tmp_path: Path) -> None:
    async with serving(tmp_path, allowed_uids=[os.getuid() + 1, os.getuid()]) as path:
        with Caller(path) as caller:
            await caller.result("info")


async def test_where_no_uid_is_allowed_nobody_may_speak(tmp_path: Path) -> None:
    async with serving(tmp_path, allowed_uids=[]) as path:
        with Caller(path) as caller:
            assert is_error(await caller.error("info"), "not-allowed")
