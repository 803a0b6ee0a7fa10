"""Bookkeeping: that the record of each operation says what the operation does.

    Operation ──begin, committing, ended, cancelled, forget──▶ Bookkeeping ──▶ Records (records/)
        ▲────────────────────recall──────────────────────────────┘

What can wait waits until no commit runs. That it was restored, or cancelled, stands in a record's
mark at once, by a store into memory; the record is made small some time after.
"""

import asyncio
from collections import deque
from collections.abc import Iterator

from vdpad.daemon.events.daemon import RecordLost, RecordsRead
from vdpad.daemon.events.operations import Interrupted
from vdpad.daemon.operations.operation import Operation, State
from vdpad.daemon.operations.running import RunningCommits
from vdpad.daemon.records.directory import Records
from vdpad.daemon.records.endings import Ending, ending
from vdpad.daemon.records.file import BadRecord, Record, Stage, StoredRecord
from vdpad.restore.program import Program
from vdpad.service.events.announcing import Announce

# How long after its end a record is made small, in seconds: not while the reply goes out.
_SETTLES_AFTER = 1.0

# How many of these records stay mapped until then. Stops a run of restores from taking all
# descriptors; operations_kept bounds the records themselves.
_MOST_OPEN = 16

_STATES = {
    Stage.RESTORED: State.RESTORED,
    Stage.FAILED: State.FAILED,
    Stage.CANCELLED: State.CANCELLED,
}


class Bookkeeping:
    """The records of a daemon's operations."""

    def __init__(self, records: Records, announce: Announce, running: RunningCommits) -> None:
        """
        Args:
            records: where they are.
            announce: whom to tell of what earlier daemons left unended.
            running: which commits run now.
        """
        self._records = records
        self._announce = announce
        self._running = running
        self._unsettled: dict[str, Operation] = {}
        """Those that have ended and whose records are still large, oldest first."""
        self._mapped: deque[Record] = deque()
        """The records of these that may still be mapped, oldest first."""
        self._settling: asyncio.TimerHandle | None = None
        """The next time that one is made small, where there are any."""

    def recall(self) -> Iterator[Operation]:
        """What earlier daemons did, oldest first. What they left unended is told, once."""
        records = self._records.load()
        if records:
            self._announce(RecordsRead(len(records)))
        for found in records:
            try:
                end = ending(found)
            except BadRecord as error:
                self._announce(RecordLost(found.body.migration, str(error)))
                self._records.forget(found.body.migration)
                continue
            operation = _recalled(found, end)
            if found.stage in (Stage.PREPARED, Stage.COMMITTING):
                self._tell_once(operation, found, end)
            yield operation

    def _tell_once(self, operation: Operation, found: StoredRecord, end: Ending) -> None:
        told = operation.report
        assert told is not None
        stage = State.PREPARED if found.stage is Stage.PREPARED else State.COMMITTING
        self._announce(
            Interrupted(
                *operation.named,
                stage=stage.value,
                commands=told.commands,
                applied=told.applied,
                device_must_reset=told.device_must_reset,
            )
        )
        self._records.rewrite(found.body, Stage.FAILED, report=told, failure=end.failure)

    def begin(self, operation: Operation, program: Program | None) -> None:
        """An operation was prepared, or ended before it was."""
        # Here and not at a commit's end, as it takes system calls.
        while len(self._mapped) > _MOST_OPEN:
            self._mapped.popleft().close()
        operation.record = self._records.create(
            program,
            migration=operation.migration,
            digest=operation.digest,
            target=operation.target_json,
            doorbells=operation.doorbells,
            widened=operation.widened,
            prepare_us=operation.prepare_us,
            device=operation.device,
        )
        if operation.state is State.CANCELLED:
            self.cancelled(operation)

    def ended(self, operation: Operation) -> None:
        """Its commit has ended. Stores into memory where all went well, as the guest waits."""
        told, record = operation.report, operation.record
        if operation.state is not State.RESTORED:
            self._settle(operation, Stage.FAILED, report=told, failure=operation.failure)
            return
        assert record is not None
        assert told is not None
        assert told.ring is not None
        record.restored(told.commit_us, told.ring.next_available)
        self._settle_later(operation, record)

    def cancelled(self, operation: Operation) -> None:
        """It was cancelled; by the daemon's end, if it is renewable."""
        record = operation.record
        assert record is not None
        record.end(_stage_of(operation))
        self._settle_later(operation, record)

    def forget(self, migration: str) -> None:
        """Nobody shall know of its operation any more."""
        self._unsettled.pop(migration, None)
        self._records.forget(migration)

    def settle_all(self) -> None:
        """Makes all records small that can be."""
        while self._unsettled:
            self._settle_one()

    def _settle_later(self, operation: Operation, record: Record) -> None:
        self._mapped.append(record)
        self._unsettled[operation.migration] = operation
        if self._settling is None:
            self._settle_in(_SETTLES_AFTER)

    def _settle_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._settling = loop.call_later(seconds, self._settle_in_peace)

    def _settle_in_peace(self) -> None:
        """One a turn of the loop, while no commit runs."""
        self._settling = None
        if not self._unsettled:
            return
        if self._running:
            self._settle_in(_SETTLES_AFTER)
        else:
            self._settle_one()
            self._settle_in(0)

    def _settle_one(self) -> None:
        operation = self._unsettled.pop(next(iter(self._unsettled)))
        self._settle(operation, _stage_of(operation), report=operation.report)

    def _settle(self, operation: Operation, stage: Stage, **fields: object) -> None:
        """Writes a record's last word."""
        record, operation.record = operation.record, None
        assert record is not None
        self._records.settle(record, stage, **fields)


def _stage_of(operation: Operation) -> Stage:
    """The last word on one that was restored or cancelled."""
    if operation.state is State.RESTORED:
        return Stage.RESTORED
    return Stage.STOPPED if operation.renewable else Stage.CANCELLED


def _recalled(found: StoredRecord, end: Ending) -> Operation:
    body = found.body
    return Operation(
        migration=body.migration,
        digest=body.digest,
        destination=None,
        target_json=body.target,
        device=body.device,
        commands=body.commands,
        doorbells=body.doorbells,
        widened=body.widened,
        prepare_us=body.prepare_us,
        state=_STATES[end.stage],
        report=end.report,
        failure=end.failure,
        renewable=end.renewable,
    )
