"""The hooks where a daemon says nothing, half of it or nonsense, and where names are others'."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.clients.programs import installed, run

from .moves import CARD, GUEST, OTHER_CARD, RECIPES, SIM0, STATE, TOO_LONG, Moves
from .test_hooks import TWO_CARDS, Hook, hook_of
from .test_kubevirt import COMES, DOMAIN, HOOK, PYTHON, vmi

FITS = b"""{"parameters": {"compatible": true, "problems": [], "commands": 1, "doorbells": 1,
 "plan": [], "widened": []}}\0"""

Reply = Callable[[socket.socket], object]


@pytest.fixture(params=["bash", "Python", "Perl"])
def hook(request: pytest.FixtureRequest) -> Hook:
    return hook_of(request.param)


def _serve(daemon: socket.socket, asked: list[str], reply: Callable[[str], Reply]) -> None:
    with suppress(OSError):  # it is closed, or who asked is gone
        while True:
            connection, _ = daemon.accept()
            with connection, suppress(OSError):
                while said := connection.recv(1 << 20):
                    while not said.endswith(b"\0"):
                        said += connection.recv(1 << 20)
                    method = json.loads(said[:-1])["method"].rpartition(".")[2]
                    if method == "Info":  # vdpactl wonders whose socket it is
                        break
                    asked.append(method)
                    if reply(method)(connection):
                        break


@contextmanager
def answering(path: Path, **replies: Reply) -> Iterator[list[str]]:
    """A stream socket on which methods are answered so, and what it was asked."""
    asked: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
        daemon.bind(str(path))
        daemon.listen()
        thread = threading.Thread(target=_serve, args=(daemon, asked, replies.__getitem__))
        thread.start()
        try:
            yield asked
        finally:
            daemon.shutdown(socket.SHUT_RDWR)
            thread.join()


def says(text: bytes, ends: bool = False) -> Reply:
    """Says this, and ends the connection or not."""

    def reply(connection: socket.socket) -> bool:
        connection.sendall(text)
        return ends

    return reply


def _drips(connection: socket.socket) -> None:
    connection.settimeout(0.05)
    while True:
        connection.sendall(b"{")
        with suppress(TimeoutError):
            if not connection.recv(1):
                return


# --- a name that is another guest's ---


def test_what_another_has_prepared_under_that_name_stays(
    hook: Hook, moves: Moves, name: str
) -> None:
    moves.lay_prepared(name)
    assert hook.lets_in(moves)
    moves.lay_prepared(f"{name}/own")
    moves.lay_prepared(name, OTHER_CARD)
    moves.lay(OTHER_CARD, state={"version": 1, "features": []})
    assert OTHER_CARD in hook.refuses(moves, TWO_CARDS)[0]
    assert moves.became(name) == "prepared"
    assert moves.became(f"{name}/own") == "cancelled"


def test_what_another_has_prepared_stays_in_kubevirt(moves: Moves) -> None:
    other = {"state": STATE, "target": SIM0, "migration": "kubevirt/other", "committer": 0}
    own = {**other, "migration": "kubevirt/own"}
    empty = {"version": 1, "features": []}
    assert _kubevirt(moves.socket, vmi(COMES, net0=other)) == ""
    said = _kubevirt(moves.socket, vmi(COMES, net0=own, net1={**other, "state": empty}))
    assert said.startswith("net1: io.vdpad.Daemon.Conflict: ")
    assert moves.became("kubevirt/other") == "prepared"
    assert moves.became("kubevirt/own") == "cancelled"


def _kubevirt(socket_: Path, described: str, hook: Path = HOOK) -> str:
    """Why a guest is not let in; nothing where it is."""
    arguments = ("--vmi", described, "--domain", DOMAIN)
    done = run(*PYTHON, hook, *arguments, env={"VDPAD_RUN": str(socket_.parent)})
    assert (done.returncode, done.stdout) == ((1, "") if done.stderr else (0, f"{DOMAIN}\n"))
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("commit", ["", "vm7", "vm7 x", "vm7 1 2", "vm7 -1"])
def test_a_commit_that_makes_no_sense_is_refused_and_cancels_nothing(
    hook: Hook, moves: Moves, commit: str
) -> None:
    moves.lay(target=SIM0, commit=commit)
    assert hook.refuses(moves)[0].startswith(f"{GUEST}, {CARD}: ")
    assert moves.became("vm7") is None
    hook.goes(moves)


def test_a_folder_whose_name_has_a_space_is_looked_into(hook: Hook, moves: Moves) -> None:
    moves.folder = moves.folder.with_name("vm *moves")
    moves.lay(state=TOO_LONG, target=SIM0)
    assert not hook.lets_in(moves)


@pytest.mark.parametrize("language", ["bash", "Python"])
@pytest.mark.parametrize("guest", ["..", ".", "../other"])
def test_a_guest_s_name_leads_nowhere_else(language: str, moves: Moves, guest: str) -> None:
    moves.lay()
    (moves.folder / guest).mkdir(exist_ok=True)
    (moves.folder / guest / f"{CARD}.state").write_text("none")
    done = hook_of(language).run(moves, guest, "migrate", "begin", "-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_back_end_s_name_leads_nowhere_else(moves: Moves) -> None:
    for name in ("../..", "", ".", 7, None):
        said = _kubevirt(moves.socket, vmi(COMES, net0={"state": STATE, "backend": name}))
        assert said == f"net0: expected the name of a back end, got {name!r}\n"


@pytest.mark.parametrize("moves_said", ["[]", "7", "null", '{"net0": 7}', "[" * 20_000, "{"])
def test_an_annotation_of_another_shape_is_refused(moves: Moves, moves_said: str) -> None:
    described = json.loads(vmi(COMES, net0={}))
    described["metadata"]["annotations"]["vdpad/move"] = moves_said
    assert _kubevirt(moves.socket, json.dumps(described)).startswith("vdpad/move: expected ")


# --- a daemon that does not answer as it should ---


@pytest.mark.parametrize(
    "said", [b'{"parameters": {"compat', b"", b"nonsense\0", b"[]\0", b'{"parameters": null}\0']
)
def test_half_a_reply_lets_nobody_in(hook: Hook, moves: Moves, tmp_path: Path, said: bytes) -> None:
    moves.lay(target=SIM0)
    moves.socket = tmp_path / "io.vdpad"
    with answering(moves.socket, Check=says(said, ends=True)):
        assert not hook.lets_in(moves)
        described = vmi(COMES, net0={"state": STATE, "target": SIM0})
        assert f"{moves.socket}: " in _kubevirt(moves.socket, described)


def test_what_may_have_been_prepared_is_given_up(
    hook: Hook, moves: Moves, tmp_path: Path, name: str
) -> None:
    moves.lay_prepared(name)
    moves.socket = tmp_path / "io.vdpad"
    replies = {"Check": says(FITS), "Prepare": says(b"{", ends=True), "Cancel": says(FITS)}
    with answering(moves.socket, **replies) as asked:
        assert not hook.lets_in(moves)
    assert asked == ["Check", "Prepare", "Cancel"]
    moves.socket.unlink()
    own = {"state": STATE, "target": SIM0, "migration": name, "committer": os.getuid()}
    with answering(moves.socket, **replies) as asked:
        assert _kubevirt(moves.socket, vmi(COMES, net0=own))
    assert asked == ["Check", "Prepare", "Cancel"]


def _impatient(hook: Path, folder: Path) -> Path:
    """The same that waits for half a second."""
    copy = folder / hook.name
    copy.write_text(
        hook.read_text().replace("timeout = 10;", "timeout = 1;").replace("10.0", "0.5")
    )
    assert copy.read_text() != hook.read_text()
    return copy


def test_a_reply_without_an_end_is_not_waited_for_in_kubevirt(tmp_path: Path) -> None:
    described = vmi(COMES, net0={"state": STATE, "target": SIM0})
    with answering(tmp_path / "io.vdpad", Check=_drips):
        said = _kubevirt(tmp_path / "io.vdpad", described, _impatient(HOOK, tmp_path))
    assert "timed out; is vdpad running?" in said


def test_a_daemon_that_takes_no_connection_is_not_waited_for(moves: Moves, tmp_path: Path) -> None:
    moves.lay(target=SIM0)
    moves.socket = tmp_path / "io.vdpad"
    perl = _impatient(RECIPES / "proxmox" / "vdpad-hook.pl", tmp_path)
    migrated = (("PVE_MIGRATED_FROM", "node-a"),)
    hook = Hook((installed("perl"), perl), (GUEST, "pre-start"), (GUEST, "post-stop"), migrated)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first,
    ):
        daemon.bind(str(moves.socket))
        daemon.listen(0)
        first.connect(str(moves.socket))
        assert "no reply within 1 s" in hook.refuses(moves)[0]
