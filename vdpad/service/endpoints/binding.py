"""The Unix socket's place: bound at a path, or handed over by a service manager."""

import grp
import os
import socket
import stat
from pathlib import Path

from vdpad.errors import VdpadError, why
from vdpad.wire.datagrams import AncillarySocket


class CannotListen(VdpadError):
    """The socket cannot be had."""


def bound_socket(path: Path, mode: int, group: str | None) -> AncillarySocket:
    """A socket at a path; one that nobody listens on any more makes way.

    Raises:
        CannotListen: another daemon answers there, or the path, mode or group can't be had.
    """
    _clear(path)
    endpoint = AncillarySocket()
    umask = os.umask(0o777)
    try:
        endpoint.bind(str(path))
    except (OSError, ValueError) as error:
        endpoint.close()
        raise CannotListen(f"{path}: {why(error)}") from error
    finally:
        os.umask(umask)
    try:
        if group is not None:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        path.chmod(mode)
    except (OSError, KeyError) as error:
        endpoint.close()
        path.unlink(missing_ok=True)
        raise CannotListen(f"{path}: cannot give it to group {group}: {error}") from error
    return endpoint


def inherited_socket(fd: int) -> AncillarySocket:
    """A socket that was bound before.

    Raises:
        CannotListen: it is no Unix datagram socket with a path.
    """
    try:
        found = socket.socket(fileno=fd)
    except OSError as error:
        raise CannotListen(f"expected a socket as descriptor {fd}: {why(error)}") from error
    kind, name = (found.family, found.type), found.getsockname()
    found.detach()
    if kind != (socket.AF_UNIX, socket.SOCK_DGRAM):
        raise CannotListen(
            f"expected a Unix datagram socket as descriptor {fd} (ListenDatagram= with a path), "
            f"got {kind[0].name} and {kind[1].name}"
        )
    if not isinstance(name, str) or not name.startswith("/"):
        raise CannotListen(f"expected descriptor {fd} to be bound to a path, it is to {name!r}")
    return AncillarySocket(fd)


def inode_of(path: Path) -> int | None:
    """Tells our socket from another that took its path."""
    try:
        return path.lstat().st_ino
    except OSError:
        return None


def _clear(path: Path) -> None:
    """Removes a socket that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CannotListen(f"{path}: expected a socket or nothing, there is something else")
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise CannotListen(f"{path}: {why(error)}") from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise CannotListen(f"{path}: {why(error)}") from error
    raise CannotListen(f"{path}: another process listens there; stop it or choose another path")
