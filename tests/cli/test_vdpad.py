"""vdpad as a command."""

import argparse
import re
import shlex
import subprocess

import pytest

from tests.support.daemon import MODULE
from tests.support.forker import forker_of
from tests.test_man import PAGES
from vdpad.cli import vdpad as command
from vdpad.cli.commands import command_line
from vdpad.wire.addresses import DEFAULT_SOCKET


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return forker_of(MODULE).text(*arguments)


def test_its_help_names_its_options() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--socket", "--config", "--verbose", "--version"):
        assert option in done.stdout


def sections() -> dict[str, str]:
    """What its help has below each title, and before the first of them."""
    parts = re.split(r"^([a-z][a-z ]+):", command.command_line().format_help(), flags=re.M)
    return dict(zip(["about", *parts[1::2]], [parts[0], *parts[2::2]], strict=True))


def test_its_help_tells_an_operator_what_is_what() -> None:
    found = sections()
    assert {"usage", "options", "signals", "exit codes", "files", "examples", "see also"} <= {
        *found
    }
    about = " ".join(found["usage"].split())
    for word in ("migrated", "MAC address", "RSS", "vdpactl", "journal", "standard error"):
        assert word in about
    for option in ("--socket", "--config", "--verbose"):
        _, _, behind = found["options"].partition(f"\n  {option}")
        assert "(default:" in behind.partition("\n  --")[0], option
    assert str(DEFAULT_SOCKET) in found["options"]
    assert all(page in found["see also"] for page in ("vdpad(8)", "vdpad.toml(5)", "vdpactl(1)"))


def test_its_help_and_its_page_tell_the_same() -> None:
    found = sections()
    page = PAGES["vdpad.8.rst"].replace("\\", "")
    for path in re.findall(r"/[a-z]\S+[a-z*/]", found["files"]):
        assert path.rpartition("/")[0] in page, path
    for signal in re.findall(r"SIG[A-Z]+", found["signals"]):
        assert signal in page
    codes = re.findall(r"^  (\d)  ", found["exit codes"], re.M)
    assert codes == re.findall(r"^(\d)$", page, re.M) == ["0", "1", "2"]


def test_the_examples_of_its_help_can_be_typed() -> None:
    parsers: dict[str, argparse.ArgumentParser] = {
        "vdpad": command.command_line(),
        "vdpactl": command_line(),
    }
    lines = [line.strip() for line in sections()["examples"].splitlines() if line[:4] == "    "]
    tried = [shlex.split(line) for line in lines]
    assert {name for name, *_ in tried} == {*parsers, "systemctl", "journalctl"}
    for name, *arguments in tried:
        if name in parsers:
            parsers[name].parse_args(arguments)


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_its_help_keeps_to_the_width(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for parser in (command.command_line(), command_line()):
        lines = parser.format_help().splitlines()
        commands = [line for line in lines if line.startswith("    ") and "--" in line]
        assert max(len(line) for line in lines if line not in commands) <= columns


def test_it_tells_its_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    name, version = done.stdout.split()
    assert name == "vdpad"
    assert version[0].isdigit()


@pytest.mark.parametrize("arguments", [["--nope"], ["extra"], ["--socket"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: vdpad ")
