"""Completion in the shells themselves, as it is installed."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.clients.programs import installed as found
from tests.support.daemon import ROOT, daemon
from tests.support.waiting import GUARD

STATE = ROOT / "docs" / "examples" / "state.json"
BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")

# What a daemon answers, and what none does: names that a shell would carry out.
ANSWERS = """#!/bin/sh
case "$*" in
*backends*) printf '[{\\n    "name": "net-only",\\n    "why": null\\n}]\\n' ;;
*status*)
    printf '{\\n    "migration": "vm-unique",\\n    "migration": "of:a:host",\\n'
    printf '    "migration": "$(touch %s)",\\n}\\n'
    ;;
*devices*) printf '[{\\n    "name": "vdpa-only"\\n}]\\n' ;;
*) exit 1 ;;
esac
"""

Complete = Callable[[str], list[str]]


class Shells:
    """Each gives the words that it would complete a line with."""

    def __init__(self, share: Path, path: str, home: Path) -> None:
        self._share = share
        self._env = {"PATH": path, "HOME": str(home), "TERM": "xterm", "LC_ALL": "C.UTF-8"}

    def _run(self, *argv: str | Path) -> list[str]:
        done = subprocess.run(
            argv, cwd=ROOT, env=self._env, capture_output=True, text=True, timeout=GUARD, check=True
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    def bash(self, line: str) -> list[str]:
        """By the function that Readline calls."""
        script = self._share / "bash-completion/completions/vdpactl"
        words = " ".join(f"'{word}'" for word in line.split(" "))
        program = (
            f"source {script}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
            '_shtab_vdpactl; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        return self._run(found("bash"), "--norc", "-c", program)

    def fish(self, line: str) -> list[str]:
        """By the builtin that tells it."""
        script = self._share / "fish/vendor_completions.d/vdpactl.fish"
        lines = self._run(
            found("fish"), "--no-config", "-c", f"source {script}; complete -C '{line}'"
        )
        return [each.split("\t")[0] for each in lines]

    def zsh(self, line: str) -> list[str]:
        """On a terminal, as it has no other way: what stands behind the line after a Tab."""
        functions = self._share / "zsh/vendor-completions"
        begin = f"fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D"
        return self._typed([found("zsh"), "-f", "-i"], begin, line)

    def bash_typed(self, line: str) -> list[str]:
        """The same of bash, with Debian's bash-completion."""
        script = self._share / "bash-completion/completions/vdpactl"
        begin = f"source {BASH_COMPLETION}; source {script}"
        return self._typed([found("bash"), "--norc", "-i"], begin, line)

    def _typed(self, shell: Sequence[str | Path], begin: str, line: str) -> list[str]:
        ours, its = pty.openpty()
        with subprocess.Popen(
            shell,
            cwd=ROOT,
            env=self._env,
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
        ) as running:
            os.close(its)
            try:
                os.write(ours, f"{begin}; PS1=REA''DY\n".encode())
                _read_until(ours, "READY")
                os.write(ours, f"{line}\t".encode())
                shown = _read_until(ours, line, then=" ")
            finally:
                running.kill()
                os.close(ours)
        return [_plain(shown).rpartition(line.split(" ")[-1])[2].strip()]


def _plain(shown: str) -> str:
    """Without what a terminal does not show as text."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def _read_until(terminal: int, text: str, then: str = "") -> str:
    shown, give_up = "", time.monotonic() + GUARD
    while text not in shown or then not in shown.partition(text)[2]:
        readable, _, _ = select.select([terminal], [], [], max(0.0, give_up - time.monotonic()))
        assert readable, shown
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


@pytest.fixture
def answered(installed: Path, tmp_path: Path) -> Shells:
    """Shells where a vdpactl tells names, one of them a hostile daemon's."""
    program = tmp_path / "vdpactl"
    program.write_text(ANSWERS % (tmp_path / "touched"))
    program.chmod(0o755)
    return Shells(installed / "usr/share", f"{tmp_path}:{os.environ['PATH']}", tmp_path)


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_methods_options_and_choices(answered: Shells, shell: str) -> None:
    complete: Complete = getattr(answered, shell)
    assert complete("vdpactl conv") == ["convert"]
    assert "--deadline-ms" in complete("vdpactl commit --dead")
    assert {"native", "device-parts", "command-log"} <= set(complete("vdpactl convert --to "))
    assert complete("vdpactl decode README.m") == ["README.md"]


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_names_that_the_daemon_knows(answered: Shells, shell: str, tmp_path: Path) -> None:
    complete: Complete = getattr(answered, shell)
    assert complete("vdpactl commit vm") == ["vm-unique"]
    assert complete("vdpactl release vd") == ["vdpa-only"]
    assert complete("vdpactl status --backend n") == ["net-only"]
    assert complete("vdpactl prepare vm-new state.json --vhost-vdpa vd") == ["vdpa-only"]
    assert [each for each in complete("vdpactl cancel ") if "touch" in each] == []
    assert not (tmp_path / "touched").exists()


def test_zsh(answered: Shells) -> None:
    assert answered.zsh("vdpactl conv") == ["ert"]
    assert answered.zsh("vdpactl commit vm") == ["-unique"]
    assert answered.zsh("vdpactl release vd") == ["pa-only"]


@pytest.mark.parametrize("shell", ["bash_typed", "zsh"])
def test_a_name_with_colons(answered: Shells, shell: str) -> None:
    complete: Complete = getattr(answered, shell)
    assert complete("vdpactl commit of") == [":a:host"]
    assert complete("vdpactl commit of:a") == [":host"]
    assert complete("vdpactl status of:a:h") == ["ost"]


def test_a_daemon_is_asked(installed: Path, tmp_path: Path) -> None:
    program = tmp_path / "vdpactl"
    with daemon(tmp_path) as running:
        command = f"{sys.executable} -m vdpad.cli.vdpactl --socket {running.socket}"
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)
        target = ("--software", "sim0")
        subprocess.run([program, "restore", "vm-real", STATE, *target], cwd=ROOT, check=True)
        shells = Shells(installed / "usr/share", f"{tmp_path}:{os.environ['PATH']}", tmp_path)
        assert shells.bash("vdpactl status vm") == ["vm-real"]
    assert shells.bash("vdpactl status vm") == [""]
