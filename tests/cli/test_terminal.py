"""What vdpactl does on terminals, each a pty of its own: widths, and how far it is."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.cli.commands import forked, redirected, text_of
from tests.cli.qmp_peer import GREETING, lines, peer
from tests.cli.terminal import Terminal
from tests.daemon.support import STATE, faulty, vlans
from tests.support.daemon import ROOT, daemon
from tests.support.forker import Child
from tests.support.waiting import GUARD
from vdpad.cli import progress

QUIET = {name: value for name, value in os.environ.items() if name != "COLUMNS"}

# A pipe that has more than a reader would wait for: only the header of a state in JSON.
BEGINNING = b'{"version": 1,'


@pytest.fixture(scope="module")
def vdpad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a daemon with a device that takes little and one that answers nothing."""
    folder = tmp_path_factory.mktemp("terminal")
    devices = [
        {"name": "small", "features": ["CTRL_VQ"], "max_queue_pairs": 2},
        faulty("silence", 1, name="silent"),
    ]
    with daemon(folder, software=devices, replay={"deadline_ms": 200}) as running:
        yield running.socket


@pytest.fixture
def state(tmp_path: Path) -> str:
    path = tmp_path / "state.json"
    path.write_text(json.dumps(STATE))
    return str(path)


def on_terminal(*arguments: str | Path, columns: int = 80, **environment: str) -> tuple[int, str]:
    """How a command ends whose output and errors go to a terminal, and what it shows."""
    with Terminal(columns) as terminal:
        command = forked().start(
            *arguments,
            env={**QUIET, **environment},
            stdout=terminal.stream,
            stderr=terminal.stream,
        )
        return command.wait(GUARD), terminal.seen()


def widest(text: str) -> int:
    return max(map(len, text.splitlines()))


# --- widths ---


@pytest.mark.parametrize("columns", [72, 100])
def test_a_table_keeps_to_its_terminal(vdpad: Path, state: str, columns: int) -> None:
    arguments = ("--socket", vdpad, "check", state, "--software", "small")
    code, text = on_terminal(*arguments, columns=columns)
    assert code == 3
    assert columns - 20 < widest(text) <= columns
    _, text = on_terminal(*arguments, columns=columns, COLUMNS="60")
    assert 40 < widest(text) <= 60
    # The same through a pipe: a problem is a line.
    done = forked().text(*arguments, env=QUIET)
    assert widest(done.stdout) > columns
    problems = json.loads(text_of(*arguments, "--json").stdout)["problems"]
    assert len(problems) > 3
    for each in problems:
        assert any(
            each["path"] in line and each["message"] in line for line in done.stdout.splitlines()
        )


def test_problems_on_standard_error_keep_to_that_one(vdpad: Path, state: str) -> None:
    with Terminal(70) as terminal:
        command = ("--socket", vdpad, "restore", "vm-1", state, "--software", "small")
        forked().run(*command, env=QUIET, stderr=terminal.stream)
        refusal, *table = terminal.seen().splitlines()
    assert refusal.startswith("vdpactl: incompatible: ")
    assert 50 < max(map(len, table)) <= 70


@pytest.mark.parametrize("method", ["status", "info", "restore", "decode"])
def test_whatever_is_shown_keeps_to_its_terminal(vdpad: Path, state: str, method: str) -> None:
    name = "a-name-without-a-place-to-break-it-" * 3
    restore = ("restore", name, state, "--software", "silent")
    arguments = {"restore": restore, "decode": ("decode", state)}.get(method, (method,))
    on_terminal("--socket", vdpad, *restore)
    _, text = on_terminal("--socket", vdpad, *arguments, columns=64)
    # But for errors, and what is longer by itself: a path, a key.
    lines = [each for each in text.splitlines() if not each.startswith("vdpactl: ")]
    short = [each for each in lines if all(len(word) < 60 for word in each.split())]
    assert len(short) >= len(lines) - 2
    assert 30 < max(map(len, short)) <= 64


def test_a_long_list_of_unanswered_commands_is_cut_for_people_only(
    vdpad: Path, tmp_path: Path
) -> None:
    state = tmp_path / "vlans.json"
    state.write_text(json.dumps(vlans([1, 41])))
    restore = ("restore", "vm-2", str(state), "--software", "silent")
    done = text_of("--socket", vdpad, *restore)
    assert done.returncode == 5
    _, _, table = done.stdout.partition("40 unanswered:\n")
    assert [line.split()[0] for line in table.splitlines()[2:10]] == [str(at) for at in range(1, 9)]
    assert table.splitlines()[10:] == ["… and 32 more"]
    done = text_of("--socket", vdpad, *restore, "--json")
    report = json.loads(done.stdout)["error"]["data"]["report"]
    assert len(report["unanswered"]) == report["unanswered_total"] == 40


@pytest.mark.parametrize(
    ("closed", "prints"), [("2>&-", True), ("<&-", True), (">&-", False), ("<&- >&- 2>&-", False)]
)
def test_streams_that_are_closed_are_no_reason_to_fail(
    vdpad: Path, state: str, closed: str, prints: bool
) -> None:
    for arguments, code in ((["check", state, "--software", "small"], 3), (["status"], 0)):
        with redirected(closed) as streams:
            done = forked().run("--socket", vdpad, *arguments, **streams)
        assert (done.returncode, done.stderr) == (code, b"")
        assert bool(done.stdout) is prints


# --- how far it is ---


def test_a_stream_that_comes_slowly_says_how_much_of_it_came() -> None:
    reading, writing = os.pipe()
    with Terminal() as terminal, _running("decode", "-", terminal=terminal, stdin=reading) as its:
        os.close(reading)
        os.write(writing, BEGINNING)
        terminal.until(f"-: {len(BEGINNING)} bytes read")
        os.close(writing)
        assert its.wait(GUARD) == 2
        shown = terminal.seen()
    # Before anything else is said, the line is gone.
    *_, blank, error = shown.split("\r")
    assert blank.strip() == ""
    assert error.startswith("vdpactl: -: expected")


def test_a_reply_that_is_waited_for_says_for_how_long(tmp_path: Path, state: str) -> None:
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as silent, Terminal() as terminal:
        silent.bind(str(path))
        arguments = ("--socket", path, "--timeout", "40", "prepare", "vm-1", "-")
        whole = (*arguments, "--software", "sim0", "--deadline-ms", "5000")
        with open(state, "rb") as given, _running(*whole, terminal=terminal, stdin=given.fileno()):
            terminal.until("waiting for the reply: 2 of at most 45 s")
            terminal.until("waiting for the reply: 3 of at most 45 s")


def test_qemu_that_is_waited_for_says_for_how_long(tmp_path: Path) -> None:
    with peer(tmp_path, lines(GREETING), hold=True) as (qmp, _), Terminal() as terminal:
        arguments = ("capture", "--qmp", qmp, "--ask-features")
        with _running(*arguments, terminal=terminal):
            terminal.until("waiting for QEMU: 2 of at most 30 s")


def test_a_selftest_says_which_command_it_is_at() -> None:
    slow = [sys.executable, "-m", "tests.cli.software_selftest", '{"seconds_a_command": 0.3}']
    with Terminal(60) as terminal:
        command = [*slow, "selftest", "vdpa0"]
        with subprocess.Popen(
            command, cwd=ROOT, env=QUIET, stdout=subprocess.PIPE, stderr=terminal.stream
        ) as running:
            seen = terminal.until("vdpa0: command 9 of 25, ")
            assert ", alone" in seen
            assert max(map(len, seen.split("\r"))) < 60
            running.kill()


def test_nothing_is_shown_where_it_is_no_terminal_or_soon_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_AFTER", 0.0)
    asked: list[None] = []

    def how_far() -> str:
        asked.append(None)
        return ""

    with progress.shown(how_far):
        pass
    assert capsys.readouterr().err == ""
    assert asked == []
    monkeypatch.setattr(progress, "_AFTER", 1000.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.shown(how_far):
        pass
    assert capsys.readouterr().err == ""
    assert asked == []


def test_how_far_a_file_has_been_read(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    with path.open("wb") as sparse:
        sparse.truncate(5 << 30)
    with progress.CountedFile(path) as file:
        file.seek(3 << 29)
        file.readinto(bytearray(1 << 20))
        assert file.how_far() == "1.5 GiB of 5.0 GiB"
    ours, its = os.pipe()
    os.write(its, bytes(3000))
    with progress.CountedFile(ours) as pipe:
        pipe.readinto(bytearray(2048))
        assert pipe.how_far() == "2.0 KiB"
        pipe.readinto(bytearray(10))
        pipe.readinto(bytearray(2000))
        assert pipe.how_far() == "2.9 KiB"
    os.close(its)


def _running(
    *arguments: str | Path, terminal: Terminal, stdin: int = subprocess.DEVNULL
) -> AbstractContextManager[Child]:
    """A command whose standard error is the terminal, begun, and killed at the end."""
    return forked().child(
        *arguments, env=QUIET, stdin=stdin, stdout=subprocess.DEVNULL, stderr=terminal.stream
    )
