"""The dirty log: a bitmap of the front end's, in which we mark the pages that we have written.

How it works. A bit stands for a page of 4 KiB by its guest address, whatever pages the host has.
The front end reads and clears words of it at the same time. Stores here are bytes that were just
read, with bits added, by one thread: such a store can bring a bit back that was cleared meanwhile,
and loses none. Two writers would lose each other's. So `mark` and `mark_pages` are for one thread,
the *marking* one; others *hand over* what they have written, and the marking thread *takes it over*
before it answers that all is marked. Which thread that is may change while nobody marks.

What lies behind the log's end is not marked: a guest's descriptor may name any address, and there
is no memory there, as a log that does not cover all memory is refused (memory_logging.py).

The log is a memfd that is sealed against shrinking, or it is refused: a truncated one would end
this process by SIGBUS, and QEMU and cloud-hypervisor both seal theirs. Its pages must not be huge
ones, which can be taken away all the same. Asking for either does not sleep, nor does mapping. How
large it may be is bounded by the addresses that there are; what counts are the pages of it that
marks touch, and these are as few as the guest's memory makes them.

Source: QEMU's docs/interop/vhost-user.rst, "Migration" and "Log description".
"""

import fcntl
import mmap
import os
from collections import deque
from typing import TYPE_CHECKING, Final

from vdpad.errors import why
from vdpad.vhost_user.faults import NotServed
from vdpad.vhost_user.payloads import LogArea

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAGE_SHIFT: Final = 12
"""VHOST_LOG_PAGE is 0x1000: log2 of it."""
_PAGE: Final = 1 << PAGE_SHIFT
_BITS_SHIFT: Final = 3

# x86-64 and arm64 have guest addresses of at most 52 bits. Stops a front end from taking all of
# this process's addresses by a sparse file.
_MAX_BYTES: Final = 1 << 52 >> PAGE_SHIFT >> _BITS_SHIFT


class DirtyLog:
    """A log that is mapped, until `close`."""

    def __init__(self, mapping: mmap.mmap) -> None:
        """
        Args:
            mapping: all of it, this object's from now on.
        """
        self.pages = len(mapping) << _BITS_SHIFT
        """How many it has a bit for, from guest address 0 on."""
        self.marked = 0
        """How many pages were marked in it so far, one as often as it was marked."""
        self._mapping = mapping
        # Here, since it takes some 60 ms that no back end should wait for whose guest never moves.
        import numpy as np

        self._bits = np.frombuffer(mapping, dtype=np.uint8)
        self._bit = np.left_shift(1, np.arange(8)).astype(np.uint8)
        """A byte's bits by number."""
        self._handed_over: deque[tuple[int, int]] = deque()

    @property
    def end(self) -> int:
        """The first guest address that it has no bit for."""
        return self.pages << PAGE_SHIFT

    def mark(self, address: int, length: int) -> None:
        """Marks all pages on which some bytes lie.

        Args:
            address: of the first byte, by guest address.
            length: how many, 0 or more.
        """
        first, end = address >> PAGE_SHIFT, min(-(-(address + length) // _PAGE), self.pages)
        if first >= end or not length:
            return
        at, last = first >> _BITS_SHIFT, (end - 1) >> _BITS_SHIFT
        head, tail = 0xFF << (first & 7) & 0xFF, 0xFF >> (-end & 7)
        if at == last:
            self._bits[at] |= head & tail
        else:
            self._bits[at] |= head
            self._bits[at + 1 : last] = 0xFF
            self._bits[last] |= tail
        self.marked += end - first

    def mark_pages(self, pages: "NDArray[np.uint64]") -> None:
        """Marks pages by their numbers, each as often as it stands there.

        Args:
            pages: guest addresses divided by 4096, in any order.
        """
        import numpy as np

        inside = pages[pages < self.pages].astype(np.intp)
        # Not `self._bits[at] |= bits`, which keeps one of those that fall into the same byte.
        np.bitwise_or.at(self._bits, inside >> _BITS_SHIFT, self._bit[inside & 7])
        self.marked += len(inside)

    def hand_over(self, address: int, length: int) -> None:
        """Has the marking thread mark what was written, when it takes over; from any thread."""
        self._handed_over.append((address, length))

    def take_over(self) -> None:
        """Marks all that was handed over before it was called."""
        for _ in range(len(self._handed_over)):
            self.mark(*self._handed_over.popleft())

    def close(self) -> None:
        """Gives the mapping back. May take as long as it has pages, and is for a thread.

        Nobody may mark any more.
        """
        del self._bits
        self._mapping.close()


def map_log(area: LogArea, fd: int) -> DirtyLog:
    """Maps what a front end gives as its log. Does not sleep.

    Args:
        area: where it lies in the file.
        fd: the file; it stays the caller's, and is not needed afterwards.

    Raises:
        NotServed: it cannot be a log, or cannot be mapped for writing.
    """
    _check_memfd(fd)
    if not 0 < area.size <= _MAX_BYTES or area.offset % mmap.PAGESIZE:
        raise NotServed(
            f"expected a log of 1 to {_MAX_BYTES} bytes at a multiple of {mmap.PAGESIZE}, got "
            f"{area.size} at {area.offset:#x}"
        )
    there = os.fstat(fd).st_size
    if there < area.offset + area.size:
        raise NotServed(
            f"expected a log of at least {area.offset + area.size} bytes (offset + size), got "
            f"{there}"
        )
    try:
        mapping = mmap.mmap(
            fd, area.size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=area.offset
        )
    except (OSError, ValueError) as error:
        raise NotServed(
            f"expected a log that can be mapped for writing, got {why(error)}"
        ) from error
    return DirtyLog(mapping)


def _check_memfd(fd: int) -> None:
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise NotServed(
            f"expected a memfd as the log, got another kind of descriptor ({why(error)})"
        ) from error
    if not seals & fcntl.F_SEAL_SHRINK:
        raise NotServed("expected a log that is sealed with F_SEAL_SHRINK, it is not; seal it")
    page = os.fstatvfs(fd).f_bsize
    if page != mmap.PAGESIZE:
        raise NotServed(
            f"expected a log of pages of {mmap.PAGESIZE} bytes, got one of {page} (MFD_HUGETLB), "
            "whose pages may be taken away; make it without"
        )
