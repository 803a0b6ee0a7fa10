"""What is made of a device's answers."""

import pytest

from vdpad.conformance.answers import (
    CommandOutcome,
    acks_of,
    not_taken,
    notes_on_lengths,
    surveyed,
    unlike,
)
from vdpad.restore.replay import Outcome, Replayed
from vdpad.virtio.commands import VlanAdd

SENT = VlanAdd(1)


@pytest.mark.parametrize(
    ("alone", "in_batch", "said"),
    [
        (0, 0, None),
        (1, 1, "refused, though the device offers CTRL_VLAN"),
        (0, 1, "acknowledged alone, refused in the batch"),
        (1, 0, "refused alone, acknowledged in the batch"),
        (None, 0, "not answered"),
        (0, None, "not answered"),
    ],
)
def test_findings(alone: int | None, in_batch: int | None, said: str | None) -> None:
    answer = CommandOutcome(SENT, alone, 1.0, in_batch)
    found = [each for each in (not_taken(answer, 5.0), unlike(answer)) if each is not None]
    assert len(found) == (said is not None)
    assert all(said is not None and said in each for each in found)


def test_lengths_that_no_ack_has_are_noted() -> None:
    sent = [
        Replayed(Outcome.RESTORED, (), (), 1, 1, 1, wrong_lengths=lengths)
        for lengths in (((2, 1),), (), ((0, 1), (2, 3)))
    ]
    (note,) = notes_on_lengths(sent, 8)
    assert note.startswith("5 of 8 commands came back with a used length of 0, 2, ")
    assert notes_on_lengths(sent[1:2], 1) == ()


def test_acks() -> None:
    sent = Replayed(Outcome.INCOMPLETE, (1,), (2,), 1, 1, None)
    assert acks_of(sent, 4) == [0, 1, None, 0]


def test_a_survey_tells_each_way_to_break_the_ring_once() -> None:
    broken = Replayed(Outcome.BROKEN, (), (0,), 1, 2000, None, fault="an id twice")
    found = surveyed([SENT, SENT], [broken, broken], Replayed(Outcome.RESTORED, (), (), 1, 5000, 2))
    assert found.faults == ("an id twice",)
    assert [(each.alone, each.alone_us, each.in_batch) for each in found.answers] == [
        (None, 2.0, 0),
        (None, 2.0, 0),
    ]
    assert (found.batch_us, found.batch_doorbells) == (5.0, 1)
