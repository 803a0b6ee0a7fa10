"""Where front ends come from: a socket that is bound, one that was handed over, or a connection."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vdpad.errors import why
from vdpad.service.endpoints.binding import CannotListen, bind, check_inherited, inode_of

SOCKET = "vhost-user"
"""The socket by its name: FileDescriptorName= of a unit."""

# For who starts the back end: a VMM of the same user.
_MODE = 0o600


@contextmanager
def bound(path: Path) -> Iterator[socket.socket]:
    """A socket that listens at a path while the context lasts.

    Raises:
        CannotListen: it cannot be had.
    """
    listening = _non_blocking(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    bind(listening, path, _MODE, None)
    inode = inode_of(path)
    with listening:
        try:
            yield listening
        finally:
            if inode_of(path) == inode:
                path.unlink(missing_ok=True)


def inherited_socket(fd: int) -> socket.socket:
    """A socket that a service manager has bound, and that listens.

    Raises:
        CannotListen: it is no Unix stream socket with a path.
    """
    check_inherited(fd, socket.SOCK_STREAM)
    return _non_blocking(socket.socket(fileno=fd))


def handed_over(fd: int) -> socket.socket:
    """What whoever has started this process hands over: a connection, or a socket that listens.

    Raises:
        CannotListen: it is no Unix stream socket, or neither connected nor listening.
    """
    try:
        os.set_inheritable(fd, False)
        found = socket.socket(fileno=fd)
    except OSError as error:
        raise CannotListen(f"expected a socket as descriptor {fd} (--fd): {why(error)}") from error
    if (found.family, found.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
        family, kind = found.family.name, found.type.name
        found.detach()
        raise CannotListen(
            f"expected a Unix stream socket as descriptor {fd} (--fd), got {family} and {kind}"
        )
    if not (listens(found) or _is_connected(found)):
        found.close()
        raise CannotListen(
            f"expected a front end's connection as descriptor {fd} (--fd), or a socket that "
            "listens, got one that is neither"
        )
    return _non_blocking(found)


def listens(endpoint: socket.socket) -> bool:
    """Whether front ends connect to it; else it is one's connection."""
    return bool(endpoint.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def place_of(endpoint: socket.socket) -> str:
    """Where front ends connect to it, for people."""
    return os.fsdecode(endpoint.getsockname())


def _is_connected(endpoint: socket.socket) -> bool:
    try:
        endpoint.getpeername()
    except OSError:
        return False
    return True


def _non_blocking(endpoint: socket.socket) -> socket.socket:
    endpoint.setblocking(False)
    return endpoint
