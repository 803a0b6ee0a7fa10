"""Bookkeeping: that the record of each operation says what the operation does.

    operations ──begin, ended, write, forget──▶ Bookkeeping ──▶ Records (records/)
        ▲─────────────────recall─────────────────────┘

What can wait gives way to commits (running.py). That it was restored, or cancelled, stands in a
record's mark at once, by a store into memory; the record is made small some time after.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from vdpad.daemon.events.daemon import RecordsRead
from vdpad.daemon.events.operations import Interrupted
from vdpad.daemon.operations.running import RunningCommits
from vdpad.daemon.operations.transitions import State
from vdpad.daemon.records.details import Details
from vdpad.daemon.records.directory import Records
from vdpad.daemon.records.endings import (
    Cancellation,
    Ending,
    Failure,
    Shutdown,
    Stage,
    Success,
)
from vdpad.daemon.records.file import BadRecord, Record, StoredRecord
from vdpad.daemon.records.recalled import ending, interrupted
from vdpad.queues.control_queue import Lent
from vdpad.restore.program import Program
from vdpad.restore.report import Report
from vdpad.service.events.announcing import Announce

# How long after its end a record is made small, in seconds: not while the reply goes out.
_SETTLES_AFTER = 1.0

# How many of these records stay mapped until then. Stops a run of restores from taking all
# descriptors; operations_kept bounds the records themselves.
_MAX_OPEN = 16


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
        self._unsettled: dict[str, tuple[Record, Ending]] = {}
        """The records that are still large and how their operations ended, by migration, oldest
        first."""
        self._mapped: deque[Record] = deque()
        """Those of them that may still be mapped, oldest first."""
        self._settling: asyncio.TimerHandle | None = None
        """The next time that one is made small, where there are any."""

    def recall(self) -> Iterator[tuple[Details, Ending, Lent | None]]:
        """What earlier daemons did, oldest first, and with what was lent for it.

        What they left unended is told, once.
        """
        records = self._records.load()
        if records:
            self._announce(RecordsRead(len(records)))
        for found in records:
            try:
                end, report = ending(found), interrupted(found)
            except BadRecord as error:
                self._records.set_aside(found.body.migration, error)
                continue
            if report is not None:
                end = replace(end, ended=datetime.now(UTC))
                self._tell_once(found, end, report)
            yield found.body, end, found.lent

    def _tell_once(self, found: StoredRecord, end: Ending, report: Report) -> None:
        """Tells of an interruption, and writes down that it was told."""
        stage = State.PREPARED if found.stage is Stage.PREPARED else State.COMMITTING
        self._announce(
            Interrupted(
                *found.body.named,
                stage=stage.value,
                commands=report.commands,
                applied=report.applied,
                device_must_reset=report.device_must_reset,
            )
        )
        self._records.rewrite(found.body, end, found.lent)

    def begin(self, details: Details, program: Program) -> Record:
        """The record of an operation that is prepared."""
        # Here and not at a commit's end, as it takes system calls.
        while len(self._mapped) > _MAX_OPEN:
            self._mapped.popleft().close()
        return self._records.create(details, program)

    def ended(self, record: Record, end: Success | Failure | Cancellation | Shutdown) -> None:
        """Its operation has ended: stores into memory unless it failed, as the guest waits."""
        if isinstance(end, Failure):
            self._records.settle(record, end)
            return
        record.end(end)
        self._settle_later(record, end)

    def write(self, details: Details, end: Ending) -> None:
        """Writes down an operation that ended before it was prepared."""
        self._records.write(details, end)

    def forget(self, migration: str) -> None:
        """Nobody shall know of its operation any more."""
        self._unsettled.pop(migration, None)
        self._records.forget(migration)

    def settle_all(self) -> None:
        """Makes all records small that can be."""
        while self._unsettled:
            self._settle_one()

    def _settle_later(self, record: Record, end: Ending) -> None:
        self._mapped.append(record)
        self._unsettled[record.body.migration] = record, end
        if self._settling is None:
            self._settle_in(_SETTLES_AFTER)

    def _settle_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._settling = loop.call_later(seconds, self._settle_in_peace)

    def _settle_in_peace(self) -> None:
        """One a turn of the loop, while no commit is waited for."""
        self._settling = None
        if not self._unsettled:
            return
        if self._running.is_waited_for:
            self._settle_in(_SETTLES_AFTER)
        else:
            self._settle_one()
            self._settle_in(0)

    def _settle_one(self) -> None:
        record, end = self._unsettled.pop(next(iter(self._unsettled)))
        self._records.settle(record, end)
