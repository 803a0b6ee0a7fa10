"""A record's file: what is none, or was damaged, is refused, and never passes for a restore."""

import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.daemon.records.recording import create, file_of, loaded
from tests.support.batches import vlans
from vdpad.daemon.records.directory import Records
from vdpad.daemon.records.endings import Stage
from vdpad.daemon.records.file import BadRecord, decode_record, encode_record
from vdpad.daemon.records.recalled import ending
from vdpad.restore.progress import ANSWERED


def whole() -> bytes:
    """The bytes of the record of a commit under way, not half of its commands answered."""
    with tempfile.TemporaryDirectory() as name:
        records = Records(Path(name))
        record = create(records, commands=vlans(40))
        record.begin()
        record.progress.words[ANSWERED] = 16
        record.close()
        records.close()
        return file_of(Path(name)).read_bytes()


WHOLE = whole()
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


def test_any_time_is_one() -> None:
    """It changes in place with the stage, so no checksum covers it."""
    damaged = bytearray(WHOLE)
    damaged[STAGE_AT : STAGE_AT + 8] = bytes([Stage.CANCELLED, *[0xFF] * 7])
    ended = ending(decode_record(bytes(damaged))).ended
    assert ended is not None
    assert ended.year == 4253


def test_another_kind_of_file() -> None:
    with pytest.raises(BadRecord, match="another kind of file"):
        decode_record(b"vdpad-xx" + WHOLE[8:])


@pytest.mark.parametrize("stage", [Stage.PREPARED, Stage.COMMITTING])
def test_what_has_not_ended_has_an_ack_for_each_command(stage: Stage) -> None:
    whole = encode_record(decode_record(WHOLE).body.model_copy(update={"lengths": ()}), stage)
    with pytest.raises(BadRecord, match="expected 40 acks, got 0"):
        decode_record(whole)


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
    assert at // 8 < WHOLE.index(b'{"migration"')
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


def _with_more_commands(text: bytes) -> bytes:
    return text.replace(b'"commands":40', b'"commands":41')


def _with_longer_commands(text: bytes) -> bytes:
    return text.replace(b"[[40,4]]", b"[[40,5]]")


def _with_commands_of_nothing(text: bytes) -> bytes:
    return text.replace(b"[[40,4]]", b"[[40,4],[0,1]]")


def _without_a_kind(text: bytes) -> bytes:
    return text.replace(b'"kind":', b'"sort":')


def _of_a_kind_that_is_no_word(text: bytes) -> bytes:
    return text.replace(b'"kind":"software"', b'"kind":["software"]')


FORGERIES = {
    _as_version_2: "version",
    _with_a_key: "more",
    _of_another: "vm-2",
    _with_no_number: "prepare_us",
    _without_a_kind: "target.kind",
    _of_a_kind_that_is_no_word: "target.kind",
    _with_more_commands: "expected 41 acks, got 40",
    _with_longer_commands: "not as long",
    _with_commands_of_nothing: "make no sense",
}


@pytest.mark.parametrize(
    ("forge", "why"), FORGERIES.items(), ids=lambda each: getattr(each, "__name__", each)
)
def test_a_record_of_another_hand(tmp_path: Path, forge: Any, why: str) -> None:
    """With a checksum that is right."""
    folder = tmp_path / "operations"
    records = Records(folder)
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
    aside = path.with_suffix(".unreadable")
    assert list(folder.iterdir()) == [aside]
    assert f"it was set aside as {aside.name}" in log["reason"]
