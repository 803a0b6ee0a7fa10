"""What differs between the memory of two machines, of which neither runs."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

from .process import open_guest_memory

PAGE = 4096


def different_pages(one: int, other: int) -> list[int]:
    """The numbers of pages that are not the same in two QEMUs, by their pids."""
    with _memory(one) as first, _memory(other) as second:
        pages = range(0, len(first), PAGE)
        assert len(first) == len(second)
        return [at // PAGE for at in pages if first[at : at + PAGE] != second[at : at + PAGE]]


@contextmanager
def _memory(pid: int) -> Iterator[mmap.mmap]:
    fd = open_guest_memory(pid)
    try:
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as whole:
            yield whole
    finally:
        os.close(fd)
