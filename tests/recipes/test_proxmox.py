"""Proxmox VE's hookscript: phases that ask for nothing, and what it needs."""

from __future__ import annotations

import re

import pytest

from tests.clients.programs import installed, run

from .moves import GUEST, RECIPES, Moves
from .test_hooks import Hook, hook_of

HOOK = RECIPES / "proxmox" / "vdpad-hook.pl"


@pytest.fixture
def perl() -> Hook:
    return hook_of("Perl")


@pytest.mark.parametrize("phase", ["post-start", "pre-stop"])
def test_other_phases_ask_for_nothing(perl: Hook, moves: Moves, phase: str) -> None:
    moves.lay(state="no state")
    done = perl.run(moves, GUEST, phase)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_start_that_is_no_move_asks_for_nothing(perl: Hook, moves: Moves) -> None:
    moves.lay(state="no state")
    done = perl.run(moves, sets=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_id_that_is_none_is_refused(perl: Hook, moves: Moves) -> None:
    done = perl.run(moves, "../107", "pre-start")
    assert done.returncode != 0
    assert done.stderr == "expected VMID PHASE, as Proxmox VE gives them\n"


def test_it_needs_nothing_but_perl_s_own_modules() -> None:
    modules = re.findall(r"^use ([A-Z][\w:]+)", HOOK.read_text(), re.M)
    assert modules == ["IO::Socket::UNIX", "JSON::PP"]
    ask = "print Module::CoreList::first_release($_) // 'none', qq{\\n} for @ARGV"
    said = run(installed("perl"), "-MModule::CoreList", "-e", ask, *modules)
    assert said.returncode == 0, said.stderr
    assert "none" not in said.stdout.split()
