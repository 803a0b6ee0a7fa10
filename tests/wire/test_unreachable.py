"""Why a socket is out of reach, and what to do."""

import errno
import os
from pathlib import Path, PosixPath

import pytest

from vdpad.wire.unreachable import why_no_daemon

DENIED = PermissionError(errno.EACCES, "Permission denied")


class _Socket(PosixPath):
    """A path with a socket of root and of root's group, whoever runs the tests."""

    mode = 0o140660

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return os.stat_result((self.mode, 0, 0, 1, 0, 0, 0, 0, 0, 0))


def test_nobody_is_told_to_join_root_s_group() -> None:
    told = why_no_daemon(_Socket("/run/x"), DENIED)
    assert "the user root and the group root (mode 0660)" in told
    assert "usermod" not in told
    assert "SocketGroup= and SocketMode=" in told


def test_a_back_end_is_another_program() -> None:
    told = why_no_daemon(_Socket("/run/x"), DENIED, "vdpad-vhost-user")
    assert "vdpad.socket" not in told
    assert told.endswith("--allow-uid says who else may ask")
    gone = FileNotFoundError(errno.ENOENT, "No such file")
    told = why_no_daemon(Path("/none"), gone, "vdpad-vhost-user")
    assert told == "/none: No such file; is vdpad-vhost-user running?"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file"), "/none: No such file; is vdpad running?"),
        (OSError("AF_UNIX path too long"), "/none: expected a socket's path of at most 107 bytes"),
    ],
)
def test_whether_it_runs_is_asked_where_that_could_be_it(error: OSError, told: str) -> None:
    assert why_no_daemon(Path("/none"), error).startswith(told)
    assert ("running" in why_no_daemon(Path("/none"), error)) is told.endswith("?")
