"""Memory that is kept for the next process: a file of the directory's, mapped whole."""

import errno
import mmap
import os
import stat

from vdpad.errors import NotWritten


def kept_memory(name: str, directory: int, size: int) -> memoryview:
    """A file's bytes, shared with it; zeros where it is not there, or of another size.

    Args:
        name: of the file.
        directory: open, on tmpfs, and nobody else's.
        size: in bytes.

    Raises:
        OSError: it cannot be had, or something else has that name.
    """
    # Without O_NONBLOCK other things of this name than files may hang the start.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise NotWritten(errno.EINVAL, "expected a file, or nothing")
        if status.st_size != size:
            os.ftruncate(fd, 0)
        # All of it is there from now on: where there is no room for a page, a store is a SIGBUS.
        os.posix_fallocate(fd, 0, size)
        return memoryview(mmap.mmap(fd, size))
    finally:
        os.close(fd)
