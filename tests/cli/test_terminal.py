"""What vdpactl does on terminals, each a pty of its own."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import VDPACTL
from tests.cli.terminal import GUARD, Terminal
from tests.daemon.support import ROOT, STATE, daemon, faulty, vlans

QUIET = {name: value for name, value in os.environ.items() if name != "COLUMNS"}


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
        done = subprocess.run(
            [*VDPACTL, *map(str, arguments)],
            cwd=ROOT,
            env={**QUIET, **environment},
            stdin=subprocess.DEVNULL,
            stdout=terminal.stream,
            stderr=terminal.stream,
            timeout=GUARD,
            check=False,
        )
        return done.returncode, terminal.seen()


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
    command = [*VDPACTL, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=QUIET, capture_output=True, text=True, check=False, timeout=GUARD
    )
    assert widest(done.stdout) > columns
    problems = json.loads(
        subprocess.run([*command, "--json"], cwd=ROOT, stdout=subprocess.PIPE, check=False).stdout
    )["problems"]
    assert len(problems) > 3
    for each in problems:
        assert any(
            each["path"] in line and each["message"] in line for line in done.stdout.splitlines()
        )


def test_problems_on_standard_error_keep_to_that_one(vdpad: Path, state: str) -> None:
    with Terminal(70) as terminal:
        subprocess.run(
            [*VDPACTL, "--socket", vdpad, "restore", "vm-1", state, "--software", "small"],
            cwd=ROOT,
            env=QUIET,
            stdout=subprocess.PIPE,
            stderr=terminal.stream,
            check=False,
            timeout=GUARD,
        )
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
    command = [*VDPACTL, "--socket", str(vdpad), *restore]
    done = subprocess.run(
        command, cwd=ROOT, env=QUIET, capture_output=True, text=True, check=False, timeout=GUARD
    )
    assert done.returncode == 5
    _, _, table = done.stdout.partition("40 unanswered:\n")
    assert [line.split()[0] for line in table.splitlines()[2:10]] == [str(at) for at in range(1, 9)]
    assert table.splitlines()[10:] == ["… and 32 more"]
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=GUARD
    )
    report = json.loads(done.stdout)["error"]["data"]["report"]
    assert len(report["unanswered"]) == report["unanswered_total"] == 40
