"""Operations: what became of each migration that was asked for.

An operation is known by its migration, and is for one state and one target (their digest). States:

    prepared ──commit──▶ committing ──▶ restored        every command acked OK
        │                    └────────▶ failed          rejected, late, or a broken device
        └────cancel───▶ cancelled

Only `_start` leaves `prepared` for `committing`, and only the commit's own task leaves that; it
belongs to the operation and not to a request, so it goes on when its client dies. Whoever asks for
the same again while it runs waits for the same end, and afterwards gets the record of it. A lend
that is refused leaves the operation prepared, since no device was touched.

Nothing here suspends between looking at a state and changing it; that is all the locking there is.
"""

import asyncio
import contextlib
import hashlib
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from vdpad.daemon.announcing import Announce, log_event
from vdpad.daemon.collector import no_collection
from vdpad.daemon.events.operations import Cancelled, CommitFailed, Committing, Prepared
from vdpad.daemon.events.replayed import by_name, replayed_event
from vdpad.daemon.faults import ApiError, Kind
from vdpad.daemon.settings import Limits, Replay
from vdpad.daemon.targets.interface import Destination, Target, Terms
from vdpad.queues.control_queue import ControlQueue
from vdpad.restore.plan import Incompatible, Plan, plan
from vdpad.restore.program import Program, encode
from vdpad.restore.replay import Outcome, Replayed, replay
from vdpad.restore.report import Report, report
from vdpad.state.model import NetState
from vdpad.state.problems import summary

# How long a request that stops no guest gives way to commits, in seconds. Longer than a commit
# takes on a device that works; a device that does not must hold nobody up.
_MOST_COURTESY = 0.05

# Requests that wait for one commit. Stops its repetitions from filling memory and descriptors.
_MOST_WAITING = 8


class State(StrEnum):
    """Where an operation stands, as the API names it."""

    PREPARED = "prepared"
    COMMITTING = "committing"
    RESTORED = "restored"
    FAILED = "failed"
    CANCELLED = "cancelled"


_ENDED = frozenset({State.RESTORED, State.FAILED, State.CANCELLED})

_FAILURES = {
    Outcome.REJECTED: (Kind.REJECTED, "the device refused {rejected} of {commands} commands"),
    Outcome.INCOMPLETE: (
        Kind.TIMEOUT,
        "{unanswered} of {commands} commands were not answered by the deadline",
    ),
    Outcome.BROKEN: (Kind.DEVICE_BROKEN, "the device broke the rules of the ring: {fault}"),
}


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
    destination: Destination
    target_json: dict[str, Any]
    commands: int
    doorbells: int
    widened: tuple[str, ...]
    prepare_us: int
    state: State = State.PREPARED
    program: Program | None = None
    """Until the operation ends."""
    by_name: Counter[str] = field(default_factory=Counter)
    """How many commands of each name it has."""
    report: Report | None = None
    failure: tuple[Kind, str] | None = None
    """What callers of a failed commit are told, beside the report."""
    commit: asyncio.Task[None] | None = field(default=None, repr=False)
    waiting: int = 0
    """How many requests wait for the commit's end."""

    @property
    def named(self) -> tuple[str, str, str]:
        """How events begin: the migration, the target's kind, the device's name."""
        return self.migration, self.target_json["kind"], self.destination.name

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


def _plan_or_refuse(state: NetState, terms: Terms) -> Plan:
    """The plan of a state for a device.

    Raises:
        ApiError: incompatible, with all problems.
    """
    planned = plan(state, terms.capabilities)
    if isinstance(planned, Incompatible):
        raise ApiError(
            Kind.INCOMPATIBLE,
            f"the device cannot take this state: {summary(planned.problems)}",
            problems=[asdict(each) for each in planned.problems],
        )
    return planned


@dataclass(frozen=True, slots=True)
class _Preparing:
    """A prepare under way, which takes time where a device comes up."""

    digest: str
    ended: asyncio.Event = field(default_factory=asyncio.Event)


async def _prepared(wish: Wish, digest: str) -> Operation:
    destination = await wish.target.bring_up(wish.state.features, wish.migration)
    try:
        planned = _plan_or_refuse(wish.state, destination)
        program = encode(planned.commands, destination.geometry, event_idx=destination.event_idx)
    except BaseException:
        await destination.give_up()
        raise
    return Operation(
        migration=wish.migration,
        digest=digest,
        destination=destination,
        target_json=wish.target_json,
        commands=len(program.commands),
        doorbells=program.most_doorbells,
        widened=planned.widened,
        prepare_us=(time.perf_counter_ns() - wish.began_ns) // 1000,
        program=program,
        by_name=by_name(program.commands),
    )


class Operations:
    """All operations of this daemon, oldest first."""

    def __init__(self, limits: Limits, waiting: Replay, announce: Announce = log_event) -> None:
        self._limits = limits
        self._waiting = waiting
        self._announce = announce
        self._all: dict[str, Operation] = {}
        self._preparing: dict[str, _Preparing] = {}
        self._in_use: dict[object, str] = {}
        """Which migration's commit has a device, by the target's identity."""
        self._no_commit = asyncio.Event()
        self._no_commit.set()

    def use(self, limits: Limits, waiting: Replay) -> None:
        """Other settings from the next request on; commits that run keep theirs."""
        self._limits = limits
        self._waiting = waiting

    async def prepare(self, wish: Wish) -> Operation:
        """The operation for a wish: recorded already, or made ready, planned and encoded now.

        On cancellation the device is let go of, and nothing is recorded.

        Raises:
            ApiError: incompatible, conflict, overloaded; what the target raises.
        """
        digest = wish.digest()
        while (earlier := self._preparing.get(wish.migration)) is not None:
            _refuse_another(earlier.digest, digest)
            await earlier.ended.wait()
        known = self._all.get(wish.migration)
        if known is not None:
            _refuse_another(known.digest, digest)
            return known
        self._make_room()
        under_way = self._preparing[wish.migration] = _Preparing(digest)
        try:
            operation = await _prepared(wish, digest)
        finally:
            del self._preparing[wish.migration]
            under_way.ended.set()
        self._all[wish.migration] = operation
        self._announce(
            Prepared(
                *operation.named,
                operation.commands,
                operation.doorbells,
                operation.prepare_us,
                operation.widened,
            )
        )
        return operation

    def begin(self, migration: str, fds: list[int], deadline_ms: int | None) -> Operation:
        """Begins the commit of a prepared operation; one that was begun stays as it is.

        Args:
            migration: of a prepared operation.
            fds: the request's descriptors; they stay the caller's to close.
            deadline_ms: for the whole replay; None for the configured one.

        Raises:
            ApiError: no-such-migration, busy, conflict (it was cancelled).
            BadLend: the operation stays prepared.
        """
        operation = self.get(migration)
        if operation.state is State.CANCELLED:
            raise ApiError(
                Kind.CONFLICT,
                "this migration was cancelled; prepare the state under another name",
                digest=operation.digest,
            )
        if operation.state is State.PREPARED:
            self._start(operation, fds, deadline_ms)
        return operation

    async def outcome(self, operation: Operation) -> Report:
        """The report of an operation that was begun, when its commit has ended.

        Cancellation of the caller leaves the commit running.

        Raises:
            ApiError: rejected, timeout, device-broken; overloaded: many wait for it already.
        """
        if operation.commit is not None:
            if operation.waiting >= _MOST_WAITING:
                raise ApiError(
                    Kind.OVERLOADED, "many requests wait for this commit; ask for its status"
                )
            operation.waiting += 1
            try:
                await asyncio.shield(operation.commit)
            finally:
                operation.waiting -= 1
        return _recorded(operation)

    def get(self, migration: str) -> Operation:
        """The operation of a migration.

        Raises:
            ApiError: no-such-migration.
        """
        operation = self._all.get(migration)
        if operation is None:
            raise ApiError(
                Kind.NO_SUCH_MIGRATION, "nothing was prepared for this migration, or long ago"
            )
        return operation

    def newest_first(self) -> list[Operation]:
        """All operations."""
        return list(reversed(self._all.values()))

    def by_state(self) -> dict[str, int]:
        """How many operations are in each state."""
        found = Counter(each.state for each in self._all.values())
        return {state.value: found[state] for state in State}

    async def cancel(self, migration: str) -> Operation:
        """Cancels a prepared operation and lets go of its device; one that has ended stays.

        Raises:
            ApiError: no-such-migration; busy: its commit runs, and commands cannot be called back.
        """
        operation = self.get(migration)
        if self._cancelled_now(operation):
            await operation.destination.give_up()
        return operation

    def device_goes(self, migration: str) -> None:
        """The device that this migration has is about to be released: no commit will come.

        Raises:
            ApiError: busy: its commit runs.
        """
        operation = self._all.get(migration)
        if operation is not None:
            self._cancelled_now(operation)

    async def let_commits_pass(self) -> None:
        """Returns when no commit runs, or after a moment: work that can wait should wait here."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MOST_COURTESY):
                await self._no_commit.wait()

    def _cancelled_now(self, operation: Operation) -> bool:
        """Cancels what is prepared, and says whether it was.

        Raises:
            ApiError: busy.
        """
        if operation.state is State.COMMITTING:
            raise ApiError(
                Kind.BUSY,
                "its commit is running; it ends by its deadline, `status` then tells how",
                migration=operation.migration,
            )
        if operation.state is not State.PREPARED:
            return False
        operation.state = State.CANCELLED
        operation.program = None
        self._announce(Cancelled(*operation.named))
        return True

    # --- the commit ---

    def _start(self, operation: Operation, fds: list[int], deadline_ms: int | None) -> None:
        """Opens the control queue and lets the commit's task begin."""
        identity = operation.destination.identity(fds)
        holder = self._in_use.get(identity)
        if holder is not None:
            raise ApiError(Kind.BUSY, f"the commit of {holder} has this device", migration=holder)
        queue = operation.destination.open(fds)
        self._in_use[identity] = operation.migration
        self._no_commit.clear()
        operation.state = State.COMMITTING
        self._announce(Committing(*operation.named, operation.commands))
        operation.commit = asyncio.get_running_loop().create_task(
            self._run(operation, queue, identity, deadline_ms or self._waiting.deadline_ms),
            name=f"commit {operation.migration}",
        )

    async def _run(
        self, operation: Operation, queue: ControlQueue, identity: object, deadline_ms: int
    ) -> None:
        program = operation.program
        assert program is not None
        try:
            with no_collection():
                replayed = await replay(
                    program,
                    queue,
                    deadline=asyncio.get_running_loop().time() + deadline_ms / 1000,
                    poll_ns=self._waiting.poll_us * 1000,
                )
            outcome = _record(operation, program, replayed)
        except BaseException as error:
            operation.state = State.FAILED
            operation.failure = (Kind.INTERNAL, "the commit failed; see the journal")
            self._announce(CommitFailed(*operation.named, error))
            raise
        finally:
            queue.close()
            del self._in_use[identity]
            if not self._in_use:
                self._no_commit.set()
            operation.program = None
            operation.commit = None
        self._announce(
            replayed_event(operation.named, program.commands, operation.by_name, replayed, outcome)
        )
        operation.destination.done()

    # --- room for records ---

    def _make_room(self) -> None:
        """Forgets the oldest that has ended, where the records are full.

        Raises:
            ApiError: overloaded.
        """
        active = sum(each.state not in _ENDED for each in self._all.values())
        active += len(self._preparing)
        if active >= self._limits.operations_at_once:
            raise ApiError(
                Kind.OVERLOADED,
                f"{active} operations are prepared or committing, which is the limit; commit or "
                "cancel some (limits.operations_at_once)",
            )
        if len(self._all) < self._limits.operations_kept:
            return
        for migration, operation in self._all.items():
            if operation.state in _ENDED:
                del self._all[migration]
                return
        raise ApiError(Kind.OVERLOADED, "all records are of operations that have not ended yet")


def _refuse_another(known: str, digest: str) -> None:
    if known != digest:
        raise ApiError(
            Kind.CONFLICT,
            "this migration is known with another state or target; give it another name",
            digest=known,
        )


def _record(operation: Operation, program: Program, replayed: Replayed) -> Report:
    """Writes down how a replay ended."""
    outcome = report(
        operation.migration,
        program.commands,
        replayed,
        widened=operation.widened,
        prepare_us=operation.prepare_us,
    )
    operation.report = outcome
    operation.state = State.FAILED
    if replayed.outcome is Outcome.RESTORED:
        operation.state = State.RESTORED
    else:
        kind, message = _FAILURES[replayed.outcome]
        told = message.format(
            rejected=outcome.rejected_total,
            unanswered=outcome.unanswered_total,
            commands=outcome.commands,
            fault=replayed.fault,
        )
        operation.failure = (kind, told)
    return outcome


def _recorded(operation: Operation) -> Report:
    if operation.failure is None:
        assert operation.report is not None
        return operation.report
    kind, message = operation.failure
    data = {} if operation.report is None else {"report": operation.report.to_json()}
    raise ApiError(kind, message, **data)
