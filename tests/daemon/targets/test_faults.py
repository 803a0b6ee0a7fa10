"""Devices that refuse, that are late, and that break the rules: what is reported of each."""

from pathlib import Path
from typing import Any

import pytest

from tests.daemon.support import (
    STATE,
    STATE_COMMANDS,
    Caller,
    Json,
    faulty,
    is_error,
    is_operation,
    is_report,
    serving,
    software,
    vlans,
)

BREAKS_RULES = [
    "id-out-of-range",
    "id-not-in-flight",
    "id-twice",
    "run-ahead",
    "stale-ack",
    "strange-ack",
]


async def restored(folder: Path, device: Json, state: Json, **more: Any) -> tuple[Json, Json]:
    """The reply to a restore on this device, and the operation after it."""
    async with serving(folder, software=[device]) as path:
        with Caller(path) as caller:
            reply = await caller.call(
                "restore", migration="vm-1", state=state, target=software(), **more
            )
            return reply, await caller.result("status", migration="vm-1")


async def failed(folder: Path, device: Json, state: Json, kind: str, **more: Any) -> Json:
    """The report of a restore that fails on this device."""
    outcome = {"rejected": "rejected", "timeout": "incomplete", "device-broken": "broken"}[kind]
    reply, operation = await restored(folder, device, state, **more)
    assert is_error(reply["error"], kind, "report")
    report: Json = reply["error"]["data"]["report"]
    assert is_report(report, outcome)
    assert is_operation(operation, "failed", outcome)
    assert operation["report"] == report
    return report


async def test_what_the_device_refuses_is_told_and_the_rest_applied(tmp_path: Path) -> None:
    report = await failed(tmp_path, faulty("err", 0, 8), STATE, "rejected")
    assert report["commands"] == STATE_COMMANDS
    assert report["applied"] == STATE_COMMANDS - 2
    assert report["rejected"] == [
        {"index": 0, "command": "MAC_ADDR_SET", "arguments": "mac=52:54:00:12:34:56", "ack": 1},
        {"index": 8, "command": "VLAN_ADD", "arguments": "vid=5", "ack": 1},
    ]
    assert (report["rejected_total"], report["unanswered_total"]) == (2, 0)
    assert report["ring"] == {"next_available": STATE_COMMANDS, "next_used": STATE_COMMANDS}


async def test_a_device_that_refuses_everything_fills_no_reply(tmp_path: Path) -> None:
    device = faulty("err", *range(500))
    report = await failed(tmp_path, device, vlans([1, 500]), "rejected")
    assert (report["applied"], report["rejected_total"]) == (0, 500)
    assert [line["index"] for line in report["rejected"]] == list(range(64))


async def test_what_was_never_answered_is_told(tmp_path: Path) -> None:
    report = await failed(tmp_path, faulty("silence", 7), STATE, "timeout", deadline_ms=100)
    assert (report["applied"], report["unanswered_total"]) == (7, STATE_COMMANDS - 7)
    assert report["unanswered"][0] == {
        "index": 7,
        "command": "VLAN_ADD",
        "arguments": "vid=1",
        "ack": None,
    }
    assert report["commit_us"] >= 100_000


async def test_what_was_not_even_sent_is_unanswered_too(tmp_path: Path) -> None:
    device = {**faulty("silence", 3), "ring_size": 8}
    report = await failed(tmp_path, device, vlans([1, 300]), "timeout", deadline_ms=100)
    assert (report["applied"], report["unanswered_total"]) == (3, 297)
    assert len(report["unanswered"]) == 64


@pytest.mark.parametrize("ring_size", [8, 64])
@pytest.mark.parametrize("fault", BREAKS_RULES)
async def test_a_device_that_breaks_a_rule_is_broken(
    tmp_path: Path, fault: str, ring_size: int
) -> None:
    device = {**faulty(fault, 3), "ring_size": ring_size}
    report = await failed(tmp_path, device, STATE, "device-broken", deadline_ms=20_000)
    assert report["applied"] <= STATE_COMMANDS
    assert report["rejected"] == []


async def test_a_wrong_length_is_a_note(tmp_path: Path) -> None:
    reply, operation = await restored(tmp_path, faulty("wrong-length", 3, 4), STATE)
    report = reply["result"]
    assert is_report(report, "restored")
    assert is_operation(operation, "restored", "restored")
    (note,) = report["notes"]
    assert note.startswith(f"2 of {STATE_COMMANDS} commands came back with a used length of 2")
    assert operation["report"] == report


@pytest.mark.parametrize("fault", ["err", *BREAKS_RULES])
async def test_a_device_that_failed_can_be_restored_under_another_name(
    tmp_path: Path, fault: str
) -> None:
    async with serving(tmp_path, software=[faulty(fault, 3)]) as path:
        with Caller(path) as caller:
            first = {"migration": "vm-1", "state": STATE, "target": software()}
            await caller.error("restore", **first)
            second = {**first, "migration": "vm-2", "state": vlans(1, 2, 3)}
            assert is_report(await caller.result("restore", **second), "restored")


@pytest.mark.parametrize("order", ["reversed", "shuffled"])
@pytest.mark.parametrize("event_idx", [True, False])
async def test_a_device_may_finish_in_any_order(
    tmp_path: Path, order: str, event_idx: bool
) -> None:
    device = {"name": "sim0", "misbehave": {"order": order}}
    if not event_idx:
        device["features"] = ["CTRL_VQ", "CTRL_VLAN"]
    reply, _ = await restored(tmp_path, device, vlans([1, 500]))
    assert is_report(reply["result"], "restored")
    assert reply["result"]["applied"] == 500


async def test_a_device_that_never_interrupts_is_looked_at_all_the_same(tmp_path: Path) -> None:
    device = {"name": "sim0", "misbehave": {"interrupts": False}}
    reply, _ = await restored(tmp_path, device, vlans([1, 300]), deadline_ms=20_000)
    assert is_report(reply["result"], "restored")


async def test_a_state_file_that_cannot_be_written_fails_no_restore(tmp_path: Path) -> None:
    device = {"name": "sim0", "state_file": tmp_path / "none" / "state.json"}
    reply, operation = await restored(tmp_path, device, STATE)
    assert is_report(reply["result"], "restored")
    assert is_operation(operation, "restored", "restored")
