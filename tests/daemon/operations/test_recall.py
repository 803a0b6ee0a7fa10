"""What a daemon takes in of its predecessors, and what it tells of what they left unended."""

import hashlib
import shutil
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.daemon.operations.shown import ME, shown
from tests.daemon.records.recording import (
    COMMANDS,
    create,
    encoded,
    file_of,
    loaded,
    only,
    success,
    told,
)
from tests.daemon.records.test_recalled import RECORDED
from tests.daemon.support import Json, serving, software, vlans
from vdpad.daemon.devices.keeper import DeviceKeeper
from vdpad.daemon.events.daemon import RecordLost, RecordsRead
from vdpad.daemon.events.operations import Interrupted
from vdpad.daemon.operations.changes import Changes
from vdpad.daemon.operations.operation import RestoreRequest
from vdpad.daemon.operations.operations import Operations
from vdpad.daemon.operations.phases import outcome
from vdpad.daemon.operations.requester import NotYours, Requester
from vdpad.daemon.operations.running import RunningCommits
from vdpad.daemon.records.directory import Records
from vdpad.daemon.records.endings import Stage
from vdpad.daemon.records.file import ACKS_AT, Body, encode_record
from vdpad.daemon.records.owners import NOBODY
from vdpad.daemon.settings import Limits, Replay, Software
from vdpad.daemon.targets.software import SoftwareTarget
from vdpad.restore.program import Program
from vdpad.restore.progress import ANSWERED
from vdpad.restore.replay import Outcome
from vdpad.service.events.event import Event
from vdpad.service.refusal import Kind, Refusal
from vdpad.state.model import NetState
from vdpad.virtio.commands import ACK_ERR, ACK_OK

OPERATOR = Requester(1002, is_operator=True)


@contextmanager
def recalled(folder: Path, kept: int = 100) -> Iterator[tuple[Operations, list[Event]]]:
    """The next daemon's operations, and what it told; it ends as if it were killed."""
    events: list[Event] = []
    records = Records(folder, events.append)
    limits = Limits(operations_at_once=2, operations_kept=kept)
    operations = Operations(limits, Replay(), records, RunningCommits(), Changes(), events.append)
    operations.recall()
    try:
        yield operations, events
    finally:
        records.close()


def wish(target_json: Json, device: str, migration: str = "vm-1") -> RestoreRequest:
    """Of one VLAN, for a device that calls itself so."""
    target = SoftwareTarget(Software(name="sim0"))
    target.name = device
    state = NetState.model_validate(vlans(7))
    return RestoreRequest(
        migration, state, target, target_json, time.perf_counter_ns(), ME, ME.owning()
    )


@pytest.mark.parametrize(
    ("target", "device"),
    [
        (software("sim7"), "sim7"),
        ({"kind": "vhost-vdpa", "device": "vdpa0"}, "vdpa0"),
        # Its name is what it was called by before the restart, too.
        ({"kind": "vhost-vdpa", "path": "/dev/vhost-vdpa-0"}, "vdpa0"),
        ({"kind": "lent", "features": [], "ring": {}}, ""),
    ],
)
async def test_what_was_interrupted_is_told_once_by_its_device(
    tmp_path: Path, target: Json, device: str
) -> None:
    with recalled(tmp_path) as (operations, events):
        operation = await operations.prepare(wish(target, device))
        before = shown(operation)
        named = operation.details.named
    assert named == ("vm-1", target["kind"], device)
    with recalled(tmp_path) as (operations, events):
        assert events == [
            RecordsRead(1),
            Interrupted(*named, stage="prepared", commands=1, applied=0, device_must_reset=False),
        ]
        status = shown(operations.get("vm-1", ME))
        assert {**status, "state": "prepared", "report": None} == before
    for _ in range(2):
        with recalled(tmp_path) as (operations, events):
            assert events == [RecordsRead(1)]
            assert shown(operations.get("vm-1", ME)) == status
            assert operations.get("vm-1", ME).renewable


async def test_what_an_older_vdpad_prepared_anybody_may_prepare_again(tmp_path: Path) -> None:
    with recalled(tmp_path) as (operations, _):
        asked = wish(software(), "sim0")
        await operations.prepare(replace(asked, owners=NOBODY))
    with recalled(tmp_path) as (operations, _):
        prepared = await operations.prepare(asked)
        assert prepared.details.owners == ME.owning()
        assert operations.get("vm-1", ME) is prepared


async def test_what_is_prepared_anew_is_the_newest(tmp_path: Path) -> None:
    with recalled(tmp_path) as (operations, _):
        for migration in ("vm-1", "vm-2"):
            await operations.prepare(wish(software(), "sim0", migration))
    with recalled(tmp_path) as (operations, _):
        await operations.prepare(wish(software(), "sim0", "vm-1"))
        assert [each.migration for each in operations.newest_first(ME)] == ["vm-1", "vm-2"]
    with recalled(tmp_path) as (operations, _):
        assert [each.migration for each in operations.newest_first(ME)] == ["vm-1", "vm-2"]


def left_committing(folder: Path, *migrations: str) -> None:
    """Records of commits that were killed."""
    records = Records(folder)
    for migration in migrations:
        record = create(records, migration)
        record.begin()
        record.close()
    records.close()


async def test_what_was_interrupted_in_its_commit_stays_failed(tmp_path: Path) -> None:
    left_committing(tmp_path, "vm-1")
    with recalled(tmp_path) as (operations, _):
        before = operations.get("vm-1", ME)
    assert before.ended is not None
    with recalled(tmp_path) as (operations, _):
        operation = operations.get("vm-1", ME)
        with pytest.raises(Refusal, match="in the middle of this commit") as caught:
            await outcome(operations.begin("vm-1", ME, [], None))
        assert caught.value.kind is Kind.INTERNAL
    assert (shown(operation), operation.phase) == (shown(before), before.phase)
    assert not operation.renewable


# --- when it was ---


def _near(one: datetime | None, other: datetime) -> bool:
    """Whether it is the same time, as far as a slow machine and a clock that is set go."""
    return one is not None and abs(one - other) < timedelta(minutes=10)


async def _restored(operations: Operations) -> None:
    await outcome(operations.begin("vm-1", ME, [], None))


async def _rejected(operations: Operations) -> None:
    with pytest.raises(Refusal, match="refused 1 of 1"):
        await outcome(operations.begin("vm-1", ME, [], None))


async def _cancelled(operations: Operations) -> None:
    await operations.cancel("vm-1", ME)


async def _stopped(operations: Operations) -> None:
    await operations.stop()


@pytest.mark.parametrize("end", [_restored, _rejected, _cancelled, _stopped])
async def test_when_it_began_and_ended_is_recalled(
    tmp_path: Path, end: Callable[[Operations], Coroutine[Any, Any, None]]
) -> None:
    faults = {"0": "err"} if end is _rejected else {}
    target = SoftwareTarget(
        Software.model_validate({"name": "sim0", "misbehave": {"faults": faults}})
    )
    target.start()
    now = datetime.now(UTC)
    with recalled(tmp_path) as (operations, _):
        operation = await operations.prepare(replace(wish(software(), "sim0"), target=target))
        assert operation.ended is None
        await end(operations)
    await target.stop()
    assert _near(operation.details.began, now)
    assert _near(operation.ended, now)
    for _ in range(2):
        with recalled(tmp_path) as (operations, _events):
            again = operations.get("vm-1", ME)
        assert again.details.began == operation.details.began
        assert again.phase == operation.phase
        assert again.ended == operation.ended


async def test_what_was_interrupted_ended_when_that_was_found(tmp_path: Path) -> None:
    with recalled(tmp_path) as (operations, _):
        began = (await operations.prepare(wish(software(), "sim0"))).details.began
    with recalled(tmp_path) as (operations, _):
        operation = operations.get("vm-1", ME)
    assert operation.details.began == began
    assert _near(operation.ended, datetime.now(UTC))
    with recalled(tmp_path) as (operations, _):
        assert operations.get("vm-1", ME).phase == operation.phase


def test_an_older_vdpad_told_no_times(tmp_path: Path) -> None:
    """Its records are read all the same; only of what it left unended an end is known."""
    name = hashlib.sha256(b"vm-1").hexdigest()[:32] + ".operation"
    for path in RECORDED.iterdir():
        shutil.copy(path, tmp_path / name)
        with recalled(tmp_path) as (operations, _):
            with pytest.raises(NotYours):
                operations.get("vm-1", ME)
            operation = operations.get("vm-1", OPERATOR)
        assert operation.details.began is None
        unended = path.stem in ("prepared", "committing")
        assert (operation.ended is not None) is unended


def _no_space(*_: object, **__: object) -> Any:
    raise OSError(28, "No space left on device")


def test_what_cannot_be_written_down_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_committing(tmp_path, "vm-1")
    before = file_of(tmp_path).read_bytes()
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("vdpad.daemon.records.directory._write", _no_space)
            with recalled(tmp_path) as (operations, events):
                assert [type(each) for each in events] == [RecordsRead, Interrupted, RecordLost]
                report = operations.get("vm-1", ME).report
                assert report is not None
                assert report.outcome is Outcome.INTERRUPTED
        assert file_of(tmp_path).read_bytes() == before


def test_what_is_kept_no_more_is_told_before_it_is_forgotten(tmp_path: Path) -> None:
    left_committing(tmp_path, *"abcde")
    with recalled(tmp_path, kept=2) as (operations, events):
        announced = [each.migration for each in events if isinstance(each, Interrupted)]
        assert announced == list("abcde")
        assert [each.migration for each in operations.newest_first(ME)] == ["e", "d"]
    assert [found.body.migration for found in loaded(tmp_path)] == ["d", "e"]


async def test_fewer_are_kept_after_a_reload(tmp_path: Path) -> None:
    left_committing(tmp_path, *"abcde")
    with recalled(tmp_path) as (operations, _):
        operations.use(Limits(operations_at_once=2, operations_kept=3), Replay())
        await operations.prepare(wish(software(), "sim0"))
        assert [each.migration for each in operations.newest_first(ME)] == ["vm-1", "e", "d"]
    assert [found.body.migration for found in loaded(tmp_path)] == ["d", "e", "vm-1"]


def no_commands(body: Body) -> bytes:
    """A commit under way of what are no commands."""
    program = SimpleNamespace(lengths=(2,) * 200, encoded=b"\xee\xee" * 200)
    return encode_record(body, Stage.COMMITTING, cast("Program", program))


def no_reason(body: Body) -> bytes:
    """A failure of nothing."""
    return encode_record(body, Stage.FAILED)


def not_answered(body: Body) -> bytes:
    """A restore without an ack."""
    return encode_record(body, Stage.RESTORED, encoded())


def without_acks(body: Body) -> bytes:
    """A restore without room for acks, and without a report."""
    return encode_record(body, Stage.RESTORED)


def refused(body: Body) -> bytes:
    """A restore with all acks, one of which is none."""
    whole = encode_record(body, Stage.RESTORED, encoded())
    return whole[:ACKS_AT] + bytes([ACK_OK] * 199 + [ACK_ERR]) + whole[ACKS_AT + 200 :]


def otherwise_restored(body: Body) -> bytes:
    """A restore whose report says that it failed."""
    return encode_record(body.model_copy(update={"report": told()}), Stage.RESTORED)


@pytest.mark.parametrize(
    "forge", [no_commands, no_reason, not_answered, without_acks, refused, otherwise_restored]
)
def test_a_record_that_contradicts_itself_is_set_aside(
    tmp_path: Path, forge: Callable[[Body], bytes]
) -> None:
    left_committing(tmp_path, "vm-1")
    body = only(tmp_path).body.model_copy(update={"lengths": ()})
    record = file_of(tmp_path)
    record.write_bytes(forge(body))
    with recalled(tmp_path) as (operations, events):
        assert [type(each) for each in events] == [RecordsRead, RecordLost]
        assert operations.newest_first(ME) == []
    assert list(tmp_path.iterdir()) == [record.with_suffix(".unreadable")]
    with recalled(tmp_path) as (operations, events):
        assert events == []
        assert operations.newest_first(ME) == []
    assert list(tmp_path.iterdir()) == [record.with_suffix(".unreadable")]


# --- devices that were kept ---


class Kept:
    """A device that an earlier daemon kept."""

    def __init__(self, owner: str, *, is_unused: bool) -> None:
        self.owner = owner
        self.is_unused = is_unused


async def test_of_kept_devices_those_that_have_nothing_of_a_guest_are_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_committing(tmp_path / "operations", "vm-1")
    records = Records(tmp_path / "operations")
    for migration, commands in (("vm-2", COMMANDS), ("vm-3", ())):
        record = create(records, migration, commands)
        record.begin()
        record.progress.words[ANSWERED] = len(commands)
        record.end(success(1, len(commands)))
        record.close()
    records.close()
    adopted = [
        Kept("vm-0", is_unused=True),
        Kept("vm-1", is_unused=False),
        Kept("vm-2", is_unused=False),
        Kept("vm-3", is_unused=True),
    ]
    closed = []

    async def adopt(*_: object) -> list[Kept]:
        return adopted

    async def close(_: object, kept: Kept) -> None:
        closed.append(kept)

    monkeypatch.setattr(DeviceKeeper, "adopt", adopt)
    monkeypatch.setattr(DeviceKeeper, "close", close)
    async with serving(tmp_path, records={"directory": tmp_path / "operations"}):
        assert closed == adopted[:1]
