"""What a guest has set outlives the process, and nothing that is not of it comes back."""

import os
import signal
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vdpad.backend.kept import file
from vdpad.backend.kept.file import CHANGING, LOG_ROOM, Kept
from vdpad.backend.kept.kept_state import KeptState
from vdpad.backend.process_events import SettingsNotKept, SettingsRecalled, SettingsUnreadable
from vdpad.service.events.event import Event
from vdpad.state.found import Found
from vdpad.state.recorder import Recorder
from vdpad.virtio.commands import Command, MacAddrSet, RxAllUni, RxPromisc, VlanAdd, VlanDel
from vdpad.virtio.features import Feature

FEATURES = frozenset(
    {Feature.CTRL_VQ, Feature.CTRL_RX, Feature.CTRL_VLAN, Feature.CTRL_MAC_ADDR, Feature.MAC}
)
MAC = bytes.fromhex("525400aabbcc")
FILE = "guest.state"


class Guest:
    """One whose commands are acknowledged, and kept."""

    def __init__(self, folder: Path) -> None:
        self.events: list[Event] = []
        self.recorder: Recorder | None = None
        self.kept = KeptState("vm-7", folder, self.found, self.events.append)

    def found(self) -> Found | None:
        return None if self.recorder is None else self.recorder.found()

    def begin(self) -> None:
        self.recorder = Recorder(FEATURES)
        self.kept.begin(1000, {})

    def sets(self, *commands: Command) -> None:
        for command in commands:
            self.sets_bytes(command.encode())

    def sets_bytes(self, command: bytes) -> None:
        assert self.recorder is not None
        self.recorder.fold(command, 0)
        self.kept.note(command)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def guest(folder: Path) -> Iterator[Guest]:
    guest = Guest(folder)
    guest.begin()
    yield guest
    guest.kept.close()


def recalled(folder: Path) -> tuple[Kept | None, list[Event]]:
    """What the next process finds, and what it tells."""
    following = Guest(folder)
    try:
        return following.kept.recall(), following.events
    finally:
        following.kept.close()


def recalled_whole(folder: Path) -> Kept:
    kept, events = recalled(folder)
    assert kept is not None
    assert [type(each) for each in events] == [SettingsRecalled]
    return kept


# --- what comes back ---


def test_all_that_was_acknowledged_is_there_for_the_next_process(
    folder: Path, guest: Guest
) -> None:
    guest.sets(VlanAdd(7), VlanAdd(8), VlanDel(7), MacAddrSet(MAC))
    guest.kept.close()
    kept = recalled_whole(folder)
    assert guest.recorder is not None
    assert kept.recorder.found() == guest.recorder.found()
    assert (kept.uid, kept.bases) == (1000, {})


def test_what_is_missing_is_missing_for_the_next_process_too(folder: Path, guest: Guest) -> None:
    guest.sets(RxAllUni(on=True), VlanAdd(5))
    guest.kept.begin(1000, {0: 3})
    guest.kept.close()
    kept = recalled_whole(folder)
    assert guest.recorder is not None
    assert kept.recorder.found() == guest.recorder.found()
    assert [each.part for each in kept.recorder.found().missing] == ["rx.alluni"]
    assert kept.bases == {0: 3}


def test_more_commands_than_the_log_has_room_for(folder: Path, guest: Guest) -> None:
    count = LOG_ROOM // 8 + 100
    for number in range(count):
        guest.sets(VlanAdd(number % 4000 + 1))
    guest.kept.close()
    assert recalled_whole(folder).recorder.state().vlans == tuple(range(1, 4001))


def test_a_command_that_is_longer_than_the_log(folder: Path, guest: Guest) -> None:
    guest.sets(VlanAdd(3))
    guest.sets_bytes(bytes((9, 9)) + bytes(LOG_ROOM))
    guest.sets(VlanAdd(4))
    guest.kept.close()
    found = recalled_whole(folder).recorder.found()
    assert found.state is not None
    assert found.state.vlans == (3, 4)
    assert [each.part for each in found.missing] == ["class 9"]


def test_a_new_beginning_has_nothing_of_the_one_before(folder: Path, guest: Guest) -> None:
    guest.sets(VlanAdd(7))
    guest.begin()
    guest.kept.close()
    assert recalled_whole(folder).recorder.state().vlans is None


def test_what_was_forgotten_does_not_come_back(folder: Path, guest: Guest) -> None:
    guest.sets(VlanAdd(7))
    guest.kept.forget()
    guest.sets(VlanAdd(8))
    guest.kept.close()
    assert recalled(folder) == (None, [])


def test_a_process_that_is_killed_has_kept_all_that_was_noted(tmp_path: Path) -> None:
    for round_ in range(5):
        folder = tmp_path / str(round_)
        ours, theirs = os.pipe()

        def child(folder: Path = folder, theirs: int = theirs) -> None:
            guest = Guest(folder)
            guest.begin()
            for vid in range(1, 4000):
                guest.sets(VlanAdd(vid))
                os.write(theirs, struct.pack("<H", vid))

        pid = os.fork()
        if not pid:
            child()
            os._exit(0)
        os.close(theirs)
        acked = 0
        for _ in range(200 + 173 * round_):
            (acked,) = struct.unpack("<H", os.read(ours, 2))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while data := os.read(ours, 2):
            (acked,) = struct.unpack("<H", data)
        os.close(ours)
        vlans = recalled_whole(folder).recorder.state().vlans
        assert vlans is not None
        # The one after the last that was told may have been noted too.
        assert vlans in (tuple(range(1, acked + 1)), tuple(range(1, acked + 2)))


# --- what does not ---


def test_one_process_has_the_directory(folder: Path, guest: Guest) -> None:
    kept, events = recalled(folder)
    assert kept is None
    (event,) = events
    assert isinstance(event, SettingsNotKept)
    assert "another vdpad keeps its state there; choose another" in event.reason


def test_nothing_is_there_at_first(folder: Path) -> None:
    assert recalled(folder) == (None, [])


def spoilt(whole: bytes, kind: str) -> bytes:
    """A file that is not what it should be."""
    body = whole[CHANGING:]
    match kind:
        case "empty":
            return b""
        case "cut":
            return whole[:-1]
        case "longer":
            return whole + b" "
        case "other":
            return b"vdpad-op" + whole[8:]
        case "checksum":
            return whole[:-2] + b"x}"
        case "mark":
            return whole[:24] + struct.pack("=Q", LOG_ROOM + 1) + whole[32:]
        case "length":
            return whole[:32] + struct.pack("<I", LOG_ROOM) + whole[36:]
        case "within":
            return whole[:24] + struct.pack("=Q", 3) + whole[32:]
    body = {
        "version": body.replace(b'"version":1', b'"version":2'),
        "state": body.replace(b'"vlans":[7]', b'"vlans":[7777]'),
        "key": body.replace(b'"uid":1000', b'"uid":1000,"gid":1'),
        "bases": body.replace(b'"bases":[]', b'"bases":[[0,65536]]'),
    }[kind]
    head = struct.pack("<8sIIII", whole[:8], zlib.crc32(body), LOG_ROOM, len(body), 0)
    return head + whole[24:CHANGING] + body


@pytest.mark.parametrize(
    "kind",
    [
        *("empty", "cut", "longer", "other", "checksum", "mark", "length", "within"),
        *("version", "state", "key", "bases"),
    ],
)
def test_what_cannot_be_read_is_told_and_set_aside(folder: Path, guest: Guest, kind: str) -> None:
    guest.sets(VlanAdd(7))
    guest.kept.begin(1000, {})
    guest.sets(RxPromisc(on=True))
    guest.kept.close()
    path = folder / FILE
    whole = path.read_bytes()
    bad = spoilt(whole, kind)
    assert bad != whole
    path.write_bytes(bad)
    kept, events = recalled(folder)
    assert kept is None
    (event,) = events
    assert isinstance(event, SettingsUnreadable)
    assert str(path) in event.reason
    assert "was set aside as guest.unreadable" in event.reason
    assert (folder / "guest.unreadable").read_bytes() == bad
    assert recalled(folder) == (None, [])


# --- another version ---


@contextmanager
def of_another_version(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """A back end whose files have another magic."""
    with patch.context() as other:
        other.setattr(file, "_MAGIC", b"vdpad-b9")
        yield


def test_a_downgrade_and_an_upgrade_lose_nothing(
    folder: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.sets(VlanAdd(7))
    guest.kept.close()
    with of_another_version(monkeypatch):
        kept, (event,) = recalled(folder)
        assert kept is None
        assert isinstance(event, SettingsUnreadable)
        assert recalled(folder) == (None, [])
    assert recalled_whole(folder).recorder.state().vlans == (7,)
    assert os.listdir(folder) == [FILE]


@pytest.mark.parametrize("is_reset", [False, True])
def test_once_a_guest_has_begun_it_is_for_people_alone(
    folder: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch, is_reset: bool
) -> None:
    guest.sets(VlanAdd(7))
    guest.kept.close()
    before = (folder / FILE).read_bytes()
    with of_another_version(monkeypatch):
        other = Guest(folder)
        assert other.kept.recall() is None
        other.begin()
        if is_reset:
            other.kept.forget()
        other.kept.close()
    kept, _ = recalled(folder)
    assert kept is None
    assert (folder / "guest.superseded").read_bytes() == before


def test_what_cannot_be_kept_for_people_does_not_come_back(
    folder: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.sets(VlanAdd(7))
    guest.kept.close()
    (folder / "guest.superseded").mkdir()
    with of_another_version(monkeypatch):
        other = Guest(folder)
        assert other.kept.recall() is None
        other.begin()
        other.kept.forget()
        other.kept.close()
    assert recalled(folder) == (None, [])


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_what_is_no_file_hangs_nobody(folder: Path, kind: str) -> None:
    folder.mkdir(0o700)
    path = folder / FILE
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    else:
        path.mkdir()
    kept, events = recalled(folder)
    assert kept is None
    assert [type(each) for each in events] == [SettingsUnreadable]


def test_what_cannot_be_set_aside_is_not_said_to_be(
    folder: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.kept.close()
    (folder / FILE).write_bytes(b"")
    monkeypatch.setattr("os.rename", _no_space)
    _, (event,) = recalled(folder)
    assert isinstance(event, SettingsUnreadable)
    assert "could not be set aside: No space left on device" in event.reason


def test_where_there_is_no_room_nothing_stale_is_left(
    folder: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.sets(VlanAdd(7))
    with monkeypatch.context() as patch:
        patch.setattr("os.rename", _no_space)
        guest.begin()
    guest.sets(VlanAdd(8))
    (event,) = guest.events
    assert isinstance(event, SettingsNotKept)
    assert "No space" in event.reason
    guest.kept.close()
    assert recalled(folder) == (None, [])


def _no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_what_no_state_can_say_is_told(folder: Path, guest: Guest) -> None:
    guest.sets(MacAddrSet(bytes(6)))
    guest.kept.begin(1000, {})
    (event,) = guest.events
    assert isinstance(event, SettingsNotKept)
    assert "no state can say it: mac: " in event.reason
    guest.kept.close()
    assert recalled(folder) == (None, [])
