"""A lent queue: what is refused, in which words, and that nothing is left open."""

import asyncio
import ctypes
import dataclasses
import fcntl
import mmap
import os
import signal
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.support.descriptors import no_descriptor_left, open_descriptors
from tests.support.fuse import silent_file
from tests.support.waiting import GUARD
from vdpad.errors import VdpadError
from vdpad.queues.control_queue import split_ring
from vdpad.queues.lent_indices import Indices
from vdpad.queues.lent_memory import BadLend
from vdpad.queues.lent_queue import LentDescriptors, LentQueue, memory_identity
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import lay_out
from vdpad.wire.descriptors import CLOSER

SIZE = 8192
GEOMETRY = lay_out(8, Region(0x100000, SIZE))
NO_INDICES = Indices()
ALICE, BOB = 1000, 1001

# fcntl has no name for it before Python 3.13 (linux/fcntl.h).
_F_SEAL_FUTURE_WRITE = 0x10


def _memfd(size: int = SIZE, seals: int = fcntl.F_SEAL_SHRINK) -> int:
    fd = os.memfd_create("lent", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.pwrite(fd, bytes(size), 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def _eventfd() -> int:
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


def _put_indices(memory: int, available: int, used: int) -> None:
    for address, index in ((GEOMETRY.available, available), (GEOMETRY.used, used)):
        os.pwrite(memory, struct.pack("<H", index), address - GEOMETRY.memory.iova + 2)


def _lend(
    memory: Callable[[], int] = _memfd,
    kick: Callable[[], int] = _eventfd,
    call: Callable[[], int] = _eventfd,
) -> LentDescriptors:
    return LentDescriptors(memory(), kick(), call())


def _open(descriptors: LentDescriptors, indices: Indices = NO_INDICES) -> LentQueue:
    return LentQueue(GEOMETRY, descriptors, indices, event_idx=False)


@contextmanager
def _queue(memory: int, indices: Indices = NO_INDICES) -> Iterator[LentQueue]:
    queue = _open(_lend(lambda: os.dup(memory)), indices)
    try:
        yield queue
    finally:
        queue.close()


@pytest.fixture
def memory() -> Iterator[int]:
    fd = _memfd()
    yield fd
    os.close(fd)


def _refused(text: str, descriptors: LentDescriptors, indices: Indices = NO_INDICES) -> None:
    """The lend is refused in these words, and all its descriptors are closed."""
    with pytest.raises(BadLend, match=text) as refused:
        _open(descriptors, indices)
    assert isinstance(refused.value, VdpadError)
    assert not {*map(str, dataclasses.astuple(descriptors))} & set(open_descriptors())


# --- the memory ---


def _sparse() -> int:
    fd = os.memfd_create("lent", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    os.pwrite(fd, b"x", 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def _huge() -> int:
    fd = os.memfd_create("lent", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    os.ftruncate(fd, 1 << 21)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def _read_only() -> int:
    fd = _memfd()
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)


def _pipe() -> int:
    end, other = os.pipe()
    os.close(other)
    return end


def _device() -> int:
    return os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC)


MEMORIES = [
    (lambda: _memfd(seals=0), "sealed with F_SEAL_SHRINK, it is not; seal it"),
    (lambda: _memfd(seals=fcntl.F_SEAL_GROW), "sealed with F_SEAL_SHRINK, it is not; seal it"),
    (lambda: _memfd(SIZE - 1), rf"at least {SIZE} bytes \(memory.size\), got {SIZE - 1}"),
    (lambda: _memfd(0), rf"at least {SIZE} bytes \(memory.size\), got 0"),
    (
        lambda: _memfd(seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE),
        "cannot be mapped for writing: EPERM",
    ),
    (
        lambda: _memfd(seals=fcntl.F_SEAL_SHRINK | _F_SEAL_FUTURE_WRITE),
        "cannot be mapped for writing: EPERM",
    ),
    (_read_only, "cannot be mapped for writing: EACCES"),
    (_sparse, "hole at offset 0x1000 .*; write to each page once"),
    (_huge, "one of 2097152 .MFD_HUGETLB., .* a small memfd of its own"),
    (_eventfd, "expected a memfd as the memory, got Invalid argument"),
    (_pipe, "expected a memfd as the memory, got Invalid argument"),
    (_device, "expected a memfd as the memory, got Invalid argument"),
]


@pytest.mark.parametrize(
    ("memory", "text"),
    MEMORIES,
    ids=[
        "unsealed",
        "sealed-otherwise",
        "short",
        "empty",
        "sealed-against-writing",
        "sealed-against-future-writing",
        "read-only",
        "sparse",
        "huge",
        "eventfd",
        "pipe",
        "device",
    ],
)
def test_memory_that_cannot_be_relied_on_is_refused(memory: Callable[[], int], text: str) -> None:
    with no_descriptor_left():
        _refused(text, _lend(memory=memory))


def test_a_file_is_no_memfd_whatever_its_file_system_answers(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(bytes(SIZE))
    with no_descriptor_left():
        _refused("memfd", _lend(memory=lambda: os.open(path, os.O_RDWR)))


def test_a_memfd_may_be_larger_and_may_be_sealed_against_growing() -> None:
    with no_descriptor_left():
        descriptors = _lend(lambda: _memfd(2 * SIZE, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW))
        _open(descriptors).close()


# --- kick and call ---


def _file() -> int:
    return os.open("/proc/self/status", os.O_RDONLY)


@pytest.mark.parametrize("which", ["kick", "call"])
@pytest.mark.parametrize("kind", [_pipe, _file, _memfd])
def test_a_kick_or_call_that_is_no_eventfd_is_refused(which: str, kind: Callable[[], int]) -> None:
    kinds = {which: kind}
    with no_descriptor_left():
        _refused(f"expected an eventfd as the {which}", _lend(**kinds))


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_another_number_of_descriptors_than_three_is_refused(count: int) -> None:
    with pytest.raises(BadLend, match=rf"three descriptors .* got {count}.*SCM_RIGHTS"):
        LentDescriptors.from_list(list(range(count)))


def test_descriptors_come_as_memory_kick_and_call() -> None:
    assert LentDescriptors.from_list([7, 8, 9]) == LentDescriptors(memory=7, kick=8, call=9)


# --- the ring ---


@pytest.mark.parametrize(
    ("available", "used"), [(1, 0), (0, 1), (5, 4), (0, 65535), (65535, 0), (8, 0)]
)
def test_a_ring_that_is_not_idle_is_refused(memory: int, available: int, used: int) -> None:
    _put_indices(memory, available, used)
    with no_descriptor_left():
        _refused(
            f"expected an idle ring, got available index {available} and used index {used}",
            _lend(lambda: os.dup(memory)),
        )


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        (Indices(next_available=6), "next_available: expected 7 as in the ring, got 6"),
        (Indices(next_used=8), "next_used: expected 7 as in the ring, got 8"),
        (Indices(7, 0), "next_used: expected 7 as in the ring, got 0"),
        (Indices(0, 7), "next_available: expected 7 as in the ring, got 0"),
    ],
)
def test_indices_that_the_ring_does_not_hold_are_refused(
    memory: int, indices: Indices, text: str
) -> None:
    _put_indices(memory, 7, 7)
    with no_descriptor_left():
        _refused(text, _lend(lambda: os.dup(memory)), indices)


@pytest.mark.parametrize("index", [0, 1, 7, 8, 65535])
@pytest.mark.parametrize("said", ["neither", "one", "other", "both"])
def test_an_idle_ring_is_taken_at_its_index(memory: int, index: int, said: str) -> None:
    _put_indices(memory, index, index)
    indices = Indices(
        next_available=index if said in ("one", "both") else None,
        next_used=index if said in ("other", "both") else None,
    )
    with no_descriptor_left(), _queue(memory, indices) as queue:
        assert queue.next_index == index
        assert split_ring(queue).available_index == split_ring(queue).used_index() == index


def test_a_refused_ring_has_not_been_written_to(memory: int) -> None:
    _put_indices(memory, 5, 4)
    before = os.pread(memory, SIZE, 0)
    _refused("idle", _lend(lambda: os.dup(memory)))
    assert os.pread(memory, SIZE, 0) == before


def test_taking_and_giving_back_a_ring_writes_nothing(memory: int) -> None:
    _put_indices(memory, 5, 5)
    before = os.pread(memory, SIZE, 0)
    with _queue(memory):
        pass
    assert os.pread(memory, SIZE, 0) == before


# --- use ---


def test_what_is_published_stands_in_the_lender_s_memory(memory: int) -> None:
    lenders = mmap.mmap(memory, SIZE)
    with _queue(memory) as queue:
        queue.ring.publish(3)
        queue.ring.buffers[:4] = b"here"
        at = GEOMETRY.available - GEOMETRY.memory.iova + 2
        assert lenders[at : at + 2] == b"\x03\x00"
        at = GEOMETRY.buffers.iova - GEOMETRY.memory.iova
        assert lenders[at : at + 4] == b"here"
    lenders.close()


def test_a_kick_reaches_the_lender(memory: int) -> None:
    kick = _eventfd()
    queue = _open(LentDescriptors(os.dup(memory), os.dup(kick), _eventfd()))
    queue.kick()
    queue.kick()
    assert os.eventfd_read(kick) == 2
    queue.close()
    os.close(kick)


async def test_a_call_of_the_lender_ends_a_wait(memory: int) -> None:
    call = _eventfd()
    queue = _open(LentDescriptors(os.dup(memory), _eventfd(), os.dup(call)))
    os.eventfd_write(call, 1)
    await queue.called(3600.0)
    queue.close()
    os.close(call)


async def test_a_queue_that_was_waited_on_leaves_nothing_open(memory: int) -> None:
    with no_descriptor_left(), _queue(memory) as queue:
        await queue.called(1.0)


def test_a_queue_may_be_closed_again_and_is_then_of_no_use(memory: int) -> None:
    with no_descriptor_left():
        queue = _open(_lend(lambda: os.dup(memory)))
        queue.close()
        queue.close()
        with pytest.raises(BadLend, match="closed"):
            _ = queue.ring


@pytest.mark.parametrize("worth", [False, True])
def test_the_lender_says_whether_polling_is_worth_it(memory: int, worth: bool) -> None:
    queue = LentQueue(
        GEOMETRY, _lend(lambda: os.dup(memory)), NO_INDICES, event_idx=False, worth_polling=worth
    )
    assert queue.worth_polling is worth
    queue.close()


# --- descriptors ---


def test_a_memory_is_known_again_by_its_duplicates(memory: int) -> None:
    descriptors, other = _lend(lambda: os.dup(memory)), _lend()
    again = descriptors.duplicate()
    assert memory_identity(again) == memory_identity(descriptors)
    assert memory_identity(other) != memory_identity(descriptors)
    for each in (descriptors, again, other):
        each.close()


def test_duplicates_live_on_when_the_first_are_closed(memory: int) -> None:
    with no_descriptor_left():
        descriptors = _lend(lambda: os.dup(memory))
        again = descriptors.duplicate()
        descriptors.close()
        _open(again).close()


def test_a_lender_s_memory_that_takes_long_to_go_holds_up_no_other_s(
    memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []

    def close(uid: int, fds: Sequence[int]) -> None:
        closed.append(uid)
        for fd in fds:
            os.close(fd)

    monkeypatch.setattr(CLOSER, "close", close)
    for lender in (ALICE, BOB):
        lent = _lend(lambda: os.dup(memory))
        again = LentDescriptors.from_list([lent.memory, lent.kick, lent.call], lender).duplicate()
        lent.close()
        _open(again).close()
    assert closed == [-1, ALICE, -1, BOB]


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_where_not_all_can_be_duplicated_none_is_left_open(missing: int) -> None:
    # As where the table of descriptors is full after the first or the second.
    lent = _lend()
    fds = [lent.memory, lent.kick, lent.call]
    fds[missing] = -1
    try:
        with no_descriptor_left(), pytest.raises(BadLend, match="cannot be kept"):
            LentDescriptors.from_list(fds).duplicate()
    finally:
        lent.close()


# --- what is mapped of it ---


def _mapped() -> list[tuple[int, int]]:
    """Where lent memfds are mapped in this process: offset in the memfd, and bytes."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "/memfd:lent" in line:
            addresses, _, offset, *_ = line.split()
            begin, end = (int(each, 16) for each in addresses.split("-"))
            found.append((int(offset, 16), end - begin))
    return sorted(found)


def test_only_the_pages_of_ring_and_buffers_are_mapped() -> None:
    """However large the memory is, and wherever in it they lie."""
    size, far = 1 << 46, 1 << 45
    geometry = dataclasses.replace(
        GEOMETRY,
        memory=Region(GEOMETRY.memory.iova, size),
        used=GEOMETRY.memory.iova + far,
        buffers=Region(GEOMETRY.memory.iova + size - 4096 - 32, 64),
    )
    fd = os.memfd_create("lent", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    for page in (0, far, size - 8192, size - 4096):
        os.pwrite(fd, bytes(4096), page)
    queue = LentQueue(geometry, _lend(lambda: fd), NO_INDICES, event_idx=False)
    try:
        assert _mapped() == [(0, 4096), (far, 4096), (size - 8192, 8192)]
        queue.ring.publish(7)
        queue.ring.buffers[:] = b"b" * 64
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            assert os.pread(file.fileno(), 2, GEOMETRY.available - GEOMETRY.memory.iova + 2) == (
                b"\7\0"
            )
            assert os.pread(file.fileno(), 64, size - 4096 - 32) == b"b" * 64
    finally:
        queue.close()
    assert _mapped() == []


def test_the_lender_s_place_in_the_memfd_is_left_alone(memory: int) -> None:
    os.lseek(memory, 123, os.SEEK_SET)
    with _queue(memory):
        assert os.lseek(memory, 0, os.SEEK_CUR) == 123


def test_what_a_descriptor_is_is_asked_by_what_cannot_sleep(tmp_path: Path) -> None:
    """A file whose server answers nothing would hold up whoever asks it for its status."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        skip_or_fail("mounting FUSE takes root and /dev/fuse")
    with silent_file(tmp_path) as (file, asked):
        for descriptors in (
            LentDescriptors(file, _eventfd(), _eventfd()),
            LentDescriptors(_memfd(), file, _eventfd()),
            LentDescriptors(_memfd(), _eventfd(), file),
        ):
            with pytest.raises(BadLend, match="expected"):
                descriptors.check()
        with pytest.raises(BadLend, match="expected a memfd"):
            memory_identity(LentDescriptors(file, file, file))
        assert not asked.is_set()
        CLOSER.close(0, [file])


def test_a_lender_that_holds_the_file_s_lock_holds_up_nobody(tmp_path: Path) -> None:
    """A write whose source is a page that never comes sleeps with the lock held."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        skip_or_fail("mounting FUSE takes root and /dev/fuse")
    memory, libc = _memfd(), ctypes.CDLL(None)
    with silent_file(tmp_path, size=4096) as (file, asked):
        libc.mmap.restype = ctypes.c_void_p
        source = libc.mmap(None, ctypes.c_size_t(4096), mmap.PROT_READ, mmap.MAP_SHARED, file, 0)
        CLOSER.close(0, [file])
        write = partial(libc.pwrite, memory, ctypes.c_void_p(source), 4096, 0)
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        assert asked.wait(GUARD)
        with _queue(memory) as queue:
            assert queue.next_index == 0
    writer.join(GUARD)
    os.close(memory)


def _is_mapped() -> bool:
    return "/memfd:lent" in Path("/proc/self/maps").read_text()


async def test_a_closed_queue_watches_nothing_and_its_memory_goes_in_a_moment(memory: int) -> None:
    """The ring is the lender's by the reply already, and no reply waits for what is let go of."""
    call = _eventfd()
    try:
        with no_descriptor_left():
            queue = _open(_lend(lambda: os.dup(memory), call=lambda: os.dup(call)))
            await queue.called(0)
            queue.close()
            os.eventfd_write(call, 1)
            await asyncio.sleep(0)
            assert os.eventfd_read(call) == 1
            assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
            assert _is_mapped()
        assert not _is_mapped()
    finally:
        os.close(call)
