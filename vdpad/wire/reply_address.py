"""Where a reply may go: to the socket that asked, and to nobody else's.

What its address says is a sender's choice, and a path in it is looked up by us: a relative one from
our directory, any by our mounts and whatever links lie there by now. So a reply could be made to
reach somebody else's socket, with text of the sender's in it, or our own. These are answered:

- a name that the kernel chose (autobind, unix(7)): abstract, five hexadecimal digits;
- an absolute path at which there is a socket that belongs to the sender's user. It is looked up
  once, and the reply goes to what was found, whatever the path leads to by then. Looking it up may
  sleep for as long as a server of FUSE or NFS pleases, and so may sending: on no event loop.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from vdpad.errors import VdpadError

# Linux net/unix/af_unix.c, unix_autobind.
_AUTOBOUND = re.compile(rb"\0[0-9a-f]{5}")


class NotItsOwn(VdpadError):
    """An address that no reply goes to, as it may be somebody else's."""


def is_autobound(address: object) -> bool:
    """Whether the kernel chose this name for the socket that has it."""
    return isinstance(address, bytes) and _AUTOBOUND.fullmatch(address) is not None


def path_of(address: object) -> str:
    """The absolute path that an address is.

    Raises:
        NotItsOwn: it is none.
    """
    if isinstance(address, str) and address.startswith("/"):
        return address
    raise NotItsOwn(
        "expected an address of the kernel's choice (autobind) or an absolute path; bind to one"
    )


@contextmanager
def found(path: str, uid: int) -> Iterator[str]:
    """The socket at a path, under a path that leads to it and nowhere else. May sleep.

    Raises:
        NotItsOwn: what is there is no socket, or not this user's.
        OSError: nothing can be found there.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISSOCK(status.st_mode) or status.st_uid != uid:
            raise NotItsOwn(f"expected a socket of uid {uid} at its path, there is something else")
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
