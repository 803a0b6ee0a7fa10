"""Standard streams that are closed, full or left by their readers: what is lost is said."""

import json
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cases import FOLDER
from tests.cli.commands import environment, forked, redirected
from tests.support.daemon import MODULE as VDPAD
from tests.support.forker import Forker, forker_of
from vdpad.cli.arguments import Parser

# Its features are told in a note, beside the result.
NOTED = FOLDER / "tso_no_csum.json"
FULL = "standard output: No space left on device; the result could not be written"


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def unbuffered(request: pytest.FixtureRequest) -> str:
    """PYTHONUNBUFFERED: when a write fails depends on it."""
    return str(request.param)


def run(
    redirections: str, forker: Forker, *arguments: str | Path, unbuffered: str = "", **more: Any
) -> subprocess.CompletedProcess[str]:
    """A command as a shell runs it with these redirections."""
    there = {**environment(), "PYTHONUNBUFFERED": unbuffered}
    with redirected(redirections) as streams:
        return forker.text(*arguments, env=there, **streams, **more)


def vdpactl(
    redirections: str, *arguments: str | Path, **more: Any
) -> subprocess.CompletedProcess[str]:
    return run(redirections, forked(), *arguments, **more)


# --- standard output ---

PRINTING: Sequence[Sequence[str | Path]] = [
    ("decode", NOTED),
    ("decode", NOTED, "--json"),
    ("convert", NOTED, "--to", "native"),
    ("convert", NOTED, "--to", "device-parts"),
    ("keygen",),
    ("--help",),
    ("decode", "--help"),
    ("--version",),
]


@pytest.mark.parametrize("arguments", PRINTING, ids=lambda each: " ".join(map(str, each))[-30:])
def test_a_full_disk_is_told(arguments: Sequence[str | Path], unbuffered: str) -> None:
    done = vdpactl(">/dev/full", *arguments, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (1, f"vdpactl: {FULL}\n")


def test_vdpad_s_help_is_as_vdpactl_s(unbuffered: str) -> None:
    done = run(">/dev/full", forker_of(VDPAD), "--help", unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (1, f"vdpad: {FULL}\n")


def test_what_failed_keeps_its_exit_code_where_that_cannot_be_told(
    tmp_path: Path, unbuffered: str
) -> None:
    (tmp_path / "state").write_text('{"version": 1}')
    arguments = ("convert", tmp_path / "state", "--to", "native", "--output", "out", "--json")
    done = vdpactl(">/dev/full", *arguments, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (2, f"vdpactl: {FULL}\n")


# Only what is printed has it.
ONLY_THERE = [("convert", NOTED, "--to", "native"), ("keygen",)]


@pytest.mark.parametrize("arguments", ONLY_THERE, ids=["convert", "keygen"])
def test_what_is_nowhere_else_must_be_taken(arguments: Sequence[str | Path]) -> None:
    done = vdpactl(">&-", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("vdpactl: standard output")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", ONLY_THERE, ids=["convert", "keygen"])
def test_nor_is_it_done_when_its_reader_is_gone(arguments: Sequence[str | Path]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = vdpactl("", *arguments, stdout=writing)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr.startswith("vdpactl: standard output")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("redirections", [">&-", ">&- <&-", ">/dev/full"])
def test_a_key_in_a_file_is_made_whoever_reads_of_it(tmp_path: Path, redirections: str) -> None:
    path = tmp_path / "keys"
    done = vdpactl(redirections, "keygen", path)
    assert (done.returncode, len(path.read_bytes())) == (int("full" in redirections), 45)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# --- standard error ---


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", "2>&- <&-"])
def test_remarks_go_nowhere_else(redirections: str, unbuffered: str) -> None:
    done = vdpactl(redirections, "convert", NOTED, "--to", "native", unbuffered=unbuffered)
    assert done.returncode == 0
    assert json.loads(done.stdout)["version"] == 1


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize("arguments", [("decode", "none"), ("nothing",), ("decode",), ()])
def test_what_is_wrong_is_told_nowhere_else(
    redirections: str, arguments: Sequence[str], unbuffered: str
) -> None:
    done = vdpactl(redirections, *arguments, unbuffered=unbuffered)
    assert (done.returncode, done.stdout) == (2, "")


def test_problems_are_told_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "state").write_text('{"version": 1}')
    done = vdpactl("2>/dev/full", "convert", tmp_path / "state", "--to", "native")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_vdpad_serves_whoever_hears_of_it(tmp_path: Path, redirections: str) -> None:
    path = tmp_path / "vdpad.sock"
    with redirected(redirections) as streams:
        daemon = forker_of(VDPAD).start("--socket", path, env=environment(), **streams)
    try:
        while (asked := vdpactl("", "--socket", path, "info")).returncode == 7:
            assert daemon.poll() is None
        assert (asked.returncode, asked.stderr) == (0, "")
    finally:
        daemon.terminate()
        ended = daemon.wait()
    assert ended == 0


def test_help_goes_to_standard_output_and_complaints_do_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = Parser(prog="p", usage="u")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    out, err = capsys.readouterr()
    assert (out.splitlines()[0], err) == ("usage: u", "")
    with pytest.raises(SystemExit):
        parser.parse_args(["x"])
    assert capsys.readouterr() == ("", "usage: u\np: error: unrecognized arguments: x\n")
