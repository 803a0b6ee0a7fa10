"""Bytes in memory that go to another process by a descriptor, and that nobody can change."""

import errno
import fcntl
import os

from vdpad.errors import NotWritten

# include/uapi/linux/fcntl.h; journald demands all of them.
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed_memfd(name: str, data: bytes) -> int:
    """A sealed memfd that holds some bytes; the caller closes it.

    Args:
        name: what /proc shows of it.
        data: all that is to be in it.

    Raises:
        OSError: there is no memory or no descriptor for it.
        NotWritten: there is too little memory.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        if os.write(fd, data) != len(data):
            raise NotWritten(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd
