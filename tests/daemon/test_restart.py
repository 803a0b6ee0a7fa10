"""What the next daemon tells of an operation, wherever the last one ended."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.lending import CONFIG, ring_of
from tests.daemon.support import (
    GUARD,
    Caller,
    Json,
    faulty,
    is_error,
    is_operation,
    is_report,
    open_descriptors,
    request,
    running,
    serving,
    software,
    until,
    vlans,
)
from tests.support.device_process import Lender, device_process
from tests.support.devices import config
from vdpad.queues.software.device import SoftwareDevice
from vdpad.virtio.features import FEATURES
from vdpad.virtio.split_ring import RingGeometry

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
        assert await caller.result("status") == [status]
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


async def test_what_its_caller_cancelled_stays_cancelled(tmp_path: Path) -> None:
    async with asked(tmp_path) as caller:
        await caller.result("prepare", **wish())
        status = await caller.result("cancel", migration="vm-1")
    async with asked(tmp_path) as caller:
        assert await caller.result("status", migration="vm-1") == status
        assert is_operation(status, "cancelled")
        assert await caller.result("prepare", **wish()) == status
        assert is_error(await caller.error("commit", migration="vm-1"), "conflict", "digest")


async def test_a_cancellation_is_told_even_if_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or if the daemon died before that: it is in the mark by then."""
    async with asked(tmp_path) as caller:
        await caller.result("prepare", **wish())
        with monkeypatch.context() as patch:
            patch.setattr("vdpad.daemon.records._write", _no_space)
            await caller.result("cancel", migration="vm-1")
    async with asked(tmp_path) as caller:
        assert is_operation(await caller.result("status", migration="vm-1"), "cancelled")
        assert is_error(await caller.error("commit", migration="vm-1"), "conflict", "digest")


def _no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


async def test_the_newest_are_told_first_and_the_oldest_are_forgotten(tmp_path: Path) -> None:
    limits = {"operations_at_once": 2, "operations_kept": 3}
    for names in (("vm-c", "vm-a"), ("vm-b", "vm-d")):
        async with asked(tmp_path, limits=limits) as caller:
            for name in names:
                await caller.result("restore", **wish(name))
            told = [each["migration"] for each in await caller.result("status")]
            assert len(list((tmp_path / "operations").iterdir())) == len(told)
    assert told == ["vm-d", "vm-b", "vm-a"]


async def test_records_are_made_small_once_no_reply_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vdpad.daemon.bookkeeping._SETTLES_AFTER", 0.01)
    async with asked(tmp_path) as caller:
        await caller.result("restore", **wish(state=EVERY))
        (record,) = (tmp_path / "operations").iterdir()
        await until(lambda: record.stat().st_size < 4096)
        status = await caller.result("status")
    async with asked(tmp_path) as caller:
        assert await caller.result("status") == status


async def test_a_run_of_restores_takes_few_descriptors(tmp_path: Path) -> None:
    limits = {"operations_at_once": 2, "operations_kept": 40}
    async with asked(tmp_path, limits=limits) as caller:
        before = len(open_descriptors())
        for number in range(60):
            await caller.result("restore", **wish(f"vm-{number}"))
        assert len(open_descriptors()) <= before + 16
        assert len(list((tmp_path / "operations").iterdir())) == 40
    async with asked(tmp_path, limits=limits) as caller:
        told = [each["migration"] for each in await caller.result("status")]
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


# --- committing: SIGKILL at any moment, the device judges ---

RING = 64
MOMENTS = 10
COMMANDS = 4094


class Judge:
    """The device's ring, and what the device holds at last."""

    def __init__(self, lender: Lender, geometry: RingGeometry) -> None:
        self.lender = lender
        self._fd = lender.descriptors.memory
        self._available = geometry.available - geometry.memory.iova + 2
        self._used = geometry.used - geometry.memory.iova + 2

    @property
    def used(self) -> int:
        """How many commands it has done."""
        return self._word(self._used)

    @property
    def done(self) -> bool:
        """Whether it has done all that it was given."""
        return self.used == self._word(self._available)

    def _word(self, at: int) -> int:
        return int.from_bytes(os.pread(self._fd, 2, at), "little")


async def _geometry() -> RingGeometry:
    device = SoftwareDevice(config(ring_size=RING))
    await device.stop()
    return device.geometry


@pytest.mark.parametrize("event_idx", [True, False], ids=["event-idx", "flags"])
@pytest.mark.parametrize("moment", range(MOMENTS))
async def test_a_commit_that_was_killed_is_never_told_as_restored(
    tmp_path: Path, moment: int, event_idx: bool
) -> None:
    chance = random.Random(moment)
    # The first dies before it has sent much, the last with all sent or even all told.
    until_used = 0 if moment == 0 else COMMANDS if moment == 9 else chance.randrange(COMMANDS)
    geometry = await _geometry()
    features = config(event_idx=event_idx).features
    target = {
        "kind": "lent",
        "features": FEATURES.names(features),
        "config": CONFIG,
        "ring": ring_of(geometry),
    }
    records = {"directory": tmp_path / "operations"}
    with device_process(ring_size=RING, event_idx=event_idx, interrupts=True) as lender:
        judge = Judge(lender, geometry)
        fds = [lender.descriptors.memory, lender.descriptors.kick, lender.descriptors.call]
        async with running(tmp_path, records=records) as daemon:
            with Caller(daemon.socket) as caller:
                prepared = await caller.result("prepare", **wish(state=EVERY, target=target))
                await caller.send(request("commit", 9, migration="vm-1"), fds)
                async with asyncio.timeout(GUARD):
                    while judge.used < until_used:  # noqa: ASYNC110
                        await asyncio.sleep(0)
                daemon.process.send_signal(signal.SIGKILL)
                daemon.wait()
                told = caller.received()
        # It may have died between what it published and the doorbell.
        os.eventfd_write(lender.descriptors.kick, 1)
        await until(lambda: judge.done)
        used = judge.used
    held = len(lender.settings["vlans"])
    lender.descriptors.close()
    assert held == used

    async with asked(tmp_path) as caller:
        status = await caller.result("status", migration="vm-1")
        again = await caller.call("restore", **wish(state=EVERY, target=target))
    assert (status["digest"], status["commands"]) == (prepared["digest"], COMMANDS)
    if status["state"] == "restored":
        assert is_operation(status, "restored", "restored")
        assert held == COMMANDS
        assert again["result"] == status["report"]
        return
    assert told is None
    report = status["report"]
    if report["device_must_reset"] is False:
        assert was_untouched(status, COMMANDS)
        assert held == 0
        return
    assert is_operation(status, "failed", "interrupted")
    assert report["applied"] <= held <= report["applied"] + RING // 2
    first = next((line["arguments"] for line in report["unanswered"]), "none")
    assert first == (f"vid={report['applied'] + 1}" if report["applied"] < COMMANDS else "none")
    assert is_error(again["error"], "internal", "report")
    assert again["error"]["data"]["report"] == report
    assert f"{report['applied']} of {COMMANDS} commands are known" in again["error"]["message"]
