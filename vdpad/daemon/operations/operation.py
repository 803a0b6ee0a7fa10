"""An operation: one migration's restore, what was asked for and what it came to."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vdpad.daemon.operations.phases import Commit, OperationPhase, Ready
from vdpad.daemon.operations.requester import Requester
from vdpad.daemon.operations.transitions import State, after
from vdpad.daemon.records.details import Details
from vdpad.daemon.records.endings import AnyEnding, Ending
from vdpad.daemon.records.owners import Owners
from vdpad.daemon.targets.interface import Target
from vdpad.queues.control_queue import Lent
from vdpad.restore.report import Report
from vdpad.state.model import NetState

_CANONICAL = json.JSONEncoder(sort_keys=True)


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """A checked request to put a state on a target."""

    migration: str
    state: NetState
    target: Target
    target_json: dict[str, Any]
    """The target as the caller named it, for replies."""
    began_ns: int
    """perf_counter_ns when the request came in: preparing is counted from here."""
    requester: Requester
    owners: Owners
    """Whose the operation will be."""

    def digest(self) -> str:
        """Tells this state and target from others: sha256 over their canonical JSON."""
        digest = hashlib.sha256(self.state.model_dump_json(exclude_none=True).encode())
        digest.update(_CANONICAL.encode(self.target_json).encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An operation as it is at one moment."""

    details: Details
    state: State
    ending: Ending | None
    """None where it has not ended."""


def _nobody(_: "Operation") -> None:
    """Who is told of an operation that is not known yet."""


class Operation:
    """One migration's restore: details that stay, and the phase that it is in."""

    __slots__ = ("_phase", "_state", "details", "lent", "memory", "tell")

    def __init__(self, details: Details, phase: Ready | Ending, lent: Lent | None = None) -> None:
        """
        Args:
            details: of it; they stay.
            phase: in which it begins here.
            lent: what an earlier daemon's commit was lent, where it was lent anything.
        """
        self.details = details
        self.lent = lent
        """What its commit works on, or did, where that was lent."""
        self.memory = phase.memory if isinstance(phase, Ready) else 0
        """About how many bytes its program takes while it has not ended."""
        self._state = after(None, phase)
        self._phase: OperationPhase = phase
        self.tell: Callable[[Operation], None] = _nobody
        """Told of each change. A guest may be waiting meanwhile."""

    def enter(self, phase: Commit | Ending) -> None:
        """This happens to it: the next phase begins, and the one before is over.

        Raises:
            IllegalTransition: that cannot happen in its state; it stays as it is.
        """
        self._state = after(self._state, phase)
        self._phase = phase
        if isinstance(phase, Commit):
            self.lent = phase.lent
        self.tell(self)

    def snapshot(self) -> Snapshot:
        """It, as it is now."""
        ending = self._phase if isinstance(self._phase, AnyEnding) else None
        return Snapshot(self.details, self._state, ending)

    @property
    def phase(self) -> OperationPhase:
        """The phase that it is in, with all that there is in this phase only."""
        return self._phase

    @property
    def state(self) -> State:
        """Its state, as the API names it."""
        return self._state

    @property
    def migration(self) -> str:
        """By which it is known."""
        return self.details.migration

    @property
    def user(self) -> int | None:
        """Whose share it is of: who prepared it."""
        return self.details.owners.user

    @property
    def is_lent(self) -> bool:
        """Whether its ring comes with its commit."""
        return self.details.target["kind"] == "lent"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return isinstance(self._phase, AnyEnding)

    @property
    def renewable(self) -> bool:
        """Whether the same may be prepared again, in its place."""
        return isinstance(self._phase, Ending) and self._phase.renewable

    @property
    def report(self) -> Report | None:
        """What became of each command; None where there is nothing to tell."""
        return self._phase.report if isinstance(self._phase, AnyEnding) else None

    @property
    def ended(self) -> datetime | None:
        """When it ended; None where it has not, or an older vdpad did not write it down."""
        return self._phase.ended if isinstance(self._phase, AnyEnding) else None
