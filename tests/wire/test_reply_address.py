"""Which addresses are answered, and what a path leads to."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.users import ALICE, User, open_folder, users
from vdpad.wire.reply_address import NotItsOwn, found, is_autobound, path_of


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


@pytest.fixture
def alice() -> Iterator[User]:
    with users(ALICE) as (her,):
        yield her


def bound(path: Path, user: User | None = None) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if user is None:
        made.bind(str(path))
    else:
        user.do(made.bind, str(path))
    made.setblocking(False)
    return made


def test_a_name_that_the_kernel_chose() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind("")
        assert is_autobound(made.getsockname())


@pytest.mark.parametrize(
    "address",
    [
        *(None, "", "0001a", "/0001a", b"0001a", b"\x000001", b"\x000001a\0", b"\x000001a0"),
        *(b"\x000001A", b"\x000001g", b"\0/tmp/x", b"\x000001\n", b"\n0001a", ("::1", 1)),
    ],
)
def test_no_other_is_taken_for_one(address: object) -> None:
    assert not is_autobound(address)


@pytest.mark.parametrize("address", [None, "", "x", "./x", "../run/x", b"/run/x", b"\0/run/x"])
def test_only_an_absolute_path_is_one(address: object) -> None:
    with pytest.raises(NotItsOwn):
        path_of(address)


def test_what_is_sent_goes_to_what_was_found_whatever_lies_there_by_then(
    folder: Path, alice: User
) -> None:
    with bound(folder / "hers", alice) as hers, bound(folder / "mine") as mine:
        with found(str(folder / "hers"), ALICE) as name:
            (folder / "hers").unlink()
            (folder / "hers").symlink_to(folder / "mine")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"reply", name)
        assert hers.recv(100) == b"reply"
        with pytest.raises(BlockingIOError):
            mine.recv(100)


def test_another_s_socket_is_not_the_sender_s(folder: Path, alice: User) -> None:
    with bound(folder / "mine"):
        (folder / "mine").chmod(0o777)
        alice.do((folder / "hers").symlink_to, folder / "mine")
        for path in ("mine", "hers"):
            with pytest.raises(NotItsOwn), found(str(folder / path), ALICE):
                pass
        with found(str(folder / "hers"), os.geteuid()):
            pass


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo])
def test_what_is_no_socket(folder: Path, make: Callable[[Path], None]) -> None:
    path = folder / "x"
    make(path)
    with pytest.raises(NotItsOwn), found(str(path), os.geteuid()):
        pass


def test_nothing(folder: Path) -> None:
    with pytest.raises(FileNotFoundError), found(str(folder / "x"), os.geteuid()):
        pass


def test_no_descriptor_is_left(folder: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with bound(folder / "x"):
        with found(str(folder / "x"), os.geteuid()):
            pass
        with pytest.raises(NotItsOwn), found(str(folder / "x"), os.geteuid() + 1):
            pass
    assert os.listdir("/proc/self/fd") == before
