"""Descriptors of another's, read and written to their ends, whatever they are."""

import asyncio
import os
import select
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.descriptors import no_descriptor_left
from tests.support.no_means import few_descriptors, no_threads
from tests.support.waiting import GUARD, until
from vdpad.backend.moving.foreign_file import BadTransfer, ForeignFiles

LONG = bytes(range(256)) * 4096
"""Longer than any pipe."""


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    with no_descriptor_left():
        yield


def _named(threads: str) -> int:
    return sum(thread.name == threads for thread in threading.enumerate())


async def _gone(files: ForeignFiles) -> None:
    await until(lambda: not _named("device state") and not files.asleep)


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("pair", [os.pipe, socket.socketpair])
async def test_to_the_end_both_ways(pair: type, blocking: bool) -> None:
    ends = [each if isinstance(each, int) else each.detach() for each in pair()]
    reader, writer = ends
    for each in ends:
        os.set_blocking(each, blocking)
    files = ForeignFiles()

    async def write() -> None:
        await files.write(writer, LONG)
        os.close(writer)

    async with asyncio.timeout(GUARD):
        read, _ = await asyncio.gather(files.read(reader, len(LONG)), write())
    assert read == LONG
    os.close(reader)
    await _gone(files)


async def test_of_one_without_an_end_a_byte_too_many_is_read() -> None:
    files = ForeignFiles()
    zero = os.open("/dev/zero", os.O_RDONLY)
    assert len(await files.read(zero, 5000)) == 5001
    os.close(zero)
    await _gone(files)


async def test_a_file_and_what_is_none(tmp_path: Path) -> None:
    files = ForeignFiles()
    path = tmp_path / "state"
    with path.open("wb") as file:
        await files.write(file.fileno(), LONG)
        with pytest.raises(BadTransfer, match="Bad file descriptor"):
            await files.read(file.fileno(), 1)
    with path.open("rb") as file:
        assert await files.read(file.fileno(), len(LONG)) == LONG
        with pytest.raises(BadTransfer, match="Bad file descriptor"):
            await files.write(file.fileno(), b"x")
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(BadTransfer, match="Is a directory"):
        await files.read(folder, 1)
    os.close(folder)
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(BadTransfer, match="No space left"):
        await files.write(full, b"x")
    os.close(full)
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BadTransfer, match="Broken pipe"):
        await files.write(writer, b"x")
    os.close(writer)
    await _gone(files)


@pytest.mark.parametrize("writes", [True, False])
async def test_one_that_nobody_waits_for_ends(writes: bool) -> None:
    files = ForeignFiles()
    reader, writer = os.pipe()
    moving = files.write(writer, LONG) if writes else files.read(reader, 1)
    task = asyncio.create_task(moving)
    await asyncio.sleep(0.02)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await _gone(files)
    os.close(reader)
    os.close(writer)


class _Taking:
    """Takes from a pipe what poll(2) has seen there, before the thread does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reader: int) -> None:
        self._read = os.read
        self._reader = reader
        monkeypatch.setattr(os, "read", self._taken)

    def _taken(self, fd: int, size: int) -> bytes:
        self._read(self._reader, size)
        return self._read(fd, size)


async def test_few_sleep_on_and_then_no_more_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes the byte in between has a thread sleep that nobody can call off."""
    files, pipes = ForeignFiles(), [os.pipe() for _ in range(8)]
    for reader, writer in pipes:
        with monkeypatch.context() as patched:
            _Taking(patched, reader)
            os.write(writer, b"x")
            task = asyncio.create_task(files.read(reader, 1))
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.wait([task])
    with pytest.raises(BadTransfer, match="at most 8 earlier descriptors"):
        await files.read(pipes[0][0], 1)
    for _, writer in pipes:
        os.close(writer)
    await _gone(files)
    reader, writer = os.pipe()
    os.close(writer)
    assert await files.read(reader, 1) == b""
    for each in (reader, *(reader for reader, _ in pipes)):
        os.close(each)
    await _gone(files)


def _in_error() -> int:
    """A socket that does not block, is in error for poll(2), and has nothing to be read."""
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setblocking(False)
    # SO_TIMESTAMPING: of what it sends, by software; the time is queued as an error.
    sender.setsockopt(socket.SOL_SOCKET, 37, 1 << 1 | 1 << 4)
    sender.sendto(b"x", ("127.0.0.1", 9))
    return sender.detach()


def _without_room() -> int:
    """An eventfd that does not block, and has room for 1, but not for what is written."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    os.eventfd_write(fd, 2**64 - 3)
    return fd


@pytest.mark.parametrize(
    ("made", "use"),
    [
        (_in_error, lambda files, fd: files.read(fd, 100)),
        (_without_room, lambda files, fd: files.write(fd, b"{version")),
    ],
)
async def test_one_that_is_ready_and_does_nothing_takes_no_processor(
    monkeypatch: pytest.MonkeyPatch,
    made: Callable[[], int],
    use: Callable[[ForeignFiles, int], Coroutine[Any, Any, object]],
) -> None:
    looks: list[select.poll] = []
    poll = select.poll

    def counted() -> select.poll:
        looks.append(poll())
        return looks[-1]

    monkeypatch.setattr(select, "poll", counted)
    files = ForeignFiles()
    fd = made()
    using = asyncio.ensure_future(use(files, fd))
    begun = asyncio.get_running_loop().time()
    await until(lambda: len(looks) >= 20)
    took = asyncio.get_running_loop().time() - begun
    assert not using.done()
    # Every second look is the pause; without it all of them take less than a millisecond.
    assert took > 0.05
    using.cancel()
    await asyncio.wait([using])
    os.close(fd)
    await _gone(files)


@pytest.mark.parametrize("spare", [0, 1])
@pytest.mark.parametrize("use", [ForeignFiles.read, ForeignFiles.write])
async def test_without_descriptors_it_is_a_bad_transfer(
    use: Callable[..., Coroutine[Any, Any, object]], spare: int
) -> None:
    ends, files = os.pipe(), ForeignFiles()
    of_what = 100 if use is ForeignFiles.read else b"state"
    with few_descriptors(spare), pytest.raises(BadTransfer, match="Too many open files"):
        await use(files, ends[0], of_what)
    os.write(ends[1], b"state")
    os.close(ends[1])
    assert await files.read(ends[0], 100) == b"state"
    os.close(ends[0])


async def test_without_threads_it_is_a_bad_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    zero = os.open("/dev/zero", os.O_RDONLY)
    with monkeypatch.context() as patch, no_descriptor_left():
        no_threads(patch)
        with pytest.raises(BadTransfer, match="TasksMax="):
            await ForeignFiles().read(zero, 100)
    os.close(zero)
