"""An operation: one migration's restore, what was asked for and what it came to."""

import asyncio
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vdpad.daemon.records.file import Record
from vdpad.daemon.targets.interface import Destination, Target
from vdpad.restore.program import Program
from vdpad.restore.replay import Outcome, Replayed
from vdpad.restore.report import Report, report
from vdpad.service.refusal import Kind, Refusal
from vdpad.state.model import NetState

_FAILURES = {
    Outcome.REJECTED: (Kind.REJECTED, "the device refused {rejected} of {commands} commands"),
    Outcome.INCOMPLETE: (
        Kind.TIMEOUT,
        "{unanswered} of {commands} commands were not answered by the deadline",
    ),
    Outcome.BROKEN: (Kind.DEVICE_BROKEN, "the device broke the rules of the ring: {fault}"),
}


class State(StrEnum):
    """Where an operation stands, as the API names it."""

    PREPARED = "prepared"
    COMMITTING = "committing"
    RESTORED = "restored"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({State.RESTORED, State.FAILED, State.CANCELLED})


@dataclass(frozen=True, slots=True)
class Wish:
    """A checked request to put a state on a target."""

    migration: str
    state: NetState
    target: Target
    target_json: dict[str, Any]
    """The target as the caller named it, for replies."""
    began_ns: int
    """perf_counter_ns when the request came in: preparing is counted from here."""

    def digest(self) -> str:
        """Tells this state and target from others: sha256 over their canonical JSON."""
        digest = hashlib.sha256(self.state.model_dump_json(exclude_none=True).encode())
        digest.update(json.dumps(self.target_json, sort_keys=True).encode())
        return digest.hexdigest()


@dataclass(slots=True)
class Operation:
    """One migration's restore."""

    migration: str
    digest: str
    destination: Destination | None
    """None where the operation ended before there was one, or with an earlier daemon."""
    target_json: dict[str, Any]
    device: str
    """The device's name, as far as it is known."""
    commands: int
    doorbells: int
    widened: tuple[str, ...]
    prepare_us: int
    state: State = State.PREPARED
    program: Program | None = None
    """Until the operation ends."""
    memory: int = 0
    """About how many bytes that takes."""
    by_name: Counter[str] = field(default_factory=Counter)
    """How many commands of each name it has."""
    report: Report | None = None
    failure: tuple[Kind, str] | None = None
    """What callers of a failed commit are told, beside the report."""
    commit: asyncio.Task[None] | None = field(default=None, repr=False)
    waiting: int = 0
    """How many requests wait for the commit's end."""
    record: Record | None = field(default=None, repr=False)
    """Until its last word is written, some time after the end."""
    renewable: bool = False
    """The daemon ended it, and nothing was sent."""

    @property
    def named(self) -> tuple[str, str, str]:
        """How events begin: the migration, the target's kind, the device's name."""
        return self.migration, self.target_json["kind"], self.device

    def ended(self, program: Program, replayed: Replayed) -> Report:
        """Its replay has ended so."""
        self.report = told = report(
            self.migration,
            program.commands,
            replayed,
            widened=self.widened,
            prepare_us=self.prepare_us,
        )
        self.state = State.FAILED
        if replayed.outcome is Outcome.RESTORED:
            self.state = State.RESTORED
            return told
        kind, message = _FAILURES[replayed.outcome]
        message = message.format(
            rejected=told.rejected_total,
            unanswered=told.unanswered_total,
            commands=told.commands,
            fault=replayed.fault,
        )
        self.failure = (kind, message)
        return told

    def outcome(self) -> Report:
        """What its commit came to.

        Raises:
            Refusal: it failed; with the report, where there is one.
        """
        if self.failure is None:
            assert self.report is not None
            return self.report
        kind, message = self.failure
        data = {} if self.report is None else {"report": self.report.to_json()}
        raise Refusal(kind, message, **data)

    def to_json(self) -> dict[str, Any]:
        """The API's Operation."""
        return {
            "migration": self.migration,
            "state": self.state.value,
            "digest": self.digest,
            "target": self.target_json,
            "commands": self.commands,
            "doorbells": self.doorbells,
            "widened": list(self.widened),
            "prepare_us": self.prepare_us,
            "report": None if self.report is None else self.report.to_json(),
        }
