"""Bookkeeping: that the record of each operation says what the operation does.

    Operation ──begin, committing, ended, cancelled, forget──▶ Bookkeeping ──▶ Records (records.py)
        ▲────────────────────recall──────────────────────────────┘

What can wait waits until no commit runs: a restore's record is made small some time after its end.
"""

import asyncio
from collections.abc import Callable, Iterator

from vdpad.daemon.announcing import Announce
from vdpad.daemon.endings import Ending, ending
from vdpad.daemon.events.daemon import RecordLost, RecordsRead
from vdpad.daemon.events.operations import Interrupted
from vdpad.daemon.operation import Operation, State
from vdpad.daemon.record_file import BadRecord, Found, Stage
from vdpad.daemon.records import Records
from vdpad.restore.program import Program

# How long after its end a restore's record is made small, in seconds: not while its reply goes out.
_SETTLES_AFTER = 1.0

# How many of these records stay mapped until then. Stops a run of restores from taking all
# descriptors; to unmap one costs 10 µs, which its caller waits for.
_MOST_OPEN = 16

_STATES = {
    Stage.RESTORED: State.RESTORED,
    Stage.FAILED: State.FAILED,
    Stage.CANCELLED: State.CANCELLED,
}


class Bookkeeping:
    """The records of a daemon's operations."""

    def __init__(
        self, records: Records, announce: Announce, commits_run: Callable[[], bool]
    ) -> None:
        """
        Args:
            records: where they are.
            announce: whom to tell of what earlier daemons left unended.
            commits_run: whether any does now.
        """
        self._records = records
        self._announce = announce
        self._commits_run = commits_run
        self._unsettled: dict[str, Operation] = {}
        """Restores whose records are still large, oldest first."""

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

    def _tell_once(self, operation: Operation, found: Found, end: Ending) -> None:
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
        operation.record = self._records.create(
            program,
            migration=operation.migration,
            digest=operation.digest,
            target=operation.target_json,
            doorbells=operation.doorbells,
            widened=operation.widened,
            prepare_us=operation.prepare_us,
        )
        if operation.state is State.CANCELLED:
            self.cancelled(operation)

    def ended(self, operation: Operation) -> None:
        """Its commit has ended. A store into memory where all went well, as the guest waits."""
        told, record = operation.report, operation.record
        if operation.state is not State.RESTORED:
            self._settle(operation, Stage.FAILED, report=told, failure=operation.failure)
            return
        assert record is not None
        assert told is not None
        assert told.ring is not None
        record.restored(told.commit_us, told.ring.next_available)
        if not self._unsettled:
            self._settle_later()
        if len(self._unsettled) >= _MOST_OPEN:
            record.close()
        self._unsettled[operation.migration] = operation

    def cancelled(self, operation: Operation) -> None:
        """It was cancelled; by the daemon's end, if it is renewable."""
        assert operation.record is not None
        stage = Stage.STOPPED if operation.renewable else Stage.CANCELLED
        operation.record.end(stage)
        self._settle(operation, stage)

    def forget(self, operation: Operation) -> None:
        """Nobody shall know of it any more."""
        self._unsettled.pop(operation.migration, None)
        if operation.record is not None:
            operation.record.close()
        self._records.forget(operation.migration)

    def settle_all(self) -> None:
        """Makes all records of restores small."""
        while self._unsettled:
            self._settle_one()

    def _settle_later(self) -> None:
        asyncio.get_running_loop().call_later(_SETTLES_AFTER, self._settle_in_peace)

    def _settle_in_peace(self) -> None:
        """One a turn of the loop, while no commit runs."""
        if self._unsettled and not self._commits_run():
            self._settle_one()
            asyncio.get_running_loop().call_soon(self._settle_in_peace)
        elif self._unsettled:
            self._settle_later()

    def _settle_one(self) -> None:
        operation = self._unsettled.pop(next(iter(self._unsettled)))
        self._settle(operation, Stage.RESTORED, report=operation.report)

    def _settle(self, operation: Operation, stage: Stage, **fields: object) -> None:
        """Writes a record's last word."""
        record, operation.record = operation.record, None
        assert record is not None
        self._records.settle(record, stage, **fields)


def _recalled(found: Found, end: Ending) -> Operation:
    body = found.body
    return Operation(
        migration=body.migration,
        digest=body.digest,
        destination=None,
        target_json=body.target,
        commands=body.commands,
        doorbells=body.doorbells,
        widened=body.widened,
        prepare_us=body.prepare_us,
        state=_STATES[end.stage],
        report=end.report,
        failure=end.failure,
        renewable=end.renewable,
    )
