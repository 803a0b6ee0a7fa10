"""vdpactl as its users run it, for commands that need no daemon."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.daemon import ROOT

VDPACTL = [sys.executable, "-m", "vdpad.cli.vdpactl"]


def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*VDPACTL, *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        input=stdin,
        timeout=60,
        check=False,
    )


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
