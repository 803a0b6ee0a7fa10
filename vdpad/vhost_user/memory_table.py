"""The guest's memory as a front end shares it: files mapped here, and three kinds of addresses.

How it works. A region has a guest address, by which the device and the guest's descriptors name it;
a user address, by which the front end names rings; and a place in the file that came with it. It is
*mapped* by `map_region`, then *added* to the table, which is the only thing that others look
addresses up in; it is *taken out* before it is *unmapped*. The table itself makes no system call.
Unmapping gives pages back, and takes as long as there are many: it belongs on a thread.

What is checked of a region, so that no access of ours can fail later:

- guest addresses of two regions never overlap (GuestMemory refuses it), and none ends past 2^64.
  User addresses may: a front end maps one file twice, or shows one stretch under two addresses;
- regions are whole pages, of which there are so many and no more;
- the file is memory (a memfd, or a file on tmpfs or hugetlbfs), which is asked by what cannot
  sleep. Nothing else is mapped: behind a mapping of another file stands a file system that answers
  when it pleases, and vDPA drivers pin none. So mapping does not sleep either;
- the file is as long as the region says.

What cannot be checked: a file that is not sealed against shrinking (F_SEAL_SHRINK) can be truncated
afterwards, and a huge page can be taken away. The next access to what is gone ends this process by
SIGBUS. Not every VMM can seal (tmpfs has no seals), so these are taken all the same. That is why
one process serves one device: a VMM that does so ends its own back end, and the kernel resets the
device.
"""

import ctypes
import fcntl
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vdpad.vhost_user.faults import NotServed
from vdpad.vhost_user.payloads import MemoryRegion
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import ADDRESS_END, Region

_PAGE = mmap.PAGESIZE

MAX_REGIONS = 509
"""What GET_MAX_MEM_SLOTS says; as many as KVM once took, and what other back ends say. Each has a
descriptor of its mapping's, which stops a front end from taking all that this process may have."""

# All regions together, in bytes. Stops sparse files from taking all of this process's addresses.
_MAX_BYTES = 1 << 44


@dataclass(frozen=True, slots=True, eq=False)
class MappedRegion:
    """A region that this process can reach. `unmap` ends it."""

    region: MemoryRegion
    file: tuple[int, int]
    """What tells its file from another's: device and inode."""
    address: int
    """Where its first byte lies in this process."""
    view: memoryview
    """Its bytes. GuestMemory releases it."""
    mapping: mmap.mmap

    @property
    def guest(self) -> Region:
        """Where it stands in device addresses."""
        return Region(self.region.guest_address, self.region.size)

    def unmap(self) -> None:
        """Gives the mapping back. May take long, and is for a thread; nobody may use the view."""
        self.view.release()
        self.mapping.close()


class MemoryTable:
    """All regions of one front end. Not for two threads at once."""

    def __init__(self) -> None:
        """No memory at all."""
        self.memory = GuestMemory()
        """The same by guest addresses."""
        self._mapped: list[MappedRegion] = []

    def __iter__(self) -> Iterator[MappedRegion]:
        """All regions, in the order in which they came; the table may be changed meanwhile."""
        return iter(list(self._mapped))

    @property
    def end(self) -> int:
        """The first guest address behind all memory; 0 where there is none."""
        return max((mapped.guest.end for mapped in self._mapped), default=0)

    def check(self, region: MemoryRegion) -> None:
        """Refuses a region that could not be added now, before anything is mapped.

        Raises:
            NotServed: as of `check_regions`.
        """
        check_regions([*(each.region for each in self._mapped), region])

    def add(self, mapped: MappedRegion) -> None:
        """Takes a region in that was checked and mapped.

        Raises:
            BadRegion: it overlaps another; it stays the caller's.
        """
        self.memory.add(mapped.guest, mapped.view)
        self._mapped.append(mapped)

    def find(self, region: MemoryRegion) -> MappedRegion:
        """The region of this guest address, user address and size.

        Raises:
            NotServed: there is none.
        """
        for mapped in self._mapped:
            if mapped.region[:3] == region[:3]:
                return mapped
        raise NotServed(
            f"memory region {region}: expected one that was added, got another; it is named by "
            "its guest address, size and user address"
        )

    def take_out(self, mapped: MappedRegion) -> None:
        """Takes a region out, for its owner to unmap.

        Raises:
            BadRegion: a ring there is in use; then nothing has changed.
        """
        self.memory.remove(mapped.guest)
        self._mapped.remove(mapped)

    def guest_address(self, user_address: int) -> int:
        """What the device calls a place that the front end names by an address of its own.

        Raises:
            NotServed: there is no memory.
        """
        for mapped in self._mapped:
            offset = user_address - mapped.region.user_address
            if 0 <= offset < mapped.region.size:
                return mapped.region.guest_address + offset
        raise NotServed(
            f"expected an address within the memory that was shared, got {user_address:#x}"
        )


def map_region(region: MemoryRegion, fd: int) -> MappedRegion:
    """Maps a region whose numbers were checked. Does not sleep.

    Args:
        region: what the front end says of it.
        fd: its file; it stays the caller's, and is not needed afterwards.

    Raises:
        NotServed: the file is no memory, is too short, or cannot be mapped for writing.
    """
    _check_is_memory(fd)
    status = os.fstat(fd)
    end = region.mmap_offset + region.size
    if status.st_size < end:
        raise NotServed(
            f"expected a file of at least {end} bytes (mmap_offset + size), got {status.st_size}"
        )
    # Of hugetlbfs a mapping has whole huge pages, whatever the region has.
    page = max(_PAGE, os.fstatvfs(fd).f_bsize)
    begin = region.mmap_offset // page * page
    length = min(-(-end // page) * page, status.st_size) - begin
    try:
        mapping = mmap.mmap(
            fd, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=begin
        )
    except (OSError, ValueError, OverflowError) as error:
        raise NotServed(
            f"expected a file that can be mapped for writing, got {error}; share the guest's "
            "memory (share=on)"
        ) from error
    skipped = region.mmap_offset - begin
    return MappedRegion(
        region,
        (status.st_dev, status.st_ino),
        ctypes.addressof(ctypes.c_char.from_buffer(mapping, skipped)),
        memoryview(mapping)[skipped : skipped + region.size],
        mapping,
    )


def file_identity(fd: int) -> tuple[int, int]:
    """What tells a memory file from another, however often it was duplicated. Does not sleep.

    Raises:
        NotServed: it is no memory.
    """
    _check_is_memory(fd)
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _check_is_memory(fd: int) -> None:
    # Only memory files have seals, if only the one that forbids more; asking does not sleep.
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise NotServed(
            "expected memory (a memfd, or a file on tmpfs or hugetlbfs), got another kind of "
            "descriptor; give the VMM a memory backend of that kind"
        ) from error


def check_regions(regions: Sequence[MemoryRegion]) -> None:
    """Refuses regions that could not be in one table.

    Raises:
        NotServed: their numbers make no sense, two overlap, or there are too many.
    """
    for region in regions:
        _check_numbers(region)
    guest = sorted(Region(each.guest_address, each.size) for each in regions)
    for below, above in pairwise(guest):
        if below.end > above.iova:
            raise NotServed(
                f"expected memory regions that do not overlap, got {below} and {above}; remove one "
                "first"
            )
    if len(regions) > MAX_REGIONS:
        raise NotServed(f"expected at most {MAX_REGIONS} memory regions, got {len(regions)}")
    total = sum(each.size for each in regions)
    if total > _MAX_BYTES:
        raise NotServed(f"expected at most {_MAX_BYTES} bytes of memory, got {total}")


def _check_numbers(region: MemoryRegion) -> None:
    for name, value in region._asdict().items():
        if value % _PAGE:
            raise NotServed(
                f"memory region's {name}: expected a multiple of {_PAGE}, got {value:#x}"
            )
    if not region.size:
        raise NotServed("memory region's size: expected at least a page, got 0")
    for name, start in (
        ("guest_address", region.guest_address),
        ("user_address", region.user_address),
        ("mmap_offset", region.mmap_offset),
    ):
        if start + region.size > ADDRESS_END:
            raise NotServed(
                f"memory region's {name}: expected an end of at most 2^64, got "
                f"{start + region.size:#x}"
            )
