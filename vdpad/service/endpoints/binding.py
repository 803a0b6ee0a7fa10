"""A Unix socket's place: bound at a path, or handed over by a service manager."""

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from vdpad.errors import VdpadError, why

_KINDS = {
    socket.SOCK_DGRAM: ("datagram", "ListenDatagram="),
    socket.SOCK_STREAM: ("stream", "ListenStream="),
}


# How often, and after how many seconds each, whoever binds here right now is waited for; it takes a
# millisecond. Stops others who lock the folder, as all may who can read it, from keeping a daemon
# from its start.
_LOOKS = 100
_REST = 0.01


_ADVICE = {
    errno.ENOENT: "; make its folder, or choose another path",
    errno.ENOTDIR: "; choose a path in a folder",
    errno.EACCES: "; let this user write to its folder, or choose another path",
    errno.EROFS: "; choose a path that this process may write to",
}


class CannotListen(VdpadError):
    """The socket cannot be had."""


def bind(endpoint: socket.socket, path: Path, mode: int, group: str | None) -> None:
    """Binds a socket at a path; one that nobody listens on any more makes way.

    A stream socket listens from then on, so that nobody takes it for one that has been left. Of
    several that find one such socket, the first has the place.

    Raises:
        CannotListen: another daemon answers there, or the path, mode or group can't be had. The
            socket is closed then.
    """
    with _alone_in(path.parent):
        try:
            _clear(path, endpoint.type)
            _bind_unseen(endpoint, path)
        except BaseException:
            endpoint.close()
            raise
        _give(endpoint, path, mode, group)


def _give(endpoint: socket.socket, path: Path, mode: int, group: str | None) -> None:
    """Lets those open it who may."""
    try:
        if group is not None:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        path.chmod(mode)
    except (OSError, KeyError) as error:
        endpoint.close()
        path.unlink(missing_ok=True)
        raise CannotListen(f"{path}: cannot give it to group {group}: {error}") from error


def check_inherited(fd: int, kind: socket.SocketKind) -> None:
    """Returns where a descriptor is a Unix socket of this type that is bound to a path.

    Raises:
        CannotListen: it is not.
    """
    try:
        found = socket.socket(fileno=fd)
    except OSError as error:
        raise CannotListen(f"expected a socket as descriptor {fd}: {why(error)}") from error
    family, its_kind, name = found.family, found.type, found.getsockname()
    found.detach()
    if (family, its_kind) != (socket.AF_UNIX, kind):
        what, directive = _KINDS[kind]
        raise CannotListen(
            f"expected a Unix {what} socket as descriptor {fd} ({directive} with a path), "
            f"got {family.name} and {its_kind.name}"
        )
    if not isinstance(name, str) or not name.startswith("/"):
        raise CannotListen(f"expected descriptor {fd} to be bound to a path, it is to {name!r}")


def inode_of(path: Path) -> int | None:
    """Tells our socket from another that took its path."""
    try:
        return path.lstat().st_ino
    except OSError:
        return None


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Lets nobody else bind in this folder meanwhile.

    Between finding a socket that has been left and removing it, another might bind there, whose
    socket would be removed.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError):
        yield  # no folder that can be read; what is wrong with it, bind tells
        return
    try:
        _lock(fd)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    for _ in range(_LOOKS):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            _rest()
        except OSError:
            return  # a file system without locks


def _rest() -> None:
    time.sleep(_REST)


def _bind_unseen(endpoint: socket.socket, path: Path) -> None:
    """Binds it so that nobody can open it yet."""
    umask = os.umask(0o777)
    try:
        endpoint.bind(str(path))
        if endpoint.type is socket.SOCK_STREAM:
            endpoint.listen()
    except (OSError, ValueError) as error:
        raise _cannot_bind(path, error) from error
    finally:
        os.umask(umask)


def _cannot_bind(path: Path, error: Exception) -> CannotListen:
    advice = _ADVICE.get(getattr(error, "errno", None) or 0, "")
    return CannotListen(f"{path}: {why(error)}{advice}")


def _clear(path: Path, kind: socket.SocketKind) -> None:
    """Removes a socket that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CannotListen(f"{path}: expected a socket or nothing, there is something else")
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise _cannot_bind(path, error) from error
    if _is_left(path, kind):
        path.unlink(missing_ok=True)
        return
    raise CannotListen(f"{path}: another process listens there; stop it or choose another path")


def _is_left(path: Path, kind: socket.SocketKind) -> bool:
    """Whether a socket has nobody any more.

    Asked by a datagram socket. A stream socket does not see it, where it would take a connection
    for a client's: the kernel says whether there is anybody, and then that he is of another kind.

    Raises:
        CannotListen: somebody is there, of another kind; or it cannot be told.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        found = probe.connect_ex(str(path))
    if found == errno.ECONNREFUSED:
        return True
    expected = errno.EPROTOTYPE if kind is socket.SOCK_STREAM else 0
    if found != expected:
        raise CannotListen(f"{path}: {os.strerror(found or errno.EPROTOTYPE)}")
    return False
