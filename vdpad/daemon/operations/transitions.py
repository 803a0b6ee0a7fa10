"""The states of an operation, and the one table of how it gets from one to another.

    prepared ──Commit──▶ committing ──Success──▶ restored      every command acked OK
        │                    └────────Failure──▶ failed        rejected, late, a broken device
        └──Cancellation, Shutdown──▶ cancelled

What happens to an operation is an object: the phase that begins with it (phases.py), which holds
all that there is in this phase only. The state is what the API calls it. `Operation` is the only
writer of both, and asks `after` first; from where an operation has ended it goes nowhere.

An operation begins as `Ready`, or in the phase in which an earlier daemon's record has it, which is
always an ending: what that daemon left unended is `failed`, by an `Interruption` where nothing had
been sent, else by a `Failure`. Only what is `renewable` gives its place to another operation of the
same migration; that one is new, and no transition.
"""

from collections.abc import Mapping
from enum import StrEnum

from vdpad.daemon.operations.phases import Commit, OperationPhase, Ready
from vdpad.daemon.records.endings import Cancellation, Failure, Interruption, Shutdown, Success
from vdpad.errors import VdpadError


class State(StrEnum):
    """Where an operation stands, as the API names it."""

    PREPARED = "prepared"
    COMMITTING = "committing"
    RESTORED = "restored"
    FAILED = "failed"
    CANCELLED = "cancelled"


class IllegalTransition(VdpadError):
    """What cannot happen to an operation in its state. A fault of ours."""


# From each state, by what happens then; from None an operation begins.
TRANSITIONS: Mapping[State | None, Mapping[type[OperationPhase], State]] = {
    None: {
        Ready: State.PREPARED,
        Success: State.RESTORED,
        Failure: State.FAILED,
        Interruption: State.FAILED,
        Cancellation: State.CANCELLED,
        Shutdown: State.CANCELLED,
    },
    State.PREPARED: {
        Commit: State.COMMITTING,
        Cancellation: State.CANCELLED,
        Shutdown: State.CANCELLED,
    },
    State.COMMITTING: {
        Success: State.RESTORED,
        Failure: State.FAILED,
    },
    State.RESTORED: {},
    State.FAILED: {},
    State.CANCELLED: {},
}


def after(state: State | None, phase: OperationPhase) -> State:
    """The state of an operation in which this phase begins.

    Raises:
        IllegalTransition: it cannot begin there.
    """
    takes = TRANSITIONS[state]
    try:
        return takes[type(phase)]
    except KeyError:
        expected = ", ".join(each.__name__ for each in takes) or "nothing more"
        raise IllegalTransition(
            f"an operation that is {state or 'new'}: expected {expected}, "
            f"got {type(phase).__name__}; a fault of vdpad's, please report it"
        ) from None
