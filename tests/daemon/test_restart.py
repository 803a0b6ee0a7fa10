"""What the next daemon tells of an operation, wherever the last one ended."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.support import (
    Caller,
    Json,
    faulty,
    is_error,
    is_operation,
    is_report,
    is_summary_of,
    serving,
    software,
    vlans,
)
from tests.support.daemon import running
from tests.support.descriptors import open_descriptors
from vdpad.daemon.records.endings import Stage
from vdpad.daemon.records.file import decode_record

THREE = vlans(1, 2, 3)
EVERY = vlans([1, 4094])


def wish(migration: str = "vm-1", state: Json = THREE, target: Json | None = None) -> Json:
    return {"migration": migration, "state": state, "target": target or software()}


@asynccontextmanager
async def asked(folder: Path, **settings: Any) -> AsyncIterator[Caller]:
    """A daemon of this process that keeps records there, and who asks it."""
    kept = {"directory": folder / "operations"}
    async with serving(folder, records=kept, **settings) as path:
        with Caller(path) as caller:
            yield caller


# --- ended ---


async def test_what_was_restored_is_told_and_not_done_again(tmp_path: Path) -> None:
    device = {"name": "sim0", "state_file": tmp_path / "sim0.json"}
    async with asked(tmp_path, software=[device]) as caller:
        report = await caller.result("restore", **wish())
        status = await caller.result("status", migration="vm-1")
    (tmp_path / "sim0.json").unlink()
    async with asked(tmp_path, software=[device]) as caller:
        assert await caller.result("status", migration="vm-1") == status
        (summary,) = await caller.listed()
        assert is_summary_of(summary, status)
        assert is_operation(status, "restored", "restored")
        assert await caller.result("restore", **wish()) == report
        assert await caller.result("commit", migration="vm-1") == report
        assert await caller.result("prepare", **wish()) == status
        assert await caller.result("cancel", migration="vm-1") == status
        error = await caller.error("restore", **wish(state=vlans(4)))
        assert is_error(error, "conflict", "digest")
        assert error["data"]["digest"] == status["digest"]
    assert not (tmp_path / "sim0.json").exists()


@pytest.mark.parametrize(
    ("fault", "kind", "outcome"),
    [
        ("err", "rejected", "rejected"),
        ("silence", "timeout", "incomplete"),
        ("id-twice", "device-broken", "broken"),
    ],
)
async def test_what_failed_is_told_in_the_same_words(
    tmp_path: Path, fault: str, kind: str, outcome: str
) -> None:
    settings: Json = {"software": [faulty(fault, 1)], "replay": {"deadline_ms": 50}}
    async with asked(tmp_path, **settings) as caller:
        error = await caller.error("restore", **wish())
        status = await caller.result("status", migration="vm-1")
    async with asked(tmp_path, **settings) as caller:
        assert is_error(error, kind, "report")
        assert await caller.error("restore", **wish()) == error
        assert await caller.error("commit", migration="vm-1") == error
        assert await caller.result("status", migration="vm-1") == status
        assert is_operation(status, "failed", outcome)


async def test_what_was_noted_is_told_in_the_same_words(tmp_path: Path) -> None:
    device = faulty("wrong-length", 1)
    async with asked(tmp_path, software=[device]) as caller:
        report = await caller.result("restore", **wish())
    assert is_report(report, "restored")
    (note,) = report["notes"]
    assert note.startswith("1 of 3 commands came back with a used length of 2")
    async with asked(tmp_path, software=[device]) as caller:
        assert await caller.result("restore", **wish()) == report


async def test_what_its_caller_cancelled_stays_cancelled(tmp_path: Path) -> None:
    async with asked(tmp_path) as caller:
        await caller.result("prepare", **wish())
        status = await caller.result("cancel", migration="vm-1")
    async with asked(tmp_path) as caller:
        assert await caller.result("status", migration="vm-1") == status
        assert is_operation(status, "cancelled")
        assert await caller.result("prepare", **wish()) == status
        assert is_error(await caller.error("commit", migration="vm-1"), "conflict", "digest")


async def test_a_cancellation_is_in_the_mark_at_once(tmp_path: Path) -> None:
    """And its record is made small later, when no commit waits for that."""
    async with asked(tmp_path) as caller:
        await caller.result("prepare", **wish(state=EVERY))
        await caller.result("cancel", migration="vm-1")
        (record,) = (tmp_path / "operations").iterdir()
        found = decode_record(record.read_bytes())
        assert (found.stage, found.body.report) == (Stage.CANCELLED, None)
        large = record.stat().st_size
    assert record.stat().st_size < large
    assert decode_record(record.read_bytes()).stage is Stage.CANCELLED


async def test_the_newest_are_told_first_and_the_oldest_are_forgotten(tmp_path: Path) -> None:
    limits = {"operations_at_once": 2, "operations_kept": 3}
    for names in (("vm-c", "vm-a"), ("vm-b", "vm-d")):
        async with asked(tmp_path, limits=limits) as caller:
            for name in names:
                await caller.result("restore", **wish(name))
            told = [each["migration"] for each in await caller.listed()]
            assert len(list((tmp_path / "operations").iterdir())) == len(told)
    assert told == ["vm-d", "vm-b", "vm-a"]


async def test_a_run_of_restores_takes_few_descriptors(tmp_path: Path) -> None:
    limits = {"operations_at_once": 2, "operations_kept": 40}
    async with asked(tmp_path, limits=limits) as caller:
        before = len(open_descriptors())
        for number in range(60):
            await caller.result("restore", **wish(f"vm-{number}"))
        # 16 that may stay mapped, and the last one.
        assert len(open_descriptors()) <= before + 17
        assert len(list((tmp_path / "operations").iterdir())) == 40
    assert len(list((tmp_path / "operations").iterdir())) == 40
    async with asked(tmp_path, limits=limits) as caller:
        told = [each["migration"] for each in await caller.listed()]
    assert told == [f"vm-{number}" for number in reversed(range(20, 60))]


async def test_a_directory_that_cannot_be_had_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "operations").write_text("")
    async with asked(tmp_path) as caller:
        assert is_report(await caller.result("restore", **wish()), "restored")


# --- prepared ---


def was_untouched(operation: Json, commands: int) -> bool:
    """Whether it was interrupted before anything was sent."""
    report = operation["report"]
    assert is_operation(operation, "failed", "interrupted")
    assert (report["applied"], report["unanswered_total"]) == (0, commands)
    assert (report["device_must_reset"], report["doorbells"]) == (False, 0)
    return True


async def test_what_was_prepared_at_a_sigkill_may_be_prepared_again(tmp_path: Path) -> None:
    records = {"directory": tmp_path / "operations"}
    async with running(tmp_path, records=records) as daemon:
        with Caller(daemon.socket) as caller:
            prepared = await caller.result("prepare", **wish())
        daemon.process.kill()
    async with running(tmp_path, records=records) as daemon:
        with Caller(daemon.socket) as caller:
            status = await caller.result("status", migration="vm-1")
            assert was_untouched(status, 3)
            assert [line["arguments"] for line in status["report"]["unanswered"]] == [
                *("vid=1", "vid=2", "vid=3")
            ]
            assert {**status, "state": "prepared", "report": None} == prepared
            error = await caller.error("commit", migration="vm-1")
            assert is_error(error, "no-such-migration")
            assert "prepare the same again" in error["message"]
            error = await caller.error("prepare", **wish(state=vlans(4)))
            assert is_error(error, "conflict", "digest")
            again = await caller.result("prepare", **wish())
            assert is_operation(again, "prepared")
            assert is_report(await caller.result("commit", migration="vm-1"), "restored")
        daemon.process.kill()
    async with asked(tmp_path) as caller:
        assert is_operation(await caller.result("status", migration="vm-1"), "restored", "restored")


async def test_a_restore_that_was_prepared_at_a_sigterm_is_just_asked_again(tmp_path: Path) -> None:
    async with asked(tmp_path) as caller:
        await caller.result("prepare", **wish())
    async with asked(tmp_path) as caller:
        assert is_operation(await caller.result("status", migration="vm-1"), "cancelled")
        assert is_error(await caller.error("commit", migration="vm-1"), "no-such-migration")
        assert is_report(await caller.result("restore", **wish()), "restored")
