"""Which commands a test sends."""

import pytest

from vdpad.conformance.commands import alike, candidates, clause_of, filler, id_of, undone
from vdpad.virtio.commands import (
    COMMANDS,
    AnnounceAck,
    CoalVqGet,
    MacAddrSet,
    RxPromisc,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.config import HashType, NetConfig
from vdpad.virtio.features import Feature
from vdpad.virtio.raw_command import RawCommand

CONFIG = NetConfig(
    max_virtqueue_pairs=4,
    rss_max_key_size=40,
    rss_max_indirection_table_length=128,
    supported_hash_types=frozenset(HashType),
)
ALL = frozenset(Feature)


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


def test_what_was_added_and_not_deleted_is_undone() -> None:
    assert undone([VlanAdd(1), VlanAdd(2), VlanDel(1), RxPromisc(on=True)]) == [VlanDel(2)]


def test_what_is_alike_is_the_same_but_for_vlans() -> None:
    assert alike(RxPromisc(on=True), 2) == [RxPromisc(on=True)] * 2
    assert alike(VlanAdd(1), 3) == [VlanAdd(1), VlanAdd(2), VlanAdd(3)]
    assert alike(VlanAdd(4094), 2) == [VlanAdd(4094), VlanAdd(4093)]
    assert undone([*alike(VlanAdd(1), 8), *alike(VlanDel(1), 8)]) == []


@pytest.mark.parametrize(
    ("features", "kind"),
    [
        (ALL, MacAddrSet),
        (frozenset({Feature.CTRL_VLAN, Feature.CTRL_RX_EXTRA}), object),
        (frozenset({Feature.CTRL_VLAN}), RawCommand),
        (frozenset(), RawCommand),
    ],
)
def test_what_is_sent_over_and_over_changes_no_table(features: frozenset[int], kind: type) -> None:
    sent = filler(features, CONFIG)
    assert isinstance(sent, kind)
    assert not isinstance(sent, VlanAdd | VlanDel)


def test_every_command_has_a_clause_and_an_id() -> None:
    assert all(clause_of(each).startswith('5.1.6.5 "') for each in COMMANDS.values())
    assert id_of(VlanAdd) == "vlan-add"
