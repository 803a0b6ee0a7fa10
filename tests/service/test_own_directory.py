"""A directory of ours alone, in which somebody else may have been."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vdpad.service.own_directory import read_file, take_directory, write_file

LONG = bytes(1 << 17)
"""Longer than a pipe, so that writing it to one never ends."""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = take_directory(tmp_path, "tests")
    yield fd
    os.close(fd)


def _file_of_an_earlier_process(path: Path) -> None:
    path.write_bytes(b"half")


def _link(path: Path) -> None:
    path.symlink_to("elsewhere")


def _second_name(path: Path) -> None:
    path.with_name("elsewhere").write_bytes(b"another's")
    path.hardlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("there", [_file_of_an_earlier_process, _link, os.mkfifo, _second_name])
@pytest.mark.parametrize("whole", [b"short", LONG])
def test_what_has_the_temporary_name_is_not_written_to(
    tmp_path: Path, directory: int, there: Callable[[Path], None], whole: bytes
) -> None:
    there(tmp_path / ".name.new")
    write_file("name.file", directory, whole, len(LONG))
    assert stat.S_ISREG((tmp_path / "name.file").lstat().st_mode)
    assert read_file("name.file", directory, len(LONG)) == whole
    assert not os.path.lexists(tmp_path / ".name.new")
    elsewhere = tmp_path / "elsewhere"
    assert not elsewhere.exists() or elsewhere.read_bytes() == b"another's"


def test_a_directory_of_the_temporary_name_is_told(tmp_path: Path, directory: int) -> None:
    (tmp_path / ".name.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_file("name.file", directory, b"short", len(LONG))
    assert not (tmp_path / "name.file").exists()
