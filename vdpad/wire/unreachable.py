"""Why a socket or a device's node is out of reach, in words that say what to do."""

import grp
import pwd
import stat
from pathlib import Path

from vdpad.errors import why


def why_no_daemon(path: Path, error: Exception) -> str:
    """Why nobody could be asked at a daemon's socket."""
    if not isinstance(error, PermissionError):
        return f"{path}: {why(error)}; is vdpad running?"
    told = f"{path}: {why(error)}; {who_may_use(path)}"
    group = _group_of(path)
    if group is None:
        return told
    return (
        f"{told}: `usermod -aG {group} NAME` and a new login make NAME a member; SocketGroup= in "
        "vdpad.socket says which group it is, without systemd socket_group in vdpad.toml"
    )


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


def _group_of(path: Path) -> str | None:
    """The group whose members may write; None where being in it is no help."""
    try:
        status = path.stat()
    except OSError:
        return None
    return _group(status.st_gid) if status.st_mode & stat.S_IWGRP else None


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
