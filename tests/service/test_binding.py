"""A socket's place, and several that want it at once."""

import fcntl
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path, PosixPath

import pytest

from tests.support.waiting import GUARD
from vdpad.service.endpoints import binding
from vdpad.service.endpoints.binding import CannotListen, bind, inode_of

KINDS = [socket.SOCK_DGRAM, socket.SOCK_STREAM]


def leave(path: Path, kind: socket.SocketKind) -> None:
    """Leaves a socket that nobody listens on."""
    with socket.socket(socket.AF_UNIX, kind) as left:
        left.bind(str(path))


class Meanwhile(PosixPath):
    """A path at which something happens when it is about to be removed."""

    happens: Callable[[], None]

    def unlink(self, missing_ok: bool = False) -> None:
        self.happens()
        super().unlink(missing_ok)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("none/x", "No such file or directory; make its folder, or choose another path"),
        ("file/x", "Not a directory; choose a path in a folder"),
    ],
)
def test_where_no_socket_can_be_what_to_do_is_said(
    tmp_path: Path, kind: socket.SocketKind, path: str, what: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotListen) as refused:
        bind(socket.socket(socket.AF_UNIX, kind), tmp_path / path, 0o600, None)
    assert str(refused.value) == f"{tmp_path / path}: {what}"


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_that_find_one_left_socket_one_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: socket.SocketKind
) -> None:
    """The second comes when the first has seen that nobody listens, and not yet removed it."""
    path = Meanwhile(tmp_path / "vdpad.sock")
    leave(path, kind)
    first, second = (socket.socket(socket.AF_UNIX, kind) for _ in range(2))
    refused: list[CannotListen] = []
    came = threading.Event()

    def come() -> None:
        try:
            bind(second, tmp_path / "vdpad.sock", 0o600, None)
        except CannotListen as error:
            refused.append(error)
        came.set()

    other = threading.Thread(target=come)

    def happens() -> None:
        other.start()
        assert came.wait(GUARD)

    path.happens = happens
    # It waits for as long as it takes.
    monkeypatch.setattr(binding, "_LOOKS", 1_000_000)
    monkeypatch.setattr(binding, "_rest", came.set)
    bind(first, path, 0o600, None)
    other.join(60)
    assert ["another process listens" in str(each) for each in refused] == [True]
    with socket.socket(socket.AF_UNIX, kind) as client:
        client.connect(str(path))
    first.close()
    assert second.fileno() == -1


@pytest.mark.parametrize("kind", KINDS)
def test_who_holds_the_folder_s_lock_for_good_keeps_nobody_from_binding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: socket.SocketKind
) -> None:
    path = tmp_path / "vdpad.sock"
    leave(path, kind)
    monkeypatch.setattr(binding, "_REST", 0)
    holder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with socket.socket(socket.AF_UNIX, kind) as endpoint:
            bind(endpoint, path, 0o600, None)
            assert inode_of(path) is not None
    finally:
        os.close(holder)


def test_the_lock_ends_with_the_bind(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as endpoint:
        bind(endpoint, tmp_path / "vdpad.sock", 0o600, None)
        folder = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(folder)
