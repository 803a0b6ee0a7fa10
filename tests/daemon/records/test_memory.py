"""Memory that one daemon leaves to the next, in a file beside the records."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from vdpad.daemon.records.directory import Records

SIZE = 40_000


def memory_in(folder: Path, size: int = SIZE) -> bytes | None:
    """What the next daemon finds."""
    records = Records(folder)
    try:
        memory = records.memory("memory", size)
        return None if memory is None else bytes(memory)
    finally:
        records.close()


def test_it_is_zeros_and_then_what_was_left_there(records: Records, folder: Path) -> None:
    memory = records.memory("memory", SIZE)
    assert memory is not None
    assert bytes(memory) == bytes(SIZE)
    memory[0], memory[SIZE - 1] = 1, 2
    records.close()
    assert memory_in(folder) == b"\x01" + bytes(SIZE - 2) + b"\x02"
    assert memory_in(folder, SIZE + 8) == bytes(SIZE + 8)
    assert (folder / "memory").stat().st_mode & 0o777 == 0o600


def test_no_store_into_it_needs_room_that_may_not_be_there(records: Records, folder: Path) -> None:
    (folder / "memory").touch()
    os.truncate(folder / "memory", SIZE)
    assert records.memory("memory", SIZE) is not None
    assert (folder / "memory").stat().st_blocks * 512 >= SIZE


def test_without_a_directory_there_is_none() -> None:
    assert Records(None).memory("memory", SIZE) is None


def test_records_and_memories_leave_each_other_alone(records: Records, folder: Path) -> None:
    memory = records.memory("memory", SIZE)
    assert memory is not None
    memory[0] = 1
    records.close()
    others = Records(folder)
    with capture_logs() as events:
        assert others.load() == []
    others.close()
    assert events == []
    assert memory_in(folder) == b"\x01" + bytes(SIZE - 1)


def link_to_nothing(place: Path) -> None:
    place.symlink_to("elsewhere")


@pytest.mark.parametrize("put", [os.mkfifo, Path.mkdir, link_to_nothing])
def test_what_else_has_its_name_is_told(
    records: Records, folder: Path, put: Callable[[Path], None]
) -> None:
    put(folder / "memory")
    with capture_logs() as events:
        assert records.memory("memory", SIZE) is None
    assert [(each["event"], each["record"]) for each in events] == [("record-lost", "memory")]
    assert not (folder / "elsewhere").exists()


def test_where_there_is_no_room_the_next_one_does_not_find_what_was_before(
    records: Records, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert records.memory("memory", SIZE) is not None

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, capture_logs() as events:
        patched.setattr(os, "posix_fallocate", full)
        assert records.memory("memory", SIZE) is None
    assert "No space left" in events[0]["reason"]
    assert not (folder / "memory").exists()
