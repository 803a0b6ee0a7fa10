"""vdpad as a command."""

import subprocess

import pytest

from tests.daemon.support import ROOT, vdpad


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        vdpad(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )


def test_its_help_names_its_options() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--socket", "--config", "--verbose", "--version"):
        assert option in done.stdout


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
