"""Records of another version: set aside, so that a downgrade and an upgrade lose nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.daemon.records.recording import create, failure, file_of, loaded
from vdpad.daemon.records import aside, file
from vdpad.daemon.records.directory import Records


@contextmanager
def of_another_version(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """A vdpad whose records have another magic, and which knows no others."""
    with patch.context() as other:
        other.setattr(file, "_MAGIC", b"vdpad-o9")
        other.setattr(file, "_MARKS", {b"vdpad-o9": file._MARK})
        yield


def left(folder: Path, *migrations: str) -> None:
    """Records of operations that have failed."""
    records = Records(folder)
    records.load()
    for each in migrations:
        records.settle(create(records, each), failure(each))
    records.close()


def names(folder: Path) -> list[str]:
    """The migrations that the next daemon knows."""
    return [each.body.migration for each in loaded(folder)]


def unreadable(folder: Path) -> list[Path]:
    """What is set aside."""
    return list(folder.glob("*.unreadable"))


def test_a_downgrade_and_an_upgrade_lose_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(folder, "vm-1", "vm-2")
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    with of_another_version(monkeypatch):
        with capture_logs() as logs:
            assert names(folder) == []
        assert [log["event"] for log in logs] == ["record-lost"] * 2
        assert all("got another kind of file; it was set aside as" in log["reason"] for log in logs)
        with capture_logs() as logs:
            assert names(folder) == []
        assert logs == []
        left(folder, "vm-3")
    with capture_logs() as logs:
        assert names(folder) == ["vm-1", "vm-2"]
    assert [log["event"] for log in logs] == ["record-lost"]
    there = {each.name: each.read_bytes() for each in folder.glob("*.operation")}
    assert there == before
    with of_another_version(monkeypatch):
        assert names(folder) == ["vm-3"]


def test_what_came_later_of_a_migration_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was forgotten since: an earlier outcome would be told for a later request."""
    left(folder, "vm-1", "vm-2", "vm-3")
    with of_another_version(monkeypatch):
        records = Records(folder)
        records.load()
        create(records, "vm-1").close()
        records.settle(create(records, "vm-2"), failure())
        records.forget("vm-2")
        records.close()
        assert names(folder) == ["vm-1"]
    assert names(folder) == ["vm-3"]


def test_one_that_has_another_record_by_now_stays_aside(folder: Path) -> None:
    left(folder, "vm-1")
    path = file_of(folder)
    beside = path.with_suffix(".unreadable")
    path.rename(beside)
    path.write_bytes(beside.read_bytes())
    left(folder)
    assert beside.exists()
    assert path.exists()


def test_the_oldest_go_where_there_are_too_many(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "MAX_FILES", 3)
    for number in range(5):
        before = set(folder.glob("*"))
        left(folder, f"vm-{number}")
        (new,) = set(folder.iterdir()) - before
        os.utime(new, (number, number))
    with of_another_version(monkeypatch):
        assert names(folder) == []
        assert len(unreadable(folder)) == 3
    assert names(folder) == ["vm-2", "vm-3", "vm-4"]


def test_and_where_they_are_too_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left(folder, "vm-1", "vm-2")
    monkeypatch.setattr(aside, "MAX_BYTES", max(each.stat().st_size for each in folder.iterdir()))
    with of_another_version(monkeypatch):
        assert names(folder) == []
        assert len(unreadable(folder)) == 1
