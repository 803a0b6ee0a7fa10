"""vdpactl as its users run it, for commands that need no daemon."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.forker import Forker, forker_of

MODULE = "vdpad.cli.vdpactl"
OF_STATES = "vdpad.cli.state_files"
"""What it imports for commands on states."""
VDPACTL = [sys.executable, "-m", MODULE]


def forked() -> Forker:
    """What starts it."""
    return forker_of(MODULE, OF_STATES)


def run(*arguments: str | Path, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """Runs one to its end."""
    return forked().run(*arguments, stdin=stdin, env=environment())


def text_of(*arguments: str | Path, stdin: bytes = b"") -> "subprocess.CompletedProcess[str]":
    """The same with what it printed as text."""
    return forked().text(*arguments, stdin=stdin, env=environment())


def environment() -> dict[str, str]:
    """As Python has it: readline, which pytest imports, sets COLUMNS behind Python's back."""
    return dict(os.environ)


def said(*arguments: str | Path, code: int = 0, stdin: bytes = b"") -> str:
    """What it prints, with nothing on standard error."""
    done = run(*arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (code, b""), done
    return done.stdout.decode()


def refused(*arguments: str | Path, code: int = 2, stdin: bytes = b"") -> str:
    """What it says of what it cannot do, with nothing on standard output."""
    done = run(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, b""), done
    assert done.stderr.startswith(b"vdpactl: ")
    return done.stderr.decode()


_CLOSED = {"<&-": 0, ">&-": 1, "2>&-": 2}
_FULL = {">/dev/full": "stdout", "2>/dev/full": "stderr"}


@contextmanager
def redirected(words: str) -> Iterator[dict[str, Any]]:
    """What a forker starts a command with, for it to have these redirections of a shell's."""
    each = words.split()
    with open("/dev/full", "wb") as full:
        yield {
            "closed": [_CLOSED[word] for word in each if word not in _FULL],
            **{_FULL[word]: full for word in each if word not in _CLOSED},
        }
