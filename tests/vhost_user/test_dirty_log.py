"""The dirty log against sets of pages, and files that are none."""

import fcntl
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random

import numpy as np
import pytest

from tests.availability import skip_or_fail
from tests.vhost_user.log_file import log_file, pages_in
from vdpad.vhost_user.dirty_log import map_log
from vdpad.vhost_user.faults import NotServed
from vdpad.vhost_user.payloads import LogArea

pytestmark = pytest.mark.usefixtures("nothing_left")

SIZE = 3 * mmap.PAGESIZE + 5
"""Of a log, which need not have whole pages."""
SHRINK = fcntl.F_SEAL_SHRINK


class Marked:
    """A log, and what the front end sees in it."""

    def __init__(self, stack: ExitStack, size: int = SIZE) -> None:
        self.fd = stack.enter_context(log_file(size))
        self.log = map_log(LogArea(size, 0), self.fd)
        self.size = size
        stack.callback(self.log.close)

    def pages(self) -> set[int]:
        return pages_in(self.fd)

    def clear(self) -> None:
        os.pwrite(self.fd, bytes(self.size), 0)


@pytest.fixture
def marked() -> Iterator[Marked]:
    with ExitStack() as stack:
        yield Marked(stack)


def touched(address: int, length: int, end: int = SIZE * 8) -> set[int]:
    """The pages on which those bytes lie, each byte looked at but for whole pages."""
    if not length:
        return set()
    return {page for page in range(address >> 12, ((address + length - 1) >> 12) + 1) if page < end}


@pytest.mark.parametrize(
    ("address", "length"),
    [
        *((0, 1), (0, 0), (4095, 1), (4095, 2), (4096, 4096), (1, 4096)),
        *((7 * 4096, 4096), (7 * 4096, 8192), (8 * 4096, 8 * 4096), (9 * 4096 - 1, 16 * 4096 + 2)),
        *((3 << 12, 1 << 20), (0, SIZE << 15), (0, 1 << 52)),
        *(((SIZE * 8 - 1) << 12, 8192), (SIZE << 15, 1), ((1 << 64) - 1, 1), (5, (1 << 64) - 5)),
    ],
)
def test_pages_of_a_stretch(marked: Marked, address: int, length: int) -> None:
    marked.log.mark(address, length)
    expected = touched(address, length) if length < 1 << 30 else None
    if expected is None:
        expected = {*range(address >> 12, min(SIZE * 8, (address + length + 4095) >> 12))}
    assert marked.pages() == expected
    assert marked.log.marked == len(expected)


def test_many_stretches_and_pages_at_random(marked: Marked) -> None:
    random = Random(15)
    for _ in range(300):
        marked.clear()
        expected = set[int]()
        for _ in range(8):
            address = random.randrange(SIZE << 15)
            length = random.choice((random.randrange(1, 5000), random.randrange(1 << 20)))
            marked.log.mark(address, length)
            expected |= touched(address, length)
        numbers = random.choices(range(SIZE * 8 + 50), k=random.randrange(300))
        numbers += numbers[:10]
        marked.log.mark_pages(np.array(numbers, dtype=np.uint64))
        expected |= {number for number in numbers if number < SIZE * 8}
        assert marked.pages() == expected


def test_pages_outside_of_it_and_none(marked: Marked) -> None:
    marked.log.mark_pages(np.array([(1 << 64) - 1, 1 << 63, 1 << 52, SIZE * 8], dtype=np.uint64))
    marked.log.mark_pages(np.array([], dtype=np.uint64))
    assert marked.pages() == set()
    assert marked.log.marked == 0


def test_no_page_of_a_byte_is_lost_in_bulk(marked: Marked) -> None:
    marked.log.mark_pages(np.arange(8 * 100, dtype=np.uint64).repeat(3))
    assert marked.pages() == {*range(8 * 100)}


def test_what_others_have_written_is_marked_when_it_is_taken_over(marked: Marked) -> None:
    def write(first: int) -> None:
        for page in range(first, first + 500):
            marked.log.hand_over(page << 12, 1)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 500, 1000)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert marked.pages() == set()
    marked.log.take_over()
    assert marked.pages() == {*range(1500)}


def test_bits_that_a_reader_clears_meanwhile_are_read_or_stand(marked: Marked) -> None:
    """A reader that takes words as QEMU does, by exchanging each for 0."""
    wanted = [*range(0, 64, 3)]
    with mmap.mmap(marked.fd, SIZE) as theirs:
        words = np.frombuffer(theirs, dtype=np.uint64, count=1)
        found = 0
        for page in wanted:
            marked.log.mark(page << 12, 1)
            if page % 2:
                found |= int(words[0])
                words[0] = 0
        found |= int(words[0])
        del words
    assert {bit for bit in range(64) if found >> bit & 1} == {*wanted}


def test_a_log_that_lies_somewhere_in_its_file() -> None:
    with log_file(4 * mmap.PAGESIZE) as fd:
        log = map_log(LogArea(mmap.PAGESIZE, 2 * mmap.PAGESIZE), fd)
        log.mark(9 << 12, 1)
        log.close()
        assert os.pread(fd, 4 * mmap.PAGESIZE, 0).strip(b"\0") == b"\2"
        assert os.pread(fd, 1, 2 * mmap.PAGESIZE + 1) == b"\2"
        assert log.end == mmap.PAGESIZE << 15


@pytest.mark.parametrize(
    ("area", "why"),
    [
        (LogArea(0, 0), "1 to"),
        (LogArea((1 << 37) + 1, 0), "1 to"),
        (LogArea((1 << 64) - 1, (1 << 64) - 1), "1 to"),
        (LogArea(1, 8), "at a multiple"),
        (LogArea(SIZE + 1, 0), "of at least"),
        (LogArea(SIZE, mmap.PAGESIZE), "of at least"),
        (LogArea(1, 1 << 63), "of at least"),
    ],
)
def test_an_area_that_is_none(area: LogArea, why: str) -> None:
    with log_file(SIZE) as fd, pytest.raises(NotServed, match=why):
        map_log(area, fd)


@pytest.mark.parametrize(
    ("seals", "why"),
    [(0, "F_SEAL_SHRINK"), (fcntl.F_SEAL_GROW, "F_SEAL_SHRINK"), (SHRINK | 8, "for writing")],
)
def test_a_memfd_with_other_seals(seals: int, why: str) -> None:
    with log_file(SIZE, seals) as fd, pytest.raises(NotServed, match=why):
        map_log(LogArea(SIZE, 0), fd)


def test_what_is_no_memfd(tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(tmp_path, "log"), "w+b") as file:
        file.write(bytes(SIZE))
        file.flush()
        with pytest.raises(NotServed, match="memfd"):
            map_log(LogArea(SIZE, 0), file.fileno())
    end, other = os.pipe()
    try:
        with pytest.raises(NotServed, match="memfd"):
            map_log(LogArea(SIZE, 0), end)
    finally:
        os.close(end)
        os.close(other)


def test_huge_pages_are_refused() -> None:
    try:
        huge = log_file(2 << 20, flags=os.MFD_HUGETLB)
        with huge as fd, pytest.raises(NotServed, match="MFD_HUGETLB"):
            map_log(LogArea(SIZE, 0), fd)
    except OSError as error:
        skip_or_fail(f"no huge pages: {error}")


_SHRINKS = """
import os
from tests.vhost_user.test_dirty_log import *
with log_file(SIZE) as fd:
    log = map_log(LogArea(SIZE, 0), fd)
    try:
        os.ftruncate(fd, 0)
    except PermissionError:
        log.mark(0, log.end)
        print(log.marked)
"""


def test_a_log_cannot_shrink_under_us() -> None:
    process = subprocess.run(
        [sys.executable, "-c", _SHRINKS], capture_output=True, text=True, check=False
    )
    assert process.returncode != -signal.SIGBUS
    assert process.stdout == f"{SIZE * 8}\n", process.stderr
