"""Why a socket or a device's node is out of reach, in words that say what to do."""

import grp
import pwd
import stat
from pathlib import Path

from vdpad.errors import why


def why_no_daemon(path: Path, error: Exception, program: str = "vdpad") -> str:
    """Why nobody could be asked at a socket.

    Args:
        path: of the socket.
        error: with which it could not be had.
        program: that should listen there.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return f"{path}: {why(error)}"
    if not isinstance(error, PermissionError):
        return f"{path}: {why(error)}; is {program} running?"
    how = _how_to_let_in(path) if program == "vdpad" else ": --allow-uid says who else may ask"
    return f"{path}: {why(error)}; {who_may_use(path)}{how}"


def who_may_use(path: Path) -> str:
    """Who may write to what is there, by its mode: "it is for the user root and …"."""
    try:
        status = path.stat()
    except OSError:
        return "a folder on the way to it is not for this user"
    who = (
        (stat.S_IWUSR, f"the user {_user(status.st_uid)}"),
        (stat.S_IWGRP, f"the group {_group(status.st_gid)}"),
        (stat.S_IWOTH, "everybody else"),
    )
    told = " and ".join(name for bit, name in who if status.st_mode & bit)
    return f"it is for {told or 'nobody'} (mode {stat.S_IMODE(status.st_mode):04o})"


def _how_to_let_in(path: Path) -> str:
    """What lets more users in; nothing where it is not the socket that keeps them out."""
    try:
        status = path.stat()
    except OSError:
        return ""
    # Nobody is told to join root's group.
    is_to_join = status.st_mode & stat.S_IWGRP and status.st_gid
    join = f"`usermod -aG {_group(status.st_gid)} NAME` and a new login make NAME a member; "
    return (
        f": {join if is_to_join else ''}SocketGroup= and SocketMode= in vdpad.socket say who may, "
        "without systemd socket_group and socket_mode in vdpad.toml"
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
