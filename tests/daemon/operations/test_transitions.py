"""The table of transitions: each state, and each phase that may begin there."""

from collections import Counter
from itertools import product
from typing import Any, cast

import pytest

from tests.daemon.records.recording import COMMANDS, details, failure, success
from vdpad.daemon.operations.operation import Operation
from vdpad.daemon.operations.phases import Commit, OperationPhase, Ready
from vdpad.daemon.operations.transitions import TRANSITIONS, IllegalTransition, State, after
from vdpad.daemon.records.endings import Cancellation, Interruption, Shutdown
from vdpad.errors import VdpadError

NOTHING = cast("Any", None)

PHASES: dict[str, OperationPhase] = {
    "ready": Ready(NOTHING, NOTHING, NOTHING, Counter(), memory=7),
    "commit": Commit(NOTHING),
    "success": success(),
    "failure": failure(),
    "interruption": Interruption(report=failure().report or NOTHING),
    "cancellation": Cancellation(),
    "shutdown": Shutdown(),
}

# All that may happen, in words of the API; whatever is not here may not.
MAY = {
    ("new", "ready"): "prepared",
    ("new", "success"): "restored",
    ("new", "failure"): "failed",
    ("new", "interruption"): "failed",
    ("new", "cancellation"): "cancelled",
    ("new", "shutdown"): "cancelled",
    ("prepared", "commit"): "committing",
    ("prepared", "cancellation"): "cancelled",
    ("prepared", "shutdown"): "cancelled",
    ("committing", "success"): "restored",
    ("committing", "failure"): "failed",
}

# How an operation gets into each state.
WAYS = {
    "prepared": ("ready",),
    "committing": ("ready", "commit"),
    "restored": ("ready", "commit", "success"),
    "failed": ("ready", "commit", "failure"),
    "cancelled": ("ready", "cancellation"),
}


def operation_in(state: str) -> Operation:
    """An operation in this state."""
    first, *rest = (PHASES[each] for each in WAYS[state])
    operation = Operation(details(), cast("Ready", first))
    for each in rest:
        operation.enter(cast("Commit", each))
    assert operation.state.value == state
    return operation


@pytest.mark.parametrize(("state", "phase"), list(product([None, *State], PHASES)))
def test_every_state_and_phase(state: State | None, phase: str) -> None:
    expected = MAY.get((state or "new", phase))
    if expected is None:
        with pytest.raises(IllegalTransition, match=f"{state or 'new'}: expected .*, got "):
            after(state, PHASES[phase])
    else:
        assert after(state, PHASES[phase]).value == expected


@pytest.mark.parametrize(("state", "name"), list(product(WAYS, PHASES)))
def test_an_operation_goes_by_the_table_or_stays(state: str, name: str) -> None:
    operation = operation_in(state)
    before, phase = operation.phase, cast("Commit", PHASES[name])
    expected = MAY.get((state, name))
    if expected is None:
        with pytest.raises(VdpadError):
            operation.enter(phase)
        assert (operation.state.value, operation.phase) == (state, before)
    else:
        operation.enter(phase)
        assert (operation.state.value, operation.phase) == (expected, phase)


def test_none_begins_in_its_commit() -> None:
    with pytest.raises(IllegalTransition, match="new: expected Ready, Success"):
        Operation(details(), cast("Ready", PHASES["commit"]))


def test_what_has_ended_is_told_that_nothing_more_comes() -> None:
    with pytest.raises(IllegalTransition, match="restored: expected nothing more, got Failure"):
        operation_in("restored").enter(failure())


def test_the_table_knows_every_state() -> None:
    assert set(TRANSITIONS) == {None, *State}


@pytest.mark.parametrize("state", WAYS)
def test_what_there_is_of_it_goes_with_the_state(state: str) -> None:
    operation = operation_in(state)
    ended = state not in ("prepared", "committing")
    assert operation.has_ended is ended
    assert operation.memory == 7
    assert (operation.report is not None) is (state in ("restored", "failed"))
    assert operation.details.commands == len(COMMANDS)


@pytest.mark.parametrize("name", ["success", "failure", "interruption", "cancellation", "shutdown"])
def test_what_the_daemon_ended_before_its_commit_is_renewable(name: str) -> None:
    operation = Operation(details(), cast("Ready", PHASES[name]))
    assert operation.memory == 0
    assert operation.renewable is (name in ("interruption", "shutdown"))
