"""A forked command is as one that an interpreter of its own runs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cases import FOLDER
from tests.cli.commands import MODULE, VDPACTL, redirected
from tests.support.daemon import ROOT
from tests.support.descriptors import open_descriptors_of
from tests.support.forker import forker_of
from tests.support.namespaces import namespace

OWN_STREAMS = "tests.support.own_streams"


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["--version"], b""),
        (["--help"], b""),
        (["nothing"], b""),
        (["decode", str(FOLDER / "tso_no_csum.json")], b""),
        (["decode", "-", "--json"], b'{"version": 1, "features": []}'),
        (["decode", "-"], b"{"),
        (["--socket", "/nowhere/é", "info"], b""),
        (["--socket", b"/nowhere/\xe9", "info"], b""),
    ],
)
def test_it_says_and_ends_the_same(arguments: Sequence[str | bytes], stdin: bytes) -> None:
    anew = subprocess.run(
        [*VDPACTL, *arguments], cwd=ROOT, input=stdin, capture_output=True, check=False
    )
    forked = forker_of(MODULE).run(*arguments, stdin=stdin)
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        (anew.returncode, anew.stdout, anew.stderr)
    )


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "redirections", ["", "<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full"]
)
def test_it_has_the_same_standard_streams(
    redirections: str, unbuffered: str, tmp_path: Path
) -> None:
    there = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", OWN_STREAMS, str(tmp_path / "anew")]
    anew = subprocess.run(
        ["sh", "-c", f'"$@" {redirections}', "sh", *command],
        cwd=ROOT,
        env=there,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    with redirected(redirections) as streams:
        forked = forker_of(OWN_STREAMS).run(tmp_path / "forked", env=there, **streams)
    assert (tmp_path / "forked").read_text() == (tmp_path / "anew").read_text()
    assert (forked.returncode, forked.stdout) == (anew.returncode, anew.stdout)
    # A traceback has other lines above.
    assert forked.stderr.splitlines()[-1:] == anew.stderr.splitlines()[-1:]


def test_it_has_the_arguments_the_environment_and_the_folder_and_no_other_descriptor(
    tmp_path: Path,
) -> None:
    variables = {"PATH": "/usr/bin", "NAME": "é\udce9"}
    with Path(os.devnull).open("rb"):
        done = forker_of(__name__).run("a b", "", stdin=b"in", env=variables, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (3, b"in")
    assert json.loads(done.stdout) == [["a b", ""], variables, str(tmp_path), [0, 1, 2]]


def test_a_program_laid_down_has_it_run_with_all_that_its_own_has(tmp_path: Path) -> None:
    variables = {"PATH": "/usr/bin", "NAME": "é\udce9"}
    mine = forker_of(__name__)
    fds = [mine.lay(program := tmp_path / "program")]
    with Path(os.devnull).open("rb"):
        done = _run(program, "a b", "", input=b"in", env=variables, cwd=tmp_path, pass_fds=fds)
    assert (done.returncode, done.stderr) == (3, b"in")
    # What is added to the environment is sh's own.
    arguments, environment, *others = json.loads(done.stdout)
    assert (arguments, others) == (["a b", ""], [str(tmp_path), [0, 1, 2]])
    assert variables.items() <= environment.items()
    assert _run(program, "kill", pass_fds=fds).returncode == -signal.SIGKILL


def _run(*argv: str | Path, **more: Any) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(argv, capture_output=True, check=False, **more)


def test_it_has_the_mounts_and_the_network_of_another(tmp_path: Path) -> None:
    root = [] if os.geteuid() == 0 else ["-r"]
    with namespace("unshare", "-m", "-n", *root) as other:
        done = forker_of(__name__).run("namespaces", cwd=tmp_path, within=other.pid)
        theirs = namespaces(other.pid)
    assert theirs != namespaces("self")
    assert json.loads(done.stdout) == [theirs, str(tmp_path)]


def test_each_of_several_ends_by_itself() -> None:
    mine = forker_of(__name__)
    with mine.child("sleep") as one, mine.child("sleep") as other:
        assert one.poll() is other.poll() is None
        one.terminate()
        assert one.wait() == one.poll() == -signal.SIGTERM
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.05)
    assert other.poll() == -signal.SIGKILL


def namespaces(pid: int | str) -> list[str]:
    """Which mounts and which network a process has."""
    return [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("mnt", "net")]


def main() -> int:
    """What such a process is like; or one that stays or is killed, if it is told to be."""
    if sys.argv[1:] == ["sleep"]:
        time.sleep(1000)
    if sys.argv[1:] == ["kill"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1:] == ["namespaces"]:
        print(json.dumps([namespaces("self"), os.getcwd()]))
        return 0
    fds = sorted(map(int, open_descriptors_of("self")))
    print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), fds]))
    sys.stderr.write(sys.stdin.read())
    return 3


if __name__ == "__main__":
    sys.exit(main())
