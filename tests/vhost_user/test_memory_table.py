"""Memory that a front end shares: three kinds of addresses, and files that are none."""

import fcntl
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.support.fuse import silent_file
from tests.vhost_user.front_end import Memory
from vdpad.vhost_user.faults import NotServed
from vdpad.vhost_user.memory_table import (
    MAX_REGIONS,
    MemoryTable,
    check_regions,
    file_identity,
    map_region,
)
from vdpad.vhost_user.payloads import MemoryRegion
from vdpad.virtio.guest_memory import BadRegion, OutsideMemory
from vdpad.virtio.rings import Region

PAGE = mmap.PAGESIZE
GUEST, USER = 0x10_0000, 0x7F00_0000_0000

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def file() -> Iterator[int]:
    """A memfd of 16 pages, each of which begins with its number."""
    memory = Memory()
    for page in range(16):
        os.pwrite(memory.fd, bytes([page]), page * PAGE)
    yield memory.fd
    memory.close()


@pytest.fixture
def table() -> Iterator[MemoryTable]:
    table = MemoryTable()
    yield table
    for mapped in table:
        table.take_out(mapped)
        mapped.unmap()


def pages(first: int, number: int, guest: int = GUEST, user: int = USER) -> MemoryRegion:
    """So many pages of a file from one on, at those addresses."""
    return MemoryRegion(guest, number * PAGE, user, first * PAGE)


# --- addresses ---


def test_the_front_end_s_addresses_and_the_guest_s_lead_to_the_same_bytes(
    file: int, table: MemoryTable
) -> None:
    low = pages(2, 3)
    high = pages(8, 2, GUEST + 16 * PAGE, USER + 5 * PAGE)
    for region in (low, high):
        table.check(region)
        table.add(map_region(region, file))
    assert table.guest_address(USER) == GUEST
    assert table.guest_address(USER + 3 * PAGE - 1) == GUEST + 3 * PAGE - 1
    assert table.guest_address(USER + 5 * PAGE + 7) == GUEST + 16 * PAGE + 7
    for user in (0, USER - 1, USER + 3 * PAGE, USER + 7 * PAGE, (1 << 64) - 1):
        with pytest.raises(NotServed, match=hex(user)):
            table.guest_address(user)
    assert table.memory.read(GUEST + PAGE, 1) == b"\x03"
    assert table.memory.read(GUEST + 17 * PAGE, 1) == b"\x09"
    with pytest.raises(OutsideMemory):
        table.memory.read(GUEST + 3 * PAGE - 1, 2)


def test_writes_reach_the_file(file: int, table: MemoryTable) -> None:
    table.add(map_region(pages(3, 2), file))
    table.memory.write(GUEST + PAGE, b"guest")
    assert os.pread(file, 5, 4 * PAGE) == b"guest"


def test_a_region_lies_where_it_is_said_to_in_this_process(file: int, table: MemoryTable) -> None:
    mapped = map_region(pages(3, 2), file)
    table.add(mapped)
    assert mapped.address % PAGE == 0
    with Path("/proc/self/maps").open() as maps:
        (line,) = [line for line in maps if "front-end-memory" in line]
    start, _, end = line.split()[0].partition("-")
    assert (int(start, 16), int(end, 16)) == (mapped.address, mapped.address + 2 * PAGE)
    assert mapped.guest == Region(GUEST, 2 * PAGE)


def test_one_stretch_of_a_file_under_two_guest_addresses(file: int, table: MemoryTable) -> None:
    for guest in (GUEST, GUEST + PAGE):
        table.check(pages(5, 1, guest))
        table.add(map_region(pages(5, 1, guest), file))
    table.memory.write(GUEST, b"both")
    assert table.memory.read(GUEST + PAGE, 4) == b"both"
    assert table.guest_address(USER) in (GUEST, GUEST + PAGE)


# --- what is refused ---


@pytest.mark.parametrize(
    ("region", "text"),
    [
        (MemoryRegion(GUEST, 0, USER, 0), "size: expected at least a page, got 0"),
        (MemoryRegion(GUEST, PAGE + 1, USER, 0), "size: expected a multiple"),
        (MemoryRegion(GUEST + 16, PAGE, USER, 0), "guest_address: expected a multiple"),
        (MemoryRegion(GUEST, PAGE, USER + 8, 0), "user_address: expected a multiple"),
        (MemoryRegion(GUEST, PAGE, USER, 1), "mmap_offset: expected a multiple"),
        (MemoryRegion((1 << 64) - PAGE, 2 * PAGE, USER, 0), "guest_address: expected an end"),
        (MemoryRegion(GUEST, 2 * PAGE, (1 << 64) - PAGE, 0), "user_address: expected an end"),
        (MemoryRegion(GUEST, 2 * PAGE, USER, (1 << 64) - PAGE), "mmap_offset: expected an end"),
        (pages(0, 1), "do not overlap"),
        (pages(0, 4, GUEST - PAGE), "do not overlap"),
        (pages(0, 1, GUEST + PAGE), "do not overlap"),
        (MemoryRegion(GUEST + 2 * PAGE, (1 << 44) - PAGE, USER, 0), "bytes of memory, got"),
    ],
)
def test_regions_that_cannot_be(
    file: int, table: MemoryTable, region: MemoryRegion, text: str
) -> None:
    table.add(map_region(pages(0, 2), file))
    with pytest.raises(NotServed, match=text):
        table.check(region)
    assert [mapped.region for mapped in table] == [pages(0, 2)]


def test_there_are_only_so_many() -> None:
    regions = [pages(0, 1, GUEST + n * PAGE) for n in range(MAX_REGIONS)]
    check_regions(regions)
    with pytest.raises(NotServed, match=f"at most {MAX_REGIONS} memory regions"):
        check_regions([*regions, pages(0, 1, 0)])


def test_a_file_that_is_shorter_than_said(file: int) -> None:
    map_region(pages(15, 1), file).unmap()
    with pytest.raises(NotServed, match=f"at least {17 * PAGE} bytes"):
        map_region(pages(15, 2), file)
    with pytest.raises(NotServed, match="at least"):
        map_region(MemoryRegion(GUEST, PAGE, USER, (1 << 63)), file)


def test_a_file_that_cannot_be_written(file: int) -> None:
    read_only = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)
    with pytest.raises(NotServed, match="mapped for writing"):
        map_region(pages(0, 1), read_only)
    os.close(read_only)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    with pytest.raises(NotServed, match="mapped for writing"):
        map_region(pages(0, 1), file)


def test_descriptors_that_are_no_memory(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(bytes(PAGE))
    with ExitStack() as stack:
        opened = [
            os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC),
            os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC),
            os.open(tmp_path, os.O_RDONLY | os.O_CLOEXEC),
            os.eventfd(0, os.EFD_CLOEXEC),
            *os.pipe(),
        ]
        # A test's own folder may be on tmpfs, whose files are memory.
        if _file_system(tmp_path) != "tmpfs":
            opened.append(os.open(plain, os.O_RDWR | os.O_CLOEXEC))
        for fd in opened:
            stack.callback(os.close, fd)
            with pytest.raises(NotServed, match="expected memory"):
                map_region(pages(0, 1), fd)
            with pytest.raises(NotServed, match="expected memory"):
                file_identity(fd)


def _file_system(path: Path) -> str:
    found = subprocess.run(
        ["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def test_a_file_that_would_sleep_is_not_asked(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        skip_or_fail("mounting FUSE takes root and /dev/fuse")
    with silent_file(tmp_path) as (fd, asked):
        with pytest.raises(NotServed, match="expected memory"):
            map_region(pages(0, 1), fd)
        assert not asked.is_set()
    with suppress(OSError):  # its server is gone, which close(2) tells
        os.close(fd)


def test_a_file_on_tmpfs_is_memory() -> None:
    path = Path("/dev/shm/vdpad-front-end-memory")
    path.write_bytes(b"tmpfs".ljust(PAGE, b"\0"))
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    path.unlink()
    mapped = map_region(pages(0, 1), fd)
    os.close(fd)
    assert bytes(mapped.view[:5]) == b"tmpfs"
    mapped.unmap()


def test_the_same_file_is_known_by_another_descriptor(file: int) -> None:
    again, other = os.dup(file), Memory()
    assert file_identity(again) == file_identity(file) != file_identity(other.fd)
    os.close(again)
    other.close()


# --- removing ---


def test_what_is_removed_is_named_by_its_addresses_and_its_size(
    file: int, table: MemoryTable
) -> None:
    mapped = map_region(pages(4, 2), file)
    table.add(mapped)
    for wrong in (pages(4, 1), pages(4, 2, GUEST + PAGE), pages(4, 2, user=USER + PAGE)):
        with pytest.raises(NotServed, match="expected one that was added"):
            table.find(wrong)
    assert table.find(pages(0, 2)) is mapped
    table.take_out(mapped)
    mapped.unmap()
    with pytest.raises(NotServed):
        table.guest_address(USER)
    with pytest.raises(OutsideMemory):
        table.memory.read(GUEST, 1)


def test_memory_that_a_ring_uses_stays(file: int, table: MemoryTable) -> None:
    mapped = map_region(pages(4, 2), file)
    table.add(mapped)
    ring = table.memory.stretch(Region(GUEST, 64))
    with pytest.raises(BadRegion, match="expected no ring there any more"):
        table.take_out(mapped)
    assert [*table] == [mapped]
    ring.release()


# --- memory that shrinks ---

_TRUNCATED = """
import os
from tests.vhost_user.front_end import Memory
from vdpad.vhost_user.memory_table import MemoryTable, map_region
from vdpad.vhost_user.payloads import MemoryRegion

memory = Memory()
table = MemoryTable()
table.add(map_region(MemoryRegion(0, Memory.SIZE, 0, 0), memory.fd))
os.ftruncate(memory.fd, 0)
print("truncated", flush=True)
table.memory.read(0, 1)
print("read", flush=True)
"""


def test_memory_that_is_truncated_ends_the_process_and_nothing_else() -> None:
    """What no check can keep off; why there is one process for each device."""
    ended = subprocess.run([sys.executable, "-c", _TRUNCATED], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (-signal.SIGBUS, "truncated\n"), ended.stderr
