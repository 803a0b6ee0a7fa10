"""Each harness takes what is kept for it, and is run for a while with guidance by coverage."""

import importlib.util
import os
import subprocess
import sys
from importlib import import_module

import pytest

from tests.fuzz import HARNESSES
from tests.fuzz.run import FOUND, KEPT
from tests.support.daemon import ROOT

# How long each is run, in seconds of its own.
SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))

# Beside that: starting, and one input that takes as long as one may.
_GUARD = 180


@pytest.mark.parametrize(
    ("harness", "name"),
    [(harness, path.name) for harness in HARNESSES for path in sorted((KEPT / harness).iterdir())],
)
def test_what_is_kept_is_right(harness: str, name: str) -> None:
    import_module(f"tests.fuzz.{harness}").one((KEPT / harness / name).read_bytes())


@pytest.mark.fuzz
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has wheels for x86_64 alone"
)
@pytest.mark.parametrize("harness", HARNESSES)
def test_nothing_is_found_wrong(harness: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz.run", harness, f"-max_total_time={SECONDS}"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=SECONDS + _GUARD,
        check=False,
    )
    assert done.returncode == 0, f"see {FOUND}: {done.stdout[-4000:]}"
    assert "Done " in done.stdout
