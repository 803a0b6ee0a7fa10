"""The clients in Node and Go: from the check to the commit that somebody else makes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.clients.programs import CACHE, fetched, installed, run
from tests.support.waiting import wait_until

from .moves import RECIPES, SIM0, STATE, STUBBORN, TOO_LONG, WHY, Moves

CLIENTS = RECIPES / "clients"


@pytest.fixture(scope="module")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client in Go, built."""
    program = tmp_path_factory.mktemp("go") / "move"
    env = {"GOCACHE": str(CACHE / "go-built"), "CGO_ENABLED": "0", "GO111MODULE": "off"}
    for do in (("vet",), ("build", "-o", program)):
        done = run(fetched("go"), *do, CLIENTS / "move.go", env=env)
        assert (done.returncode, done.stderr) == (0, "")
    return program


class Mover:
    """A client, and what it is given."""

    def __init__(self, program: tuple[Path, ...], moves: Moves, folder: Path) -> None:
        self.program = program
        self.moves = moves
        self._folder = folder

    def run(
        self,
        migration: str,
        state: Mapping[str, Any] = STATE,
        target: Mapping[str, Any] = SIM0,
        seconds: int = 60,
    ) -> subprocess.CompletedProcess[str]:
        """From its check to its end."""
        for name, what in (("state", state), ("target", target)):
            (self._folder / name).write_text(json.dumps(what))
        files = (self._folder / "state", self._folder / "target")
        arguments = (migration, *map(str, files), str(os.getuid()), str(seconds))
        return run(*self.program, self.moves.socket, *arguments)

    def runs_while_committed(
        self, migration: str, target: Mapping[str, Any]
    ) -> subprocess.CompletedProcess[str]:
        """The same while another commits, as a VMM does once its guest is stopped."""
        committing = threading.Thread(target=self._commit, args=(migration,))
        committing.start()
        done = self.run(migration, target=target)
        committing.join()
        return done

    def _commit(self, migration: str) -> None:
        wait_until(lambda: self.moves.became(migration) == "prepared", every=0.05)
        self.moves.commit(migration)


@pytest.fixture(params=["Node", "Go"])
def mover(request: pytest.FixtureRequest, go_program: Path, moves: Moves, tmp_path: Path) -> Mover:
    if request.param == "Go":
        return Mover((go_program,), moves, tmp_path)
    return Mover((installed("node"), CLIENTS / "move.js"), moves, tmp_path)


def test_a_commit_is_waited_for(mover: Mover, name: str) -> None:
    done = mover.runs_while_committed(name, SIM0)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "prepared: 37 commands\nrestored: restored\n"


def test_a_commit_that_fails_is_told_with_what_was_refused(mover: Mover, name: str) -> None:
    done = mover.runs_while_committed(name, STUBBORN)
    assert (done.returncode, done.stdout) == (4, "prepared: 37 commands\nfailed: rejected\n")
    assert done.stderr == "refused: VLAN_ADD vid=1\n"


def test_what_nobody_commits_is_cancelled(mover: Mover, name: str) -> None:
    done = mover.run(name, seconds=1)
    assert (done.returncode, done.stderr) == (5, "")
    assert done.stdout == "prepared: 37 commands\ncancelled: nobody committed\n"
    assert mover.moves.became(name) == "cancelled"


def test_a_state_that_does_not_fit_is_not_prepared(mover: Mover, name: str) -> None:
    done = mover.run(name, TOO_LONG)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"rss.indirection_table: {WHY}\n"
    assert mover.moves.became(name) is None


def test_a_refusal_is_told_by_its_name(mover: Mover) -> None:
    done = mover.run("no~name")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("org.varlink.service.InvalidParameter: migration: ")


def test_where_no_daemon_is_that_is_told(mover: Mover, name: str) -> None:
    mover.moves.socket = mover.moves.folder / "none"
    done = mover.run(name)
    assert (done.returncode, done.stdout) == (7, "")
    assert "none" in done.stderr


def hear_and_end(ends: socket.socket) -> None:
    """As a daemon that is killed once a request has come."""
    connection, _ = ends.accept()
    with connection:
        heard = b""
        while not heard.endswith(b"\0"):
            heard += connection.recv(65536)


def test_a_daemon_that_ends_is_told(mover: Mover, name: str) -> None:
    mover.moves.socket = mover.moves.folder.parent / "ends"
    with socket.create_server(str(mover.moves.socket), family=socket.AF_UNIX) as ends:
        ending = threading.Thread(target=hear_and_end, args=(ends,))
        ending.start()
        done = mover.run(name)
        ending.join()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "the connection ended before the reply\n"


@pytest.mark.parametrize("numbers", [("root",), ("0", "soon")], ids=["committer", "seconds"])
def test_what_is_no_number_is_told(
    mover: Mover, name: str, tmp_path: Path, numbers: tuple[str, ...]
) -> None:
    (tmp_path / "state").write_text(json.dumps(STATE))
    (tmp_path / "target").write_text(json.dumps(SIM0))
    files = (str(tmp_path / "state"), str(tmp_path / "target"))
    done = run(*mover.program, mover.moves.socket, name, *files, *numbers)
    assert (done.returncode, done.stdout) == (2, "")
    assert numbers[-1] in done.stderr
    assert mover.moves.became(name) is None


@pytest.mark.parametrize("number", ["", "x", "-1", "1e3", " 1", "99999999999"])
@pytest.mark.parametrize("place", ["committer", "seconds"])
def test_numbers_that_make_no_sense_are_told_before_anything_is_prepared(
    mover: Mover, name: str, place: str, number: str
) -> None:
    files = [mover.moves.folder / each for each in ("state", "target")]
    mover.moves.folder.mkdir()
    for file, what in zip(files, (STATE, SIM0), strict=True):
        file.write_text(json.dumps(what))
    numbers = {"committer": str(os.getuid()), "seconds": "60", place: number}.values()
    done = run(*mover.program, mover.moves.socket, name.replace(" ", ""), *files, *numbers)
    assert (done.returncode, done.stdout) == (2, "")
    assert mover.moves.became(name.replace(" ", "")) is None


@pytest.mark.parametrize(
    "arguments", [(), ("m", "/none", "/none", "0")], ids=["too few", "no such file"]
)
def test_arguments_that_make_no_sense_are_told(mover: Mover, arguments: tuple[str, ...]) -> None:
    done = run(*mover.program, mover.moves.socket, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
