"""The records' directory: whose it is, what else stands in it, and a writer that is killed."""

import os
import random
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.daemon.records.recording import create, details, encoded, file_of, loaded, only, success
from tests.support.forker import forker
from tests.support.waiting import wait_until
from vdpad.daemon.records.directory import NoRecords, Records, records_directory
from vdpad.daemon.records.recalled import ending
from vdpad.restore.progress import ANSWERED

# --- the directory ---


def test_records_are_read_oldest_first(folder: Path) -> None:
    names: list[str] = []
    for daemon in range(8):
        records = Records(folder)
        assert [found.body.migration for found in records.load()] == names
        names += [f"{name}{daemon}" for name in "ca"]
        for name in names[-2:]:
            create(records, name).close()
        records.close()
    assert [found.body.sequence for found in loaded(folder)] == list(range(16))


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
        Records(folder)
    records.close()
    Records(folder).close()


def test_a_directory_that_others_can_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(NoRecords, match="mode 0777"):
        Records(tmp_path)


def test_a_directory_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Records(folder).close()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(NoRecords, match=f"of uid {os.getuid()}"):
        Records(folder)


def test_a_new_directory_is_for_nobody_else(folder: Path, records: Records) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_directory_that_cannot_be_locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", _no_space)
    with pytest.raises(NoRecords, match="No space left"):
        Records(folder)


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
        Records(path)


def test_where_records_are_kept() -> None:
    assert records_directory(None, {}) is None
    assert records_directory(None, {"RUNTIME_DIRECTORY": ""}) is None
    two = {"RUNTIME_DIRECTORY": "/run/vdpad:/run/other"}
    assert records_directory(None, two) == Path("/run/vdpad/operations")
    assert records_directory(Path("/here"), two) == Path("/here")


def test_without_a_directory_nothing_is_kept() -> None:
    records = Records(None)
    record = create(records)
    assert record.progress.known().unanswered == tuple(range(200))
    record.begin()
    record.progress.words[ANSWERED] = 200
    record.end(success(1, 2))
    records.settle(record, success(1, 2))
    records.forget("vm-1")
    assert records.load() == []
    records.close()


ODD_TARGETS = [
    {"kind": "vhost-vdpa", "path": "/dev/\u202e\x1b[31m\x00é\U0001f600"},
    {"kind": "lent", "ring": {"memory": {"iova": (1 << 64) - 1, "size": 1 << 63}}, "": None},
    {"kind": "lent", "features": [f"bit_{bit}" for bit in range(200)], "config": {}},
]


@pytest.mark.parametrize("target", ODD_TARGETS, ids=range(len(ODD_TARGETS)))
def test_a_target_of_any_json(folder: Path, records: Records, target: Any) -> None:
    device = str(target.get("path", ""))
    records.create(details(target=target, device=device), encoded()).close()
    records.close()
    body = only(folder).body
    assert (body.target, body.device) == (target, device)


# --- strangers ---


def test_a_directory_full_of_strangers(folder: Path, records: Records) -> None:
    """Ours are read, what may be a record is set aside, what is none goes, all else stays."""
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
    aside = strangers[4].replace("operation", "unreadable")
    left = {ours.name, "notes.txt", strangers[2], aside}
    assert {path.name for path in folder.iterdir()} == left


def test_a_record_behind_a_link_is_dropped(folder: Path, records: Records) -> None:
    create(records).close()
    records.close()
    ours = file_of(folder)
    elsewhere = ours.rename(folder.parent / "elsewhere")
    ours.symlink_to(elsewhere)
    with capture_logs() as logs:
        assert loaded(folder) == []
    assert [log["event"] for log in logs] == ["record-lost"]
    assert elsewhere.exists()


# --- a writer that is killed ---


def test_a_writer_that_is_killed_leaves_whole_records(folder: Path) -> None:
    chance = random.Random(5)
    with forker("tests.daemon.records.recording") as writers:
        for _ in range(40):
            with writers.child(str(folder)):
                time.sleep(chance.uniform(0, 0.05))
            with capture_logs() as logs:
                for found in loaded(folder):
                    ending(found)
            assert [log for log in logs if log["event"] == "record-lost"] == []
            assert not list(folder.glob(".*"))
        with writers.child(str(folder)):
            wait_until(lambda: len(list(folder.glob("*.operation"))) == 8)
    assert len(loaded(folder)) == 8


def _no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")
