"""A file that is kept up to date: never seen half written, and never anybody's trouble."""

import asyncio
import itertools
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.no_means import no_threads
from tests.support.waiting import GUARD, until
from vdpad.service.events.event import Event
from vdpad.service.events.kinds import FileNotWritten
from vdpad.service.textfile import Textfile, write_whole

HOUR = 3600.0


async def at_once() -> None:
    """Nothing is urgent."""


def counting() -> Callable[[], bytes]:
    """Renders 0, then 1 …"""
    numbers = itertools.count()
    return lambda: f"{next(numbers)}".encode()


async def test_it_is_written_at_the_start_at_the_interval_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.prom"
    told: list[Event] = []
    textfile = Textfile(path, 0.01, counting(), at_once, told.append)
    textfile.start()
    await until(lambda: path.exists() and int(path.read_text()) >= 3)
    before = int(path.read_text())
    await textfile.stop()
    assert int(path.read_text()) > before
    assert told == []
    assert os.listdir(tmp_path) == ["a.prom"]


async def test_stopping_does_not_wait_for_the_interval(tmp_path: Path) -> None:
    path = tmp_path / "a.prom"
    textfile = Textfile(path, HOUR, counting(), at_once, lambda _: None)
    textfile.start()
    await until(path.exists)
    async with asyncio.timeout(GUARD):
        await textfile.stop()
    assert path.read_text() == "1"


async def test_it_waits_before_it_renders(tmp_path: Path) -> None:
    order: list[str] = []

    async def until_idle() -> None:
        await asyncio.sleep(0)
        order.append("waited")

    def render() -> bytes:
        order.append("rendered")
        return b""

    textfile = Textfile(tmp_path / "a.prom", HOUR, render, until_idle, lambda _: None)
    textfile.start()
    await until(lambda: len(order) >= 2)
    await textfile.stop()
    assert order[:2] == ["waited", "rendered"]


async def test_a_folder_that_is_missing_is_told_once_until_it_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    path = folder / "a.prom"
    told: list[Event] = []
    rendered = itertools.count()
    last = 0

    def render() -> bytes:
        nonlocal last
        last = next(rendered)
        return b"x"

    textfile = Textfile(path, 0.005, render, at_once, told.append)
    textfile.start()
    await until(lambda: last > 5)
    assert told == [FileNotWritten(str(path), "No such file or directory")]
    folder.mkdir()
    await until(path.exists)
    path.unlink()
    folder.rmdir()
    await until(lambda: len(told) > 1)
    await textfile.stop()
    assert len(told) == 2


async def test_a_fault_in_rendering_ends_nothing(tmp_path: Path) -> None:
    faults = [True, False]
    path = tmp_path / "a.prom"
    told: list[Event] = []

    def render() -> bytes:
        if faults and faults.pop(0):
            raise ValueError("no")
        return b"x"

    textfile = Textfile(path, 0.005, render, at_once, told.append)
    textfile.start()
    await until(path.exists)
    await textfile.stop()
    assert told == [FileNotWritten(str(path), "no")]


def test_a_reader_gets_one_whole_file_or_another(tmp_path: Path) -> None:
    path = tmp_path / "a.prom"
    whole = {bytes([number]) * 100_000 for number in range(2)}
    write_whole(path, min(whole))
    done = threading.Event()

    def write() -> None:
        for _ in range(100):
            for data in whole:
                write_whole(path, data)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not done.is_set():
            assert path.read_bytes() in whole
    finally:
        writer.join()


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The new file's place, which nobody can foretell elsewhere."""
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * 2 * size)
    return tmp_path / f".a.prom.{'0' * 16}"


def test_a_link_in_the_place_of_the_new_file_is_not_followed(tmp_path: Path, beside: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    beside.symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a.prom", b"x")
    assert victim.read_text() == "mine"


def test_a_fifo_in_its_place_is_not_opened(tmp_path: Path, beside: Path) -> None:
    """It would never end."""
    os.mkfifo(beside)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a.prom", b"x")


def test_a_fifo_in_the_file_s_own_place_makes_way(tmp_path: Path) -> None:
    path = tmp_path / "a.prom"
    os.mkfifo(path)
    write_whole(path, b"x")
    assert path.read_bytes() == b"x"


def test_a_full_disk_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.prom"
    write_whole(path, b"older")

    def full(source: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"newer")
    assert path.read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["a.prom"]


async def test_without_a_thread_it_is_told_and_written_when_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, told = tmp_path / "a.prom", list[Event]()
    textfile = Textfile(path, 0.01, counting(), at_once, told.append)
    with monkeypatch.context() as patch:
        no_threads(patch)
        textfile.start()
        await until(lambda: bool(told))
    await until(path.exists)
    await textfile.stop()
    (event,) = told
    assert isinstance(event, FileNotWritten)
    assert "TasksMax" in event.reason
