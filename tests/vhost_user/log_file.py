"""A front end's dirty log: a sealed memfd, and the pages that are marked in it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_file(size: int, seals: int = fcntl.F_SEAL_SHRINK, flags: int = 0) -> Iterator[int]:
    """One of so many bytes, with these seals and flags of memfd_create(2)."""
    fd = os.memfd_create("front-end-memory-log", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC | flags)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        yield fd
    finally:
        os.close(fd)


def pages_in(fd: int) -> set[int]:
    """The numbers of all pages that are marked."""
    log = os.pread(fd, os.fstat(fd).st_size, 0)
    return {
        8 * at + bit for at, byte in enumerate(log) if byte for bit in range(8) if byte >> bit & 1
    }
