"""The report: what became of each command, by name."""

import json

import pytest

from tests.support.batches import mixed, vlans
from vdpad.restore.program import by_name
from vdpad.restore.replay import Outcome, Replayed
from vdpad.restore.report import MAX_LINES, Line, Report, RingIndices, joined, report
from vdpad.virtio.raw_command import AnyCommand, RawCommand


def _replayed(
    outcome: Outcome,
    *,
    rejected: tuple[int, ...] = (),
    unanswered: tuple[int, ...] = (),
    next_index: int | None = None,
    wrong_lengths: tuple[tuple[int, int], ...] = (),
) -> Replayed:
    return Replayed(
        outcome=outcome,
        rejected=rejected,
        unanswered=unanswered,
        doorbells=3,
        elapsed_ns=1_234_567,
        next_index=next_index,
        wrong_lengths=wrong_lengths,
    )


def _report(commands: tuple[AnyCommand, ...], replayed: Replayed) -> Report:
    return report("vm-1", commands, replayed, widened=("wide",), prepare_us=42)


def test_a_restore_in_which_all_was_applied() -> None:
    told = _report(mixed(10), _replayed(Outcome.RESTORED, next_index=65535))
    assert told == Report(
        migration="vm-1",
        outcome=Outcome.RESTORED,
        commands=10,
        applied=10,
        rejected=(),
        unanswered=(),
        rejected_total=0,
        unanswered_total=0,
        doorbells=3,
        widened=("wide",),
        prepare_us=42,
        commit_us=1234,
        ring=RingIndices(65535, 65535),
        device_must_reset=False,
    )


def test_a_line_names_a_command_with_its_place_arguments_and_ack() -> None:
    told = _report(mixed(10), _replayed(Outcome.INCOMPLETE, rejected=(0, 1), unanswered=(4, 9)))
    assert told.rejected == (
        Line(0, "MAC_ADDR_SET", "mac=52:54:00:aa:bb:cc", 1),
        Line(1, "MQ_VQ_PAIRS_SET", "pairs=3", 1),
    )
    assert told.unanswered == (
        Line(4, "MAC_TABLE_SET", "unicast=3 multicast=1", None),
        Line(9, "RX_PROMISC", "on=0", None),
    )
    assert told.applied == 6


def test_a_line_names_a_command_that_is_not_known_by_its_bytes() -> None:
    commands: tuple[AnyCommand, ...] = (*vlans(1), RawCommand((9, 3), b"abc"))
    told = _report(commands, _replayed(Outcome.REJECTED, rejected=(1,), next_index=2))
    assert told.rejected == (Line(1, "RAW", "class=9 command=3 size=3 data=616263", 1),)
    assert by_name(commands) == {"VLAN_ADD": 1, "RAW": 1}


@pytest.mark.parametrize("outcome", [Outcome.INCOMPLETE, Outcome.BROKEN])
def test_a_device_that_still_has_buffers_must_be_reset(outcome: Outcome) -> None:
    told = _report(vlans(2), _replayed(outcome, unanswered=(1,)))
    assert (told.ring, told.device_must_reset) == (None, True)


def test_a_ring_at_index_0_is_no_missing_ring() -> None:
    told = _report(vlans(2), _replayed(Outcome.REJECTED, rejected=(1,), next_index=0))
    assert (told.ring, told.device_must_reset) == (RingIndices(0, 0), False)


@pytest.mark.parametrize("kind", ["rejected", "unanswered"])
def test_of_many_lines_the_first_64_are_told_and_all_are_counted(kind: str) -> None:
    places = tuple(range(10, 1010))
    replayed = (
        _replayed(Outcome.REJECTED, rejected=places)
        if kind == "rejected"
        else _replayed(Outcome.INCOMPLETE, unanswered=places)
    )
    told = _report(vlans(2000), replayed)
    assert [line.index for line in getattr(told, kind)] == list(range(10, 74))
    assert getattr(told, f"{kind}_total") == 1000
    assert told.applied == 1000


def test_the_longest_report_fits_a_datagram() -> None:
    places = tuple(range(500))
    told = _report(mixed(4000), _replayed(Outcome.BROKEN, rejected=places, unanswered=places))
    assert len(json.dumps(told.to_json())) < 64 * 1024


def test_used_lengths_that_no_ack_has_are_one_note() -> None:
    lengths = ((0, 3), *((length, 1) for length in range(2, 12)))
    replayed = _replayed(Outcome.RESTORED, next_index=7, wrong_lengths=lengths)
    told = _report(vlans(20), replayed)
    sentence = (
        "13 of 20 commands came back with a used length of 0, 2, 3, 4, 5, 6, 7, 8 and 3 more, and "
        "an ack is 1 byte; what counts is the ack itself"
    )
    assert told.notes == (sentence,)
    assert json.loads(json.dumps(told.to_json()))["notes"] == [sentence]


def test_in_json_a_report_has_the_names_of_the_api() -> None:
    replayed = _replayed(Outcome.REJECTED, rejected=(1,), next_index=7)
    assert json.loads(json.dumps(_report(vlans(2), replayed).to_json())) == {
        "migration": "vm-1",
        "outcome": "rejected",
        "commands": 2,
        "applied": 1,
        "rejected": [{"index": 1, "command": "VLAN_ADD", "arguments": "vid=1", "ack": 1}],
        "unanswered": [],
        "rejected_total": 1,
        "unanswered_total": 0,
        "doorbells": 3,
        "widened": ["wide"],
        "prepare_us": 42,
        "commit_us": 1234,
        "ring": {"next_available": 7, "next_used": 7},
        "device_must_reset": False,
    }


def test_two_are_joined_as_one() -> None:
    commands = vlans(80)
    first, second = (
        report(
            "vm-1",
            commands,
            _replayed(Outcome.REJECTED, rejected=tuple(rejected), next_index=index),
            widened=widened,
            prepare_us=1,
        )
        for rejected, index, widened in ((range(10), 80, ("wide",)), (range(5, 75), 160, ()))
    )
    whole = joined(first, second)
    assert (whole.commands, whole.applied, whole.rejected_total) == (160, 80, 80)
    assert (whole.doorbells, whole.prepare_us, whole.commit_us) == (6, 2, 2468)
    assert (whole.widened, whole.ring) == (("wide",), RingIndices(160, 160))
    assert len(whole.rejected) == MAX_LINES
    assert [each.index for each in whole.rejected[9:12]] == [9, 85, 86]
    assert whole.rejected[10].arguments == commands[5].arguments()
