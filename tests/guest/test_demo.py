"""`make demo-migration`: what it says at its end, and where it cannot be shown."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.availability import skip_or_fail
from tests.support.daemon import ROOT

from . import demo


def test_it_says_that_the_filter_has_moved() -> None:
    try:
        demo.found_qemu()
    except demo.NoQemu as error:
        skip_or_fail(str(error))
    done = subprocess.run(
        [sys.executable, "-m", "tests.guest.demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("  unicast      1 address: 52:54:00:00:00:77\n") == 2
    assert " pages that the device has written (relay)\n" in done.stdout
    assert done.stdout.endswith("The destination's device has the filter of the source.\n")


def test_without_a_qemu_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "why_unavailable", lambda: None)
    monkeypatch.setattr(demo, "release", lambda program: (7, 2))
    assert demo.main() == 1
    told = capsys.readouterr().err
    assert told.startswith("demo-migration: expected QEMU 10.0 or later, ")
    assert "None" not in told
    assert "run `.ci/qemu trixie-backports`" in told
