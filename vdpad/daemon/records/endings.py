"""What an operation of an earlier daemon came to, by its record.

One that has ended is as it was told then. One that has not was interrupted: its state is "failed"
and its report's outcome "interrupted". Where its commit had begun, the report holds every ack that
is known to have been read, and all others are unanswered; the device may have served some of them.
Where it had not, nothing was sent, and the same may be prepared again.
"""

from dataclasses import dataclass, replace

from vdpad.daemon.records.file import BadRecord, Stage, StoredRecord
from vdpad.restore.replay import Outcome, Replayed
from vdpad.restore.report import Report, report
from vdpad.service.refusal import Kind
from vdpad.virtio.commands import Command, DecodeError, decode_command


@dataclass(frozen=True, slots=True)
class Ending:
    """How an operation ended."""

    stage: Stage
    """RESTORED, FAILED or CANCELLED."""
    report: Report | None = None
    failure: tuple[Kind, str] | None = None
    renewable: bool = False
    """It was the daemon that ended it, before anything was sent."""


def ending(found: StoredRecord) -> Ending:
    """How the operation of a record ended.

    Raises:
        BadRecord: it contradicts itself.
    """
    body = found.body
    match found.stage:
        case Stage.PREPARED:
            untouched = replace(_interrupted(found), device_must_reset=False)
            return Ending(Stage.FAILED, untouched, renewable=True)
        case Stage.COMMITTING:
            told = _interrupted(found)
            return Ending(Stage.FAILED, told, (Kind.INTERNAL, _how_far(told, body.most_in_flight)))
        case Stage.RESTORED:
            return Ending(Stage.RESTORED, _restored(found))
        case Stage.FAILED if body.failure is not None:
            return Ending(Stage.FAILED, body.report, body.failure)
        case Stage.FAILED if body.report is not None:
            return Ending(Stage.FAILED, body.report, renewable=True)
        case Stage.CANCELLED:
            return Ending(Stage.CANCELLED)
        case Stage.STOPPED:
            return Ending(Stage.CANCELLED, renewable=True)
    raise BadRecord("it has failed, and does not say how")


def _interrupted(found: StoredRecord) -> Report:
    known = found.progress.known()
    return _report(
        found,
        Replayed(
            outcome=Outcome.INTERRUPTED,
            rejected=known.rejected,
            unanswered=known.unanswered,
            doorbells=known.doorbells,
            elapsed_ns=0,
            next_index=None,
        ),
    )


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
    return _report(
        found,
        Replayed(
            outcome=Outcome.RESTORED,
            rejected=(),
            unanswered=(),
            doorbells=known.doorbells,
            elapsed_ns=found.commit_us * 1000,
            next_index=found.next_index,
        ),
    )


def _report(found: StoredRecord, replayed: Replayed) -> Report:
    body = found.body
    return report(
        body.migration,
        _Commands(found),
        replayed,
        widened=body.widened,
        prepare_us=body.prepare_us,
    )


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


def _how_far(told: Report, most_in_flight: int) -> str:
    perhaps = min(told.unanswered_total, most_in_flight)
    return (
        f"the daemon ended in the middle of this commit: {told.applied} of {told.commands} "
        f"commands are known to be applied, and up to {perhaps} more may be; reset the device"
    )
