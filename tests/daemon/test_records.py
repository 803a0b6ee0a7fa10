"""Records: what is written is what is read, and what is no record is told and dropped."""

import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.daemon.support import ROOT
from tests.support.batches import mixed, vlans
from vdpad.daemon.endings import Ending, ending
from vdpad.daemon.faults import Kind
from vdpad.daemon.record_file import BadRecord, Found, Record, Stage, decode_record
from vdpad.daemon.records import NoRecords, Records, records_directory
from vdpad.restore.program import Program, encode
from vdpad.restore.progress import ANSWERED, DOORBELLS
from vdpad.restore.replay import Outcome, Replayed
from vdpad.restore.report import Report, report
from vdpad.virtio.commands import ACK_ERR, ACK_OK, Command
from vdpad.virtio.split_ring import Region, RingGeometry, lay_out

GEOMETRY: RingGeometry = lay_out(64, Region(0x10000, 0x20000))
COMMANDS = mixed(200)
DIGEST = "0a" * 32


def encoded(commands: tuple[Command, ...] = COMMANDS) -> Program:
    return encode(commands, GEOMETRY, event_idx=True)


def create(
    records: Records, migration: str = "vm-1", commands: tuple[Command, ...] = COMMANDS
) -> Record:
    return records.create(
        encoded(commands),
        migration=migration,
        digest=DIGEST,
        target={"kind": "software", "name": "sim0"},
        doorbells=3,
        widened=("wide",),
        prepare_us=42,
    )


def told(outcome: Outcome = Outcome.REJECTED, rejected: tuple[int, ...] = (3,)) -> Report:
    replayed = Replayed(outcome, rejected, (), 2, 1_000_000, 200)
    return report("vm-1", COMMANDS, replayed, widened=("wide",), prepare_us=42)


def loaded(folder: Path, most: int = 100) -> list[Found]:
    """What the next daemon finds."""
    records = Records(folder, most)
    try:
        return records.load()
    finally:
        records.close()


def only(folder: Path) -> Found:
    (found,) = loaded(folder)
    return found


def file_of(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "operations"


@pytest.fixture
def records(folder: Path) -> Any:
    """To be closed before the next daemon may read."""
    made = Records(folder, 100)
    yield made
    made.close()


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


def test_restored_by_its_mark_and_settled(folder: Path, records: Records) -> None:
    record = create(records)
    record.begin()
    record.progress.words[ANSWERED] = 192
    record.progress.words[DOORBELLS] = 2
    record.progress.acks[192:] = bytes([ACK_OK] * 8)
    record.restored(1000, 200)
    expected = Ending(Stage.RESTORED, told(Outcome.RESTORED, ()))
    assert ending(decode_record(file_of(folder).read_bytes())) == expected
    large = file_of(folder).stat().st_size
    records.settle(record, Stage.RESTORED, report=expected.report)
    records.close()
    assert file_of(folder).stat().st_size < large
    assert ending(only(folder)) == expected


def test_failed(folder: Path, records: Records) -> None:
    failure = (Kind.REJECTED, "the device refused 1 of 200 commands")
    record = create(records)
    record.begin()
    records.settle(record, Stage.FAILED, report=told(), failure=failure)
    records.close()
    assert ending(only(folder)) == Ending(Stage.FAILED, told(), failure)


@pytest.mark.parametrize(("stage", "renewable"), [(Stage.CANCELLED, False), (Stage.STOPPED, True)])
@pytest.mark.parametrize("settle", [True, False])
def test_cancelled(
    folder: Path, records: Records, stage: Stage, renewable: bool, settle: bool
) -> None:
    record = create(records)
    record.end(stage)
    if settle:
        records.settle(record, stage)
    else:
        record.close()
    records.close()
    assert ending(only(folder)) == Ending(Stage.CANCELLED, renewable=renewable)


def test_no_commands(folder: Path, records: Records) -> None:
    record = create(records, commands=())
    record.begin()
    record.restored(5, 0)
    record.close()
    records.close()
    end = ending(only(folder))
    assert end.report is not None
    assert (end.stage, end.report.commands) == (Stage.RESTORED, 0)


# --- the directory ---


def test_records_are_read_oldest_first_and_the_newest_are_kept(folder: Path) -> None:
    for _ in range(2):
        records = Records(folder, 4)
        names = [found.body.migration for found in records.load()]
        for name in ("c", "a", "b"):
            create(records, f"{name}{len(names)}").close()
        records.close()
    assert [found.body.migration for found in loaded(folder, 4)] == ["b0", "c3", "a3", "b3"]
    assert len(list(folder.iterdir())) == 4


def test_a_record_takes_the_place_of_an_earlier_one(folder: Path, records: Records) -> None:
    create(records).close()
    create(records, "vm-2").close()
    create(records).close()
    records.close()
    assert [found.body.migration for found in loaded(folder)] == ["vm-2", "vm-1"]


def test_a_record_is_forgotten(folder: Path, records: Records) -> None:
    create(records).close()
    records.forget("vm-1")
    records.forget("vm-2")
    assert list(folder.iterdir()) == []


def test_one_process_has_the_directory(folder: Path, records: Records) -> None:
    with pytest.raises(NoRecords, match="another vdpad"):
        Records(folder, 100)
    records.close()
    Records(folder, 100).close()


def test_a_directory_that_others_can_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(NoRecords, match="mode 0777"):
        Records(tmp_path, 100)


@pytest.mark.parametrize("kind", ["file", "link", "nowhere"])
def test_no_directory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "operations"
    if kind == "file":
        path.write_text("")
    elif kind == "link":
        path.symlink_to(tmp_path)
    else:
        path = path / "further"
    with pytest.raises(NoRecords, match="expected a directory"):
        Records(path, 100)


def test_where_records_are_kept() -> None:
    assert records_directory(None, {}) is None
    assert records_directory(None, {"RUNTIME_DIRECTORY": ""}) is None
    two = {"RUNTIME_DIRECTORY": "/run/vdpad:/run/other"}
    assert records_directory(None, two) == Path("/run/vdpad/operations")
    assert records_directory(Path("/here"), two) == Path("/here")


def test_without_a_directory_nothing_is_kept() -> None:
    records = Records(None, 100)
    record = create(records)
    record.begin()
    record.progress.words[ANSWERED] = 200
    record.restored(1, 2)
    records.settle(record, Stage.RESTORED)
    records.forget("vm-1")
    assert records.load() == []
    records.close()


# --- what cannot be written ---


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
            records.settle(record, Stage.FAILED, report=told())
    assert [log["reason"] for log in logs] == ["No space left on device"] * 2
    assert list(folder.iterdir()) == []


def test_a_last_word_that_cannot_be_written_leaves_the_mark(
    folder: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = create(records)
    record.begin()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", _no_space)
        records.settle(record, Stage.FAILED, report=told())
    records.close()
    end = ending(only(folder))
    assert end.report is not None
    assert (end.stage, end.report.outcome) == (Stage.FAILED, Outcome.INTERRUPTED)


def _no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


# --- what is no record ---


def whole(stage: Stage) -> bytes:
    """A record's bytes, half of its commands answered."""
    with tempfile.TemporaryDirectory() as name:
        records = Records(Path(name), 10)
        record = create(records, commands=vlans(40))
        if stage is not Stage.PREPARED:
            record.begin()
            record.progress.words[ANSWERED] = 16
        record.close()
        records.close()
        return file_of(Path(name)).read_bytes()


WHOLE = whole(Stage.COMMITTING)
STAGE_AT, ANSWERED_AT = 24, 32


def test_a_mark_that_cannot_be() -> None:
    """More was answered than there is."""
    damaged = bytearray(WHOLE)
    assert damaged[STAGE_AT : ANSWERED_AT + 1 : 8] == bytes([Stage.COMMITTING, 16])
    damaged[ANSWERED_AT] = 40
    assert ending(decode_record(bytes(damaged))).stage is Stage.FAILED
    damaged[ANSWERED_AT] = 41
    with pytest.raises(BadRecord, match="at the most"):
        decode_record(bytes(damaged))


def test_a_record_that_was_cut() -> None:
    for size in range(len(WHOLE)):
        with pytest.raises(BadRecord):
            decode_record(WHOLE[:size])


@given(at=st.integers(0, 8 * len(WHOLE) - 1))
@example(at=8 * STAGE_AT)
def test_a_record_with_a_wrong_bit_is_never_restored(at: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[at // 8] ^= 1 << at % 8
    try:
        end = ending(decode_record(bytes(damaged)))
    except BadRecord:
        return
    # Stage and acks change in place, so no checksum covers them.
    assert at // 8 < WHOLE.index(b'{"version"')
    assert end.stage is not Stage.RESTORED


@given(data=st.binary(min_size=1, max_size=400))
def test_any_bytes(data: bytes) -> None:
    for each in (data, WHOLE[:24] + data, WHOLE[:64] + data, data + WHOLE):
        with pytest.raises(BadRecord):
            decode_record(each)


def _as_version_2(text: bytes) -> bytes:
    return text.replace(b'"version":1', b'"version":2')


def _with_a_key(text: bytes) -> bytes:
    return text.replace(b'"version":1', b'"version":1,"more":1')


def _of_another(text: bytes) -> bytes:
    return text.replace(b'"vm-1"', b'"vm-2"')


def _with_no_number(text: bytes) -> bytes:
    return text.replace(b'"prepare_us":42', b'"prepare_us":-1')


def _with_longer_commands(text: bytes) -> bytes:
    return text.replace(b"[[40,4]]", b"[[40,5]]")


def _with_commands_of_nothing(text: bytes) -> bytes:
    return text.replace(b"[[40,4]]", b"[[40,4],[0,1]]")


FORGERIES = {
    _as_version_2: "version",
    _with_a_key: "more",
    _of_another: "vm-2",
    _with_no_number: "prepare_us",
    _with_longer_commands: "not as long",
    _with_commands_of_nothing: "make no sense",
}


@pytest.mark.parametrize(("forge", "why"), FORGERIES.items(), ids=lambda each: str(each)[:30])
def test_a_record_of_another_hand(folder: Path, forge: Any, why: str) -> None:
    """With a checksum that is right."""
    records = Records(folder, 10)
    create(records, commands=vlans(40)).close()
    records.close()
    path = file_of(folder)
    data = path.read_bytes()
    magic, _, acks, body, commands = struct.unpack_from("<8sIIII", data)
    text = forge(data[-body - commands : -commands])
    assert text != data[-body - commands : -commands]
    checksum = zlib.crc32(text + data[-commands:])
    head = struct.pack("<8sIIII", magic, checksum, acks, len(text), commands)
    path.write_bytes(head + data[24 : -body - commands] + text + data[-commands:])
    with capture_logs() as logs:
        assert loaded(folder) == []
    (log,) = logs
    assert (log["event"], why in log["reason"]) == ("record-lost", True), log
    assert list(folder.iterdir()) == []


def test_a_directory_full_of_strangers(folder: Path, records: Records) -> None:
    """Ours are read, what stands in their place is dropped, and all else is left alone."""
    create(records).close()
    records.close()
    ours = file_of(folder)
    strangers = [f"{letter * 32}.operation" for letter in "abcdef"]
    os.mkfifo(folder / strangers[0])
    (folder / strangers[1]).symlink_to("/dev/zero")
    (folder / strangers[2]).mkdir()
    (folder / strangers[3]).write_bytes(b"")
    (folder / strangers[4]).write_bytes(ours.read_bytes())
    with (folder / strangers[5]).open("wb") as large:
        large.truncate(1 << 40)
    (folder / f".{'a' * 32}.new").write_text("cut")
    (folder / "notes.txt").write_text("mine")
    with capture_logs() as logs:
        found = only(folder)
    assert found.body.migration == "vm-1"
    dropped = sorted(log["record"] for log in logs if log["event"] == "record-lost")
    assert dropped == sorted(strangers)
    # A directory cannot be unlinked, and stays.
    left = {ours.name, "notes.txt", strangers[2]}
    assert {path.name for path in folder.iterdir()} == left


# --- a writer that is killed ---

_WRITER = """
import sys
from pathlib import Path
from tests.daemon.test_records import create, told
from vdpad.daemon.record_file import Stage
from vdpad.daemon.records import Records
records = Records(Path(sys.argv[1]), 100)
print("ready", flush=True)
while True:
    for number in range(8):
        record = create(records, f"vm-{number}")
        record.begin()
        record.progress.acks[:] = bytes(200)
        records.settle(record, Stage.FAILED, report=told(), failure=("rejected", "refused"))
"""


def test_a_writer_that_is_killed_leaves_whole_records(folder: Path) -> None:
    chance = random.Random(5)
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0.001, 0.05))
            child.send_signal(signal.SIGKILL)
        with capture_logs() as logs:
            for found in loaded(folder):
                ending(found)
        assert [log for log in logs if log["event"] == "record-lost"] == []
        assert not list(folder.glob(".*"))
    assert len(list(folder.iterdir())) == 8
