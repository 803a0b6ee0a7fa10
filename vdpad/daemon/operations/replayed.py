"""The event of a replay's end, from its report."""

from collections import Counter
from collections.abc import Mapping

from vdpad.daemon.events.operations import Broken, Incomplete, Rejected, ReplayEnded, Restored
from vdpad.restore import replay
from vdpad.restore.program import by_name
from vdpad.restore.report import Line, Report
from vdpad.virtio.raw_command import AnyCommand

_KINDS: Mapping[replay.Outcome, type[ReplayEnded]] = {
    replay.Outcome.RESTORED: Restored,
    replay.Outcome.REJECTED: Rejected,
    replay.Outcome.INCOMPLETE: Incomplete,
    replay.Outcome.BROKEN: Broken,
}


def replayed_event(
    named: tuple[str, str, str],
    commands: tuple[AnyCommand, ...],
    planned: Counter[str],
    replayed: replay.Replayed,
    report: Report,
) -> ReplayEnded:
    """What is told of a replay.

    Args:
        named: the migration, the target's kind, the device's name.
        commands: in the order of sending.
        planned: the same, by name.
        replayed: what became of each.
        report: the same, for the caller.
    """
    return _KINDS[report.outcome](
        *named,
        outcome=report.outcome.value,
        commands=report.commands,
        applied=report.applied,
        rejected=report.rejected_total,
        unanswered=report.unanswered_total,
        command=tuple(map(_shown, (*report.rejected, *report.unanswered))),
        doorbells=report.doorbells,
        prepare_us=report.prepare_us,
        commit_us=report.commit_us,
        device_must_reset=report.device_must_reset,
        fault=replayed.fault,
        acks=_acks(commands, planned, replayed),
    )


def _shown(line: Line) -> str:
    return f"{line.command} {line.arguments}".strip()


def _acks(
    commands: tuple[AnyCommand, ...], planned: Counter[str], replayed: replay.Replayed
) -> dict[tuple[str, str], int]:
    counted = {"ok": planned}
    # Else all were acked OK, and the guest waits for no subtraction.
    if replayed.rejected or replayed.unanswered:
        rejected = by_name(tuple(commands[index] for index in replayed.rejected))
        unanswered = by_name(tuple(commands[index] for index in replayed.unanswered))
        counted = {"ok": planned - rejected - unanswered, "err": rejected, "none": unanswered}
    return {(name, ack): n for ack, names in counted.items() for name, n in names.items()}
