"""What an operation of an earlier daemon came to, by its record.

One that has ended is as it was told then. One that has not was interrupted: its state is "failed"
and its report's outcome "interrupted". Where its commit had begun, the report holds every ack that
is known to have been read, and all others are unanswered; the device may have served some of them.
Where it had not, nothing was sent, and the same may be prepared again.
"""

from dataclasses import replace

from vdpad.daemon.records.details import report_of
from vdpad.daemon.records.endings import (
    Cancellation,
    Ending,
    Failure,
    Interruption,
    Shutdown,
    Stage,
    Success,
)
from vdpad.daemon.records.file import BadRecord, StoredRecord
from vdpad.restore.replay import Outcome, Replayed
from vdpad.restore.report import Report
from vdpad.service.refusal import Kind
from vdpad.virtio.commands import Command, DecodeError, decode_command


def ending(found: StoredRecord) -> Ending:
    """How the operation of a record ended. When one was interrupted, nobody knows.

    Raises:
        BadRecord: it contradicts itself.
    """
    body, ended = found.body, found.ended
    match found.stage:
        case Stage.PREPARED:
            return Interruption(report=_interrupted(found))
        case Stage.COMMITTING:
            told = _interrupted(found)
            return Failure(report=told, failure=(Kind.INTERNAL, _how_far(told, found)))
        case Stage.RESTORED:
            return Success(report=_restored(found), ended=ended)
        case Stage.FAILED if body.failure is not None:
            return Failure(report=body.report, failure=body.failure, ended=ended)
        case Stage.FAILED if body.report is not None:
            return Interruption(report=body.report, ended=ended)
        case Stage.CANCELLED:
            return Cancellation(ended=ended)
        case Stage.STOPPED:
            return Shutdown(ended=ended)
    raise BadRecord("it has failed, and does not say how")


def interrupted(found: StoredRecord) -> Report | None:
    """How far an operation had come that did not end; None of one that did.

    Raises:
        BadRecord: it contradicts itself.
    """
    return _interrupted(found) if found.stage in (Stage.PREPARED, Stage.COMMITTING) else None


def _interrupted(found: StoredRecord) -> Report:
    known = found.progress.known()
    replayed = Replayed(
        outcome=Outcome.INTERRUPTED,
        rejected=known.rejected,
        unanswered=known.unanswered,
        doorbells=known.doorbells,
        elapsed_ns=0,
        next_index=None,
    )
    told = report_of(found.body, _Commands(found), replayed)
    # A device that was sent nothing is as it was.
    return replace(told, device_must_reset=found.stage is Stage.COMMITTING)


def _restored(found: StoredRecord) -> Report:
    told = found.body.report or _restored_by_its_acks(found)
    if told is None or told.outcome is not Outcome.RESTORED:
        raise BadRecord("it says that all was restored, and nothing else in it does")
    return told


def _restored_by_its_acks(found: StoredRecord) -> Report | None:
    known = found.progress.known()
    all_there = len(found.progress.acks) == found.body.commands
    if not all_there or known.rejected or known.unanswered:
        return None
    replayed = Replayed(
        outcome=Outcome.RESTORED,
        rejected=(),
        unanswered=(),
        doorbells=known.doorbells,
        elapsed_ns=found.commit_us * 1000,
        next_index=found.next_index,
    )
    return report_of(found.body, _Commands(found), replayed)


class _Commands:
    """The commands of a record, of which a report names a few."""

    def __init__(self, found: StoredRecord) -> None:
        self._found = found

    def __len__(self) -> int:
        return self._found.body.commands

    def __getitem__(self, index: int) -> Command:
        at = 0
        for count, size in self._found.body.lengths:
            if index < count:
                at += index * size
                break
            index -= count
            at += count * size
        try:
            return decode_command(self._found.commands[at : at + size])
        except DecodeError as error:
            raise BadRecord(f"its commands: {error}") from error


def _how_far(told: Report, found: StoredRecord) -> str:
    perhaps = min(told.unanswered_total, found.body.most_in_flight)
    return (
        f"the daemon ended in the middle of this commit: {told.applied} of {told.commands} "
        f"commands are known to be applied, and up to {perhaps} more may be; reset the device"
    )
