"""The recorder, rule by rule: what acknowledged commands make of a state."""

import dataclasses
import doctest
import json
from typing import Any

import pytest

import vdpad.state.recorder
from tests.support.states import net_state
from vdpad.state.found import Found
from vdpad.state.model import NetState
from vdpad.state.recorder import NoState, Recorder
from vdpad.virtio.commands import (
    ACK_ERR,
    ACK_NONE,
    ACK_OK,
    AnnounceAck,
    CoalRxSet,
    CoalTxSet,
    CoalVqGet,
    CoalVqSet,
    Command,
    GuestOffloadsSet,
    HashTunnelSet,
    MacAddrSet,
    MacTableSet,
    MqHashConfig,
    MqPairsSet,
    MqRssConfig,
    RxAllMulti,
    RxAllUni,
    RxNoBcast,
    RxNoMulti,
    RxNoUni,
    RxPromisc,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.config import GuestOffload, HashType, TunnelType
from vdpad.virtio.features import Feature

ALL = frozenset(Feature)
MAC = bytes.fromhex("525400123456")
GROUP = bytes.fromhex("01005e000001")
RSS = MqRssConfig(frozenset({HashType.IPv4}), 0, (0, 1, 2, 3), 4, b"\x6d\x5a")
HASH = MqHashConfig(frozenset({HashType.IPv4}), b"\x6d\x5a")
RSS_JSON = {
    "hash_types": ["IPv4"],
    "indirection_table": [0, 1, 2, 3],
    "unclassified_queue": 0,
    "max_tx_queues": 4,
    "key": "6d5a",
}
HASH_JSON = {"hash_types": ["IPv4"], "key": "6d5a"}


def _rss(**changes: Any) -> MqRssConfig:
    return dataclasses.replace(RSS, **changes)


def _fold(recorder: Recorder, *told: Command | str) -> Recorder:
    """Acknowledged commands; as hexadecimal digits where the codec would not make them."""
    for each in told:
        recorder.fold(bytes.fromhex(each) if isinstance(each, str) else each.encode(), ACK_OK)
    return recorder


def _parts(recorder: Recorder) -> dict[str, Any]:
    """The parts of its state as JSON has them."""
    shown: dict[str, Any] = json.loads(recorder.state().model_dump_json(exclude_none=True))
    return {name: part for name, part in shown.items() if name not in ("version", "features")}


def _told(*told: Command | str, features: frozenset[int] = ALL) -> dict[str, Any]:
    return _parts(_fold(Recorder(features), *told))


def _found(*told: Command | str, features: frozenset[int] = ALL) -> Found:
    return _fold(Recorder(features), *told).found()


def _missing(*told: Command | str, features: frozenset[int] = ALL) -> list[str]:
    return [each.part for each in _found(*told, features=features).missing]


# --- how it is used ---


def test_the_example_of_its_docstring_is_true() -> None:
    result = doctest.testmod(vdpad.state.recorder)
    assert (result.failed, result.attempted) == (0, 8)


def test_what_nobody_touched_is_absent() -> None:
    state = Recorder({Feature.CTRL_VQ, 77}).state()
    assert state.model_dump(exclude_none=True) == {"version": 1, "features": ["CTRL_VQ", "bit_77"]}


@pytest.mark.parametrize("ack", [ACK_ERR, ACK_NONE, 2])
@pytest.mark.parametrize("command", [VlanAdd(2), MqPairsSet(2), HASH, _rss(key=b""), "ff00", ""])
def test_only_acknowledged_commands_count(command: Command | str, ack: int) -> None:
    recorder = _fold(Recorder(ALL), VlanAdd(1), RSS)
    before = recorder.found()
    recorder.fold(bytes.fromhex(command) if isinstance(command, str) else command.encode(), ack)
    assert recorder.found() == before


def test_a_reset_forgets_everything() -> None:
    recorder = _fold(Recorder(ALL), VlanAdd(1), RSS, CoalVqSet(0, 1, 1), RxPromisc(True), "ff00")
    recorder.reset({Feature.CTRL_VQ})
    assert recorder.found() == Recorder({Feature.CTRL_VQ}).found()


# --- each command ---


@pytest.mark.parametrize(
    ("mode", "command"),
    [
        ("promisc", RxPromisc),
        ("allmulti", RxAllMulti),
        ("alluni", RxAllUni),
        ("nomulti", RxNoMulti),
        ("nouni", RxNoUni),
        ("nobcast", RxNoBcast),
    ],
)
def test_each_receive_mode_is_kept_by_its_name(mode: str, command: type[RxPromisc]) -> None:
    assert _told(command(True)) == {"rx": {mode: True}}
    assert _told(command(True), command(False)) == {"rx": {mode: False}}


def test_the_last_mac_address_holds() -> None:
    assert _told(MacAddrSet(GROUP), MacAddrSet(MAC)) == {"mac": "52:54:00:12:34:56"}


def test_a_mac_table_replaces_the_one_before_and_nothing_else() -> None:
    told = _told(RxPromisc(False), MacTableSet((MAC,), (GROUP,)), MacTableSet((), (GROUP,)))
    assert told["mac_table"]["unicast"] == []
    assert told["mac_table"]["multicast"] == ["01:00:5e:00:00:01"]
    assert told["rx"] == {"promisc": False}


def test_every_entry_of_a_mac_table_is_kept_and_none_overflows() -> None:
    macs = tuple(number.to_bytes(6, "big") for number in range(1000))
    table = _fold(Recorder(ALL), MacTableSet(macs, ())).state().mac_table
    assert table is not None
    assert table.unicast == macs
    assert not table.unicast_overflow


def test_an_address_in_the_wrong_half_is_put_right_with_a_note() -> None:
    found = _found(MacTableSet((GROUP, MAC, MAC), ()))
    assert found.state is not None
    assert found.state.mac_table is not None
    assert found.state.mac_table.unicast == (MAC,)
    assert found.state.mac_table.multicast == (GROUP,)
    assert found.notes == ("01:00:5e:00:00:01 stood in the MAC table's unicast half",)


def test_vlans_are_a_set() -> None:
    assert _told(VlanAdd(5), VlanAdd(1), VlanAdd(5), VlanDel(1), VlanDel(7)) == {"vlans": [5]}


def test_a_deleted_vlan_leaves_a_table_that_is_there() -> None:
    assert _told(VlanDel(7)) == {"vlans": []}


def test_guest_offloads() -> None:
    assert _told(GuestOffloadsSet(frozenset({GuestOffload.GUEST_CSUM}))) == {
        "guest_offloads": ["GUEST_CSUM"]
    }
    assert _told(GuestOffloadsSet(frozenset())) == {"guest_offloads": []}


def test_guest_hdrlen_is_no_offload_though_linux_6_12_sets_it_as_one() -> None:
    """Its bytes of `ethtool -K eth0 rx-gro-hw off`, on a device that offers GUEST_HDRLEN."""
    as_sent = "05000200000000000008"
    assert _told(as_sent) == {"guest_offloads": ["GUEST_CSUM"]}
    recorder = Recorder(ALL - {Feature.GUEST_HDRLEN})
    recorder.fold(bytes.fromhex(as_sent), 0)
    found = recorder.found()
    assert found.state is not None
    assert found.state.guest_offloads is None
    assert [(each.part, "bit_59" in each.why) for each in found.missing] == [
        ("guest_offloads", True)
    ]


@pytest.mark.parametrize("command", [AnnounceAck(), CoalVqGet(0, 1, 1), "0300ff", "060300000000"])
@pytest.mark.parametrize("statistics", ["08", "0800", "080201"])
def test_what_carries_no_state_leaves_no_trace(command: Command | str, statistics: str) -> None:
    assert _found(command, statistics) == Recorder(ALL).found()


# --- class 4: the last one wins ---


def test_queue_pairs() -> None:
    assert _told(MqPairsSet(3)) == {"queue_pairs": 3}


def test_rss_sets_the_queue_pairs_too() -> None:
    assert _told(MqPairsSet(2), RSS) == {"queue_pairs": 4, "rss": RSS_JSON}


def test_queue_pairs_switch_off_rss_and_hash_report() -> None:
    assert _told(RSS, MqPairsSet(2)) == {"queue_pairs": 2}
    assert _told(HASH, MqPairsSet(2)) == {"queue_pairs": 2}


def test_hash_report_and_rss_take_each_others_place_and_the_pairs_stay() -> None:
    assert _told(RSS, HASH) == {"queue_pairs": 4, "hash_report": HASH_JSON}
    assert _told(HASH, RSS) == {"queue_pairs": 4, "rss": RSS_JSON}


def test_a_hash_report_of_nothing_is_what_the_guest_asked_for() -> None:
    nothing = MqHashConfig(frozenset(), b"")
    assert _told(RSS, nothing)["hash_report"] == {"hash_types": [], "key": ""}


def test_rss_without_types_is_on_where_it_has_a_key() -> None:
    assert _told(_rss(hash_types=frozenset()))["rss"] == RSS_JSON | {"hash_types": []}


def test_rss_without_types_and_key_is_off_with_a_note() -> None:
    off = _rss(hash_types=frozenset(), key=b"")
    assert _told(RSS, off) == {"queue_pairs": 4}
    assert len(_found(off).notes) == 1
    assert _found(off, RSS).notes == ()


def test_rss_over_more_receive_queues_than_it_has_pairs_tells_the_pairs_alone() -> None:
    assert "queue_pairs" not in _told(_rss(max_tx_queues=3))
    assert "queue_pairs" not in _told(_rss(unclassified_queue=4))
    assert _told(_rss(max_tx_queues=3), MqHashConfig(frozenset(), b""))["queue_pairs"] == 3


def test_without_mq_the_pairs_of_rss_that_is_off_are_missing() -> None:
    features = ALL - {Feature.MQ}
    assert _told(RSS, features=features)["queue_pairs"] == 4
    assert _told(RSS, HASH, features=features) == {"hash_report": HASH_JSON}
    assert _missing(RSS, HASH, features=features) == ["queue_pairs"]
    one = _rss(max_tx_queues=1, indirection_table=(0,))
    assert _told(one, HASH, features=features)["queue_pairs"] == 1
    assert _missing(one, HASH, features=features) == []


# --- coalescing ---


def test_a_direction_overwrites_its_own_queues_only() -> None:
    queues = [CoalVqSet(index, index, 9) for index in (0, 1, 2, 3)]
    assert _told(*queues, CoalRxSet(7, 8)) == {
        "coalescing": {
            "rx": {"max_packets": 7, "max_usecs": 8},
            "queues": {
                "1": {"max_packets": 1, "max_usecs": 9},
                "3": {"max_packets": 3, "max_usecs": 9},
            },
        }
    }
    assert list(_told(*queues, CoalTxSet(7, 8))["coalescing"]["queues"]) == ["0", "2"]
    assert list(_told(CoalRxSet(7, 8), *queues)["coalescing"]["queues"]) == ["0", "1", "2", "3"]


def test_tunnel_types_stand_beside_what_is_hashed() -> None:
    on, off = HashTunnelSet(frozenset({TunnelType.VXLAN})), HashTunnelSet(frozenset())
    assert _told(on)["hash_tunnel"] == {"types": ["VXLAN"]}
    assert _told(on, off)["hash_tunnel"] == {"types": []}
    assert _told(on, MqPairsSet(2))["hash_tunnel"] == {"types": ["VXLAN"]}


# --- what no state can say ---


@pytest.mark.parametrize(
    ("readable", "part"),
    [("", "class"), ("09", "class 9"), ("0901ff", "class 9"), ("02", "class 2")],
)
def test_an_unknown_command_is_missing_once(readable: str, part: str) -> None:
    assert _missing(readable, readable) == [part]


def test_however_many_unknown_commands_come_few_are_missing() -> None:
    codes = [bytes([number >> 8, number & 255]) for number in range(1 << 16)]
    assert len(_missing(*(code.hex() for code in codes))) < 300


@pytest.mark.parametrize(
    ("good", "bad", "parts"),
    [
        (RxPromisc(True), "000002", ["rx.promisc"]),
        (MacTableSet((MAC,), ()), "010001000000", ["mac_table"]),
        (MacAddrSet(MAC), "010152", ["mac"]),
        (MqPairsSet(2), "040001", ["queue_pairs"]),
        (RSS, "040101", ["queue_pairs", "rss"]),
        (HASH, "040201", ["hash_report"]),
        (CoalRxSet(1, 1), "060101", ["coalescing.rx"]),
        (CoalTxSet(1, 1), "060001", ["coalescing.tx"]),
        (GuestOffloadsSet(frozenset()), "050001", ["guest_offloads"]),
    ],
)
def test_a_part_that_cannot_be_understood_is_missing_until_it_is_told_again(
    good: Command, bad: str, parts: list[str]
) -> None:
    assert _told(good, bad) == {}
    assert _missing(good, bad) == parts
    assert (_missing(bad, good), _told(bad, good)) == ([], _told(good))


def test_class_4_that_cannot_be_understood_still_switches_off() -> None:
    assert _told(RSS, "040201") == {"queue_pairs": 4}
    assert _missing("040101", HASH) == ["queue_pairs"]
    assert _missing("040201", "040101", MqPairsSet(2)) == []


def test_a_table_keeps_its_entries_where_one_cannot_be_understood() -> None:
    assert _told(VlanAdd(1), "0200ff", VlanAdd(2)) == {"vlans": [1, 2]}
    assert _missing(VlanAdd(1), "0200ff", VlanAdd(2)) == ["vlans"]
    assert list(_told(CoalVqSet(0, 1, 1), "0602")["coalescing"]["queues"]) == ["0"]
    assert _missing(CoalVqSet(0, 1, 1), "0602") == ["coalescing.queues"]


def test_a_direction_that_cannot_be_understood_overwrites_its_queues_too() -> None:
    assert list(_told(CoalVqSet(0, 1, 1), CoalVqSet(1, 1, 1), "0601")["coalescing"]) == ["queues"]
    assert list(_told(CoalVqSet(0, 1, 1), CoalVqSet(1, 1, 1), "0601")["coalescing"]["queues"]) == [
        "1"
    ]


def test_a_command_too_long_to_keep_is_missing() -> None:
    macs = (MAC,) * (1 << 16)
    assert _missing(MacTableSet(macs, ())) == ["mac_table"]
    assert _told(MacTableSet((), (GROUP,)), MacTableSet(macs, ())) == {}


def test_the_largest_rss_command_is_not_too_long() -> None:
    largest = _rss(indirection_table=tuple(range(4)) * (1 << 14), key=bytes(255))
    assert len(_told(largest)["rss"]["indirection_table"]) == 1 << 16


def test_vlan_ids_past_4095_are_missing_and_the_others_there() -> None:
    told = [VlanAdd(4095), VlanAdd(4096), VlanAdd(65535)]
    assert (_told(*told), _missing(*told)) == ({"vlans": [4095]}, ["vlans"])
    assert _missing(*told, VlanDel(65535), VlanDel(4096)) == []


@pytest.mark.parametrize(
    ("command", "feature", "parts"),
    [
        (MacAddrSet(MAC), Feature.CTRL_MAC_ADDR, ["mac"]),
        (RxPromisc(True), Feature.CTRL_RX, ["rx.promisc"]),
        (RxNoUni(True), Feature.CTRL_RX_EXTRA, ["rx.nouni"]),
        (MacTableSet((), ()), Feature.CTRL_RX, ["mac_table"]),
        (VlanAdd(1), Feature.CTRL_VLAN, ["vlans"]),
        (MqPairsSet(2), Feature.MQ, ["queue_pairs"]),
        (RSS, Feature.RSS, ["queue_pairs", "rss"]),
        (HASH, Feature.HASH_REPORT, ["hash_report"]),
        (GuestOffloadsSet(frozenset()), Feature.CTRL_GUEST_OFFLOADS, ["guest_offloads"]),
        (GuestOffloadsSet(frozenset({10})), Feature.GUEST_UFO, ["guest_offloads"]),
        (CoalTxSet(1, 1), Feature.NOTF_COAL, ["coalescing.tx"]),
        (CoalVqSet(0, 1, 1), Feature.VQ_NOTF_COAL, ["coalescing.queues"]),
    ],
)
def test_without_its_feature_a_part_is_missing_and_the_others_there(
    command: Command, feature: Feature, parts: list[str]
) -> None:
    other = VlanAdd(7) if feature is not Feature.CTRL_VLAN else MacAddrSet(MAC)
    found = _found(other, command, features=ALL - {feature})
    assert [each.part for each in found.missing] == parts
    assert all(feature.name in each.why for each in found.missing)
    assert _told(other, command, features=ALL - {feature}) == _told(other)


# --- nonsense that a device acknowledged ---


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (MacAddrSet(bytes(6)), "mac"),
        (MqPairsSet(0), "queue_pairs"),
        (_rss(key=b""), "rss.key"),
        (_rss(indirection_table=(0, 0, 0)), "rss.indirection_table"),
        (MqHashConfig(frozenset({0}), b""), "hash_report.key"),
    ],
)
def test_nonsense_is_a_problem_and_no_state(command: Command, path: str) -> None:
    recorder = _fold(Recorder(ALL), VlanAdd(1), command)
    found = recorder.found()
    assert found.state is None
    assert [problem.path for problem in found.problems] == [path]
    with pytest.raises(NoState, match=f"makes no state: {path}: ") as caught:
        recorder.state()
    assert caught.value.problems == found.problems


def test_reserved_words_are_passed_over() -> None:
    """As Linux 6.12 without RSS sends them."""
    recorder = Recorder(ALL - {Feature.RSS})
    recorder.fold(bytes.fromhex("0402 01000000 0000000000000100 02 6d5a"), ACK_OK)
    recorder.fold(bytes.fromhex("0602 0000 0100 10000000 19000000"), ACK_OK)
    assert _parts(recorder) == {
        "hash_report": HASH_JSON,
        "coalescing": {"queues": {"0": {"max_packets": 16, "max_usecs": 25}}},
    }
    assert recorder.found().missing == ()


def test_a_byte_behind_a_key_is_passed_over() -> None:
    """As Linux 6.12.117 sends it."""
    assert _told(RSS.encode().hex() + "00")["rss"] == RSS_JSON
    assert _told(HASH.encode().hex() + "00")["hash_report"] == HASH_JSON
    assert _missing(RSS.encode().hex() + "00", HASH.encode().hex() + "00") == []


# --- feature sets that the specification does not allow ---


def test_features_without_what_they_require_are_a_state_with_a_note() -> None:
    features = frozenset({Feature.CTRL_VQ, Feature.CTRL_GUEST_OFFLOADS, Feature.GUEST_TSO4})
    found = _found(GuestOffloadsSet(frozenset({7})), features=features)
    assert found.state is not None
    assert found.state.guest_offloads == frozenset({7})
    (note,) = found.notes
    assert note.startswith("the guest negotiated GUEST_TSO4 without GUEST_CSUM, ")


def test_without_a_control_queue_there_is_a_state_of_nothing() -> None:
    features = frozenset({Feature.CTRL_GUEST_OFFLOADS, Feature.MQ})
    found = Recorder(features).found()
    assert found.state == NetState(version=1, features=features)
    assert found.missing == ()


@pytest.mark.parametrize(
    ("command", "parts"),
    [(MacAddrSet(MAC), ["mac"]), (RSS, ["queue_pairs", "rss"]), (VlanAdd(1), ["vlans"])],
)
def test_a_command_over_a_control_queue_that_is_not_there_is_missing(
    command: Command, parts: list[str]
) -> None:
    found = _found(command, features=ALL - {Feature.CTRL_VQ})
    assert found.state == NetState(version=1, features=ALL - {Feature.CTRL_VQ})
    assert [each.part for each in found.missing] == parts
    assert all("CTRL_VQ is not negotiated" in each.why for each in found.missing)


# --- from a state on ---


def test_a_recorder_goes_on_from_a_restored_state() -> None:
    state = net_state()
    assert Recorder.of(state).state() == state
    parts = _parts(Recorder.of(state))
    told = [VlanDel(1), RxPromisc(True), MqPairsSet(2), CoalRxSet(1, 1)]
    changed = parts | {"vlans": [5, [100, 200]], "queue_pairs": 2}
    del changed["rss"], changed["coalescing"]["queues"]
    changed["rx"]["promisc"] = True
    changed["coalescing"]["rx"] = {"max_packets": 1, "max_usecs": 1}
    assert _parts(_fold(Recorder.of(state), *told)) == changed


def test_restored_queues_belong_to_their_directions() -> None:
    values = {"max_packets": 1, "max_usecs": 1}
    state = net_state(coalescing={"queues": {"0": values, "1": values}})
    told = _parts(_fold(Recorder.of(state), CoalTxSet(1, 1)))
    assert told["coalescing"] == {"tx": values, "queues": {"0": values}}


def test_a_restored_overflow_lasts_until_the_table_is_set_anew() -> None:
    state = net_state(mac_table={"unicast_overflow": True})
    assert _parts(Recorder.of(state))["mac_table"]["unicast_overflow"] is True
    anew = _fold(Recorder.of(state), MacTableSet((), ()))
    assert _parts(anew)["mac_table"]["unicast_overflow"] is False


def test_rss_of_a_restored_state_tells_the_pairs_that_outlast_it() -> None:
    recorder = Recorder.of(net_state(queue_pairs=..., features=[each.name for each in ALL]))
    assert _parts(_fold(recorder, HASH))["queue_pairs"] == 4
