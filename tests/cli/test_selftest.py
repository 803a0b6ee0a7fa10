"""Which commands a selftest sends, and what it makes of the answers; on devices, see tests/vm."""

from pathlib import Path

import pytest

from vdpad.cli import show
from vdpad.cli.selftest import (
    CommandOutcome,
    SelfTest,
    _acks,
    _carried_over,
    _findings,
    _length_notes,
    candidates,
)
from vdpad.restore.replay import Outcome, Replayed
from vdpad.virtio.commands import COMMANDS, AnnounceAck, CoalVqGet, MacAddrSet, VlanAdd
from vdpad.virtio.config import HashType, NetConfig
from vdpad.virtio.features import Feature

CONFIG = NetConfig(
    max_virtqueue_pairs=4,
    rss_max_key_size=40,
    rss_max_indirection_table_length=128,
    supported_hash_types=frozenset(HashType),
)
ALL = frozenset(Feature)
SENT = VlanAdd(1)


def test_every_command_that_carries_state_is_tried() -> None:
    tried = {type(each) for each in candidates(ALL, CONFIG)}
    assert tried == set(COMMANDS.values()) - {AnnounceAck, CoalVqGet}


@pytest.mark.parametrize("feature", sorted({each.FEATURE for each in COMMANDS.values()}))
def test_none_that_the_features_do_not_allow(feature: Feature) -> None:
    without = candidates(ALL - {feature}, CONFIG)
    assert all(each.FEATURE is not feature for each in without)


def test_a_device_without_an_address_gets_a_local_one() -> None:
    (command,) = candidates(frozenset({Feature.CTRL_MAC_ADDR}), NetConfig())
    assert isinstance(command, MacAddrSet)
    assert command.mac[0] & 0b11 == 0b10


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
    found = list(_findings([CommandOutcome(SENT, alone, 1.0, in_batch)]))
    assert found == ([] if said is None else found)
    assert len(found) == (said is not None)
    assert all(said is not None and said in each for each in found)


@pytest.mark.parametrize(
    ("alone", "behind", "findings"), [(1, 1, 0), (0, 0, 1), (1, 0, 1), (None, 1, 1), (1, None, 1)]
)
def test_a_command_that_does_not_exist(
    alone: int | None, behind: int | None, findings: int
) -> None:
    assert len(list(_carried_over([SENT], alone, behind))) == findings


def test_lengths_that_no_ack_has_are_a_note_and_no_finding() -> None:
    sent = [
        Replayed(Outcome.RESTORED, (), (), 1, 1, 1, wrong_lengths=lengths)
        for lengths in (((2, 1),), (), ((0, 1), (2, 3)))
    ]
    (note,) = _length_notes(sent, 8)
    assert note.startswith("5 of 8 commands came back with a used length of 0, 2, ")
    assert _length_notes(sent[1:2], 1) == ()
    told = SelfTest(
        node=Path("/dev/vhost-vdpa-0"),
        features=ALL,
        ring_size=64,
        answers=(CommandOutcome(SENT, 0, 1.0, 0),),
        alone_us=1.0,
        batch_us=1.0,
        batch_doorbells=1,
        findings=(),
        notes=(note,),
    ).to_json()
    text = show.selftest(told)
    assert text.endswith(f"Nothing was found that a device should not do.\n\nnote: {note}")


def test_acks() -> None:
    sent = Replayed(Outcome.INCOMPLETE, (1,), (2,), 1, 1, None)
    assert _acks(sent, 4) == [0, 1, None, 0]
