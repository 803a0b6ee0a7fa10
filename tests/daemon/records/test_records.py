"""Records: what is written is what is read, and what cannot be kept is told and fails nobody."""

import os
import resource
import shutil
import tempfile
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.daemon.records.recording import (
    COMMANDS,
    DIGEST,
    ENDED,
    create,
    details,
    encoded,
    failure,
    file_of,
    loaded,
    only,
    success,
)
from tests.support.batches import vlans
from vdpad.daemon.records.directory import Records
from vdpad.daemon.records.endings import Cancellation, Failure, Shutdown, Stage, Success
from vdpad.daemon.records.file import MAX_RECORD, BadRecord, decode_record
from vdpad.daemon.records.recalled import ending
from vdpad.queues.control_queue import Lent
from vdpad.queues.eventfds import UNKNOWN_EVENTFD
from vdpad.restore.progress import ANSWERED, DOORBELLS
from vdpad.restore.replay import Outcome
from vdpad.service.refusal import Kind
from vdpad.virtio.commands import ACK_ERR, ACK_OK

# --- what is written is what is read ---


def test_prepared(folder: Path, records: Records) -> None:
    create(records).close()
    records.close()
    found = only(folder)
    assert (found.body.migration, found.body.digest, found.body.commands) == ("vm-1", DIGEST, 200)
    assert found.body.target == {"kind": "software", "name": "sim0"}
    end = ending(found)
    assert (end.stage, end.renewable, end.failure) == (Stage.FAILED, True, None)
    assert end.report is not None
    assert end.report.outcome is Outcome.INTERRUPTED
    assert (end.report.applied, end.report.unanswered_total, end.report.doorbells) == (0, 200, 0)
    assert end.report.unanswered[0].command == COMMANDS[0].NAME
    assert end.report.unanswered[63].arguments == COMMANDS[63].arguments()
    assert end.report.device_must_reset is False


def test_interrupted(folder: Path, records: Records) -> None:
    record = create(records)
    record.begin()
    record.progress.words[ANSWERED] = 64
    record.progress.words[DOORBELLS] = 3
    record.progress.acks[64:96] = bytes([ACK_OK] * 30 + [ACK_ERR] * 2)
    record.progress.acks[7] = ACK_ERR
    record.close()
    records.close()
    end = ending(only(folder))
    assert (end.stage, end.renewable) == (Stage.FAILED, False)
    assert end.report is not None
    assert end.report.outcome is Outcome.INTERRUPTED
    assert (end.report.applied, end.report.doorbells) == (93, 3)
    assert [line.index for line in end.report.rejected] == [7, 94, 95]
    assert [line.index for line in end.report.unanswered] == list(range(96, 160))
    assert end.report.unanswered_total == 104
    assert (end.report.device_must_reset, end.report.ring) == (True, None)
    assert end.failure is not None
    assert end.failure[0] is Kind.INTERNAL
    assert "93 of 200 commands are known to be applied, and up to 32 more" in end.failure[1]


def test_no_more_may_be_applied_than_is_left(folder: Path, records: Records) -> None:
    record = create(records)
    record.begin()
    record.progress.words[ANSWERED] = 190
    record.close()
    records.close()
    end = ending(only(folder))
    assert end.failure is not None
    assert "190 of 200 commands are known to be applied, and up to 10 more" in end.failure[1]


@pytest.mark.parametrize(("commit_us", "index"), [(1 << 53, 0), (0, 1 << 16)])
def test_a_restore_that_cannot_be(
    folder: Path, records: Records, commit_us: int, index: int
) -> None:
    record = create(records, commands=())
    record.begin()
    record.end(success(commit_us - 1, index) if commit_us else success(0, index - 1))
    assert ending(decode_record(file_of(folder).read_bytes())).stage is Stage.RESTORED
    record.end(success(commit_us, index))
    with pytest.raises(BadRecord, match="makes no sense"):
        decode_record(file_of(folder).read_bytes())


def test_restored_by_its_mark_and_settled(folder: Path, records: Records) -> None:
    record = create(records)
    record.begin()
    record.progress.words[ANSWERED] = 192
    record.progress.words[DOORBELLS] = 2
    record.progress.acks[192:] = bytes([ACK_OK] * 8)
    expected = success()
    record.end(expected)
    assert ending(decode_record(file_of(folder).read_bytes())) == expected
    large = file_of(folder).stat().st_size
    records.settle(record, expected)
    records.close()
    assert file_of(folder).stat().st_size < large
    assert ending(only(folder)) == expected


@pytest.mark.parametrize("end", [success(), failure()], ids=["restored", "failed"])
def test_what_was_lent_is_known_at_each_stage(
    folder: Path, records: Records, end: Success | Failure
) -> None:
    lent = Lent(device=1, inode=(1 << 64) - 1, kick=0, call=UNKNOWN_EVENTFD)
    record = create(records)
    assert decode_record(file_of(folder).read_bytes()).lent is None
    record.begin(lent)
    assert decode_record(file_of(folder).read_bytes()).lent == lent
    if isinstance(end, Success):
        record.end(end)
        assert decode_record(file_of(folder).read_bytes()).lent == lent
    records.settle(record, end)
    records.close()
    assert only(folder).lent == lent


def test_failed(folder: Path, records: Records) -> None:
    expected = failure("the device refused 1 of 200 commands")
    record = create(records)
    record.begin()
    records.settle(record, expected)
    with pytest.raises(ValueError, match="released"):
        record.begin()
    records.close()
    assert ending(only(folder)) == expected


@pytest.mark.parametrize(("kind", "renewable"), [(Cancellation, False), (Shutdown, True)])
@pytest.mark.parametrize("settle", [True, False])
def test_cancelled(
    folder: Path,
    records: Records,
    kind: type[Cancellation | Shutdown],
    renewable: bool,
    settle: bool,
) -> None:
    expected = kind(ended=ENDED)
    record = create(records)
    record.end(expected)
    if settle:
        records.settle(record, expected)
    else:
        record.close()
    records.close()
    end = ending(only(folder))
    assert (end, end.renewable) == (expected, renewable)


def test_no_commands(folder: Path, records: Records) -> None:
    record = create(records, commands=())
    record.begin()
    record.end(success(5, 0))
    record.close()
    records.close()
    end = ending(only(folder))
    assert end.report is not None
    assert (end.stage, end.report.commands) == (Stage.RESTORED, 0)


def test_a_commit_meets_no_page_fault() -> None:
    """In its record, on tmpfs; each is a new one."""
    faults = []
    folder = tempfile.TemporaryDirectory(dir="/dev/shm")
    records = Records(Path(folder.name))
    restored = success(1, 2)
    for number in range(20):
        record = create(records, f"vm-{number}", commands=vlans(4000) * 4)
        answers = bytes([ACK_OK]) * 16000
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        record.begin()
        record.progress.words[ANSWERED] = 16000
        record.progress.acks[:] = answers
        record.end(restored)
        faults.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)
        record.close()
    records.close()
    folder.cleanup()
    # What Python does beside it may meet one.
    assert faults.count(0) > len(faults) // 2


# --- what cannot be written ---


def test_a_directory_that_is_removed_fails_nobody(folder: Path, records: Records) -> None:
    """What was prepared by then goes on, and the next daemon makes a new one."""
    before = create(records)
    shutil.rmtree(folder)
    with capture_logs() as logs:
        for record in (before, create(records, "vm-2")):
            record.begin()
            record.progress.acks[:] = bytes([ACK_OK]) * 200
            record.end(success(1, 200))
            records.settle(record, success())
    assert [log["record"] for log in logs] == ["vm-2", "vm-1", "vm-2"]
    assert records.load() == []
    assert loaded(folder) == []


def test_a_full_file_system_fails_nobody(
    folder: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an earlier record of this migration does not pass for the one that was not written."""
    create(records).close()
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:100]))
        with capture_logs() as logs:
            record = create(records)
            record.begin()
            records.settle(record, failure())
    assert [log["reason"] for log in logs] == ["No space left on device"] * 2
    assert list(folder.iterdir()) == []


def test_a_record_that_no_reader_would_take_is_not_written(folder: Path, records: Records) -> None:
    target = {"kind": "lent", "much": "x" * MAX_RECORD}
    with capture_logs() as logs:
        records.create(details(target=target), encoded()).begin()
    assert [log["event"] for log in logs] == ["record-lost"]
    assert list(folder.iterdir()) == []


def test_a_last_word_that_cannot_be_written_leaves_the_mark(
    folder: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = create(records)
    record.begin()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", _no_space)
        records.settle(record, failure())
    records.close()
    end = ending(only(folder))
    assert end.report is not None
    assert (end.stage, end.report.outcome) == (Stage.FAILED, Outcome.INTERRUPTED)


def _no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")
