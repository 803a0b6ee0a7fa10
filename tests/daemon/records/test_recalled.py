"""What the records of an older vdpad come to, which told no times.

recorded/ holds one of each kind as that vdpad wrote it, of two VLANs.
"""

from pathlib import Path

import pytest

from tests.daemon.records.recording import details
from tests.support.batches import vlans
from vdpad.daemon.records.details import report_of
from vdpad.daemon.records.endings import (
    Cancellation,
    Ending,
    Failure,
    Interruption,
    Shutdown,
    Success,
)
from vdpad.daemon.records.file import decode_record
from vdpad.daemon.records.owners import NOBODY
from vdpad.daemon.records.recalled import ending
from vdpad.restore.replay import Outcome, Replayed
from vdpad.restore.report import Report
from vdpad.service.refusal import Kind

RECORDED = Path(__file__).parent / "recorded"
COMMANDS = vlans(2)


def report(outcome: Outcome, *rejected: int) -> Report:
    replayed = Replayed(outcome, rejected, (), 1, 7000, 2)
    return report_of(details(commands=2), COMMANDS, replayed)


ENDINGS: dict[str, Ending] = {
    "restored": Success(report=report(Outcome.RESTORED)),
    "restored-small": Success(report=report(Outcome.RESTORED)),
    "failed": Failure(
        report=report(Outcome.REJECTED, 1),
        failure=(Kind.REJECTED, "the device refused 1 of 2 commands"),
    ),
    "interrupted": Interruption(report=report(Outcome.INTERRUPTED)),
    "cancelled": Cancellation(),
    "stopped": Shutdown(),
}


@pytest.mark.parametrize(("name", "expected"), ENDINGS.items(), ids=ENDINGS)
def test_what_had_ended(name: str, expected: Ending) -> None:
    found = decode_record((RECORDED / f"{name}.operation").read_bytes())
    assert ending(found) == expected
    assert (found.body.began, found.ended) == (None, None)
    assert (found.body.owners, found.lent) == (NOBODY, None)
    assert (found.body.named, found.body.prepare_us) == (("vm-1", "software", "sim0"), 42)


@pytest.mark.parametrize(
    ("name", "kind"), [("prepared", Interruption), ("committing", Failure)], ids=str
)
def test_what_had_not(name: str, kind: type[Ending]) -> None:
    end = ending(decode_record((RECORDED / f"{name}.operation").read_bytes()))
    assert (type(end), end.ended) == (kind, None)
    assert end.report is not None
    assert (end.report.outcome, end.report.unanswered_total) == (Outcome.INTERRUPTED, 2)
    assert end.report.unanswered[1].arguments == COMMANDS[1].arguments()


def test_every_record_is_looked_at() -> None:
    names = {path.stem for path in RECORDED.iterdir()}
    assert names == {*ENDINGS, "prepared", "committing"}
