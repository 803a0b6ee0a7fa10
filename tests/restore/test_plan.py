"""The plan: which commands in which order, and every reason why not."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.states import (
    FEATURE_SETS,
    KEY_HEX,
    SAMPLE,
    bare_state,
    feature_supersets,
    net_state,
    net_states,
)
from vdpad.restore.capabilities import Capabilities
from vdpad.restore.plan import Incompatible, Plan, plan
from vdpad.state.model import NetState
from vdpad.state.problems import Problem
from vdpad.virtio.commands import (
    CoalRxSet,
    CoalTxSet,
    CoalVqSet,
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
)
from vdpad.virtio.config import HashType, TunnelType
from vdpad.virtio.features import FEATURES, PROVIDED_BY_VMM, TRANSPORT, Feature

FEATURES_OF_SAMPLE = frozenset(map(FEATURES.bit, SAMPLE["features"]))

# A device that takes the sample exactly.
DEVICE = Capabilities(
    features=FEATURES_OF_SAMPLE,
    largest_command=4095,
    max_queue_pairs=4,
    rss_max_key_size=40,
    rss_max_indirection_table_length=4,
    supported_hash_types=frozenset({HashType.IPv4, HashType.TCPv4}),
    supported_tunnel_types=frozenset({TunnelType.VXLAN, TunnelType.GENEVE}),
)


def _device(**changes: Any) -> Capabilities:
    return dataclasses.replace(DEVICE, **changes)


def _without(*features: Feature) -> Capabilities:
    return _device(features=DEVICE.features - set(features))


def _planned(state: NetState, device: Capabilities = DEVICE) -> Plan:
    made = plan(state, device)
    assert isinstance(made, Plan), made
    return made


def _problems(state: NetState, device: Capabilities = DEVICE) -> list[tuple[str, str]]:
    made = plan(state, device)
    assert isinstance(made, Incompatible)
    return [(problem.path, problem.code) for problem in made.problems]


# --- order ---


def test_a_whole_state_is_planned_in_the_order_that_devices_need() -> None:
    assert _planned(net_state(vlans=[5, [1, 2]])).commands == (
        MacAddrSet(bytes.fromhex("525400123456")),
        MqPairsSet(4),
        MqRssConfig(frozenset({0, 1}), 0, (0, 1, 2, 3), 4, bytes.fromhex(KEY_HEX)),
        HashTunnelSet(frozenset({4, 6})),
        GuestOffloadsSet(frozenset({1, 7})),
        CoalTxSet(64, 100),
        CoalRxSet(32, 50),
        CoalVqSet(0, 16, 25),
        VlanAdd(1),
        VlanAdd(2),
        VlanAdd(5),
        MacTableSet((bytes.fromhex("525400000007"),), (bytes.fromhex("01005e000001"),)),
        # Those that open the filter, then those that close it.
        RxNoBcast(False),
        RxNoUni(False),
        RxNoMulti(False),
        RxAllUni(False),
        RxAllMulti(False),
        RxPromisc(False),
    )


def test_a_hash_report_takes_the_place_of_rss() -> None:
    features = [*SAMPLE["features"], "HASH_REPORT"]
    state = net_state(rss=..., features=features, hash_report={"hash_types": ["IPv4"], "key": "6d"})
    device = _device(features=DEVICE.features | {Feature.HASH_REPORT})
    names = [name for name, _ in _planned(state, device).counts()]
    assert names[1:4] == ["MQ_VQ_PAIRS_SET", "MQ_HASH_CONFIG", "HASH_TUNNEL_SET"]
    assert MqHashConfig(frozenset({0}), b"\x6d") in _planned(state, device).commands


@pytest.mark.parametrize(
    ("rx", "commands"),
    [
        ({"promisc": True, "allmulti": False}, (RxPromisc(True), RxAllMulti(False))),
        ({"promisc": False, "allmulti": True}, (RxAllMulti(True), RxPromisc(False))),
        (
            {"nobcast": True, "nouni": True, "nomulti": True, "promisc": True},
            (RxPromisc(True), RxNoBcast(True), RxNoUni(True), RxNoMulti(True)),
        ),
        (
            {"alluni": True, "nomulti": False, "promisc": False, "nobcast": True},
            (RxNoMulti(False), RxAllUni(True), RxNoBcast(True), RxPromisc(False)),
        ),
        ({"nouni": False}, (RxNoUni(False),)),
        ({}, ()),
    ],
)
def test_receive_modes_open_the_filter_before_they_close_it(
    rx: dict[str, bool], commands: tuple[object, ...]
) -> None:
    assert _planned(bare_state(SAMPLE["features"], rx=rx)).commands == commands


def test_a_direction_s_coalescing_comes_before_its_queues_and_these_in_order() -> None:
    values = {"max_packets": 1, "max_usecs": 2}
    coalescing = {"queues": {"10": values, "9": values, "0": values}, "rx": values}
    state = bare_state(SAMPLE["features"], coalescing=coalescing)
    assert _planned(state, _device(max_queue_pairs=8)).commands == (
        CoalRxSet(1, 2),
        CoalVqSet(0, 1, 2),
        CoalVqSet(9, 1, 2),
        CoalVqSet(10, 1, 2),
    )


# --- explicit values ---


def test_a_state_without_parts_sends_nothing() -> None:
    assert _planned(bare_state(SAMPLE["features"])).commands == ()


@pytest.mark.parametrize("part", sorted(NetState.model_fields.keys() - {"version", "features"}))
def test_every_part_of_a_state_is_sent(part: str) -> None:
    features = [*SAMPLE["features"], "HASH_REPORT"]
    parts = {**SAMPLE, "hash_report": {"hash_types": ["IPv4"], "key": KEY_HEX}}
    device = _device(features=DEVICE.features | {Feature.HASH_REPORT})
    assert _planned(bare_state(features, **{part: parts[part]}), device).commands


@pytest.mark.parametrize(
    ("parts", "commands"),
    [
        ({"rx": {"promisc": True}}, (RxPromisc(True),)),  # on after QEMU's reset
        ({"rx": {"promisc": False}}, (RxPromisc(False),)),
        ({"rx": {"allmulti": False, "alluni": False}}, (RxAllUni(False), RxAllMulti(False))),
        ({"queue_pairs": 1}, (MqPairsSet(1),)),
        ({"mac_table": {}}, (MacTableSet((), ()),)),
        ({"guest_offloads": []}, (GuestOffloadsSet(frozenset()),)),
        ({"vlans": []}, ()),
        (
            {"coalescing": {"tx": {"max_packets": 0, "max_usecs": 0}}},
            (CoalTxSet(0, 0),),
        ),
        ({"coalescing": {"queues": {}}}, ()),
        ({"vlans": [0, 4095]}, (VlanAdd(0), VlanAdd(4095))),
    ],
)
def test_a_value_is_sent_even_where_a_device_may_default_to_it(
    parts: dict[str, Any], commands: tuple[object, ...]
) -> None:
    assert _planned(bare_state(SAMPLE["features"], **parts)).commands == commands


def test_rss_without_hash_types_is_sent() -> None:
    state = net_state(rss=SAMPLE["rss"] | {"hash_types": []})
    assert any(
        isinstance(command, MqRssConfig) and command.hash_types == frozenset()
        for command in _planned(state).commands
    )


def test_commands_are_counted_by_runs_of_one_name() -> None:
    state = bare_state(SAMPLE["features"], vlans=[[1, 100]], queue_pairs=2, mac_table={})
    assert _planned(state).counts() == [
        ("MQ_VQ_PAIRS_SET", 1),
        ("VLAN_ADD", 100),
        ("MAC_TABLE_SET", 1),
    ]


# --- features ---


@pytest.mark.parametrize(
    ("feature", "path"),
    [
        (Feature.CTRL_MAC_ADDR, "mac"),
        (Feature.CTRL_VLAN, "vlans"),
        (Feature.CTRL_RX, "mac_table"),
        (Feature.CTRL_RX, "rx.promisc"),
        (Feature.CTRL_RX, "rx.allmulti"),
        (Feature.RSS, "rss"),
        (Feature.CTRL_GUEST_OFFLOADS, "guest_offloads"),
        (Feature.NOTF_COAL, "coalescing.rx"),
        (Feature.NOTF_COAL, "coalescing.tx"),
        (Feature.VQ_NOTF_COAL, "coalescing.queues"),
    ],
)
def test_a_part_without_its_feature_on_the_device_is_told(feature: Feature, path: str) -> None:
    problems = _problems(net_state(), _without(feature))
    assert ("features", "missing-feature") in problems
    assert (path, "missing-feature") in problems


@pytest.mark.parametrize("mode", ["alluni", "nomulti", "nouni", "nobcast"])
def test_a_receive_mode_that_is_on_needs_ctrl_rx_extra_on_the_device(mode: str) -> None:
    state = bare_state(["CTRL_VQ", "CTRL_RX", "CTRL_RX_EXTRA"], rx={mode: True})
    problems = _problems(state, _without(Feature.CTRL_RX_EXTRA))
    assert problems == [("features", "missing-feature"), (f"rx.{mode}", "missing-feature")]


def test_a_receive_mode_that_is_off_is_left_out_where_the_device_has_no_such_mode() -> None:
    rx = {"nobcast": False, "alluni": False, "promisc": False}
    state = bare_state(["CTRL_VQ", "CTRL_RX"], rx=rx)
    assert _planned(state, _without(Feature.CTRL_RX_EXTRA)).commands == (RxPromisc(False),)


def test_a_hash_report_needs_its_feature_on_the_device() -> None:
    state = bare_state(["CTRL_VQ", "HASH_REPORT"], hash_report={"hash_types": [], "key": ""})
    assert _problems(state) == [("features", "missing-feature"), ("hash_report", "missing-feature")]


def test_queue_pairs_need_mq_or_rss_on_the_device() -> None:
    state = bare_state(["CTRL_VQ", "MQ"], queue_pairs=2)
    problems = _problems(state, _without(Feature.MQ, Feature.RSS))
    assert problems == [("features", "missing-feature"), ("queue_pairs", "missing-feature")]


def test_missing_features_are_told_by_name_and_never_by_mask() -> None:
    state = bare_state(["CSUM", "bit_100", "CTRL_VQ", "CTRL_VLAN"], vlans=[1])
    assert plan(state, _without(Feature.CTRL_VLAN)) == Incompatible(
        (
            Problem(
                "features",
                "missing-feature",
                "the guest negotiated CSUM, CTRL_VLAN, bit_100; the device has not",
            ),
            Problem("vlans", "missing-feature", "needs CTRL_VLAN; the device has not"),
        )
    )


@pytest.mark.parametrize("feature", sorted(PROVIDED_BY_VMM))
def test_what_a_vmm_provides_the_device_need_not_have(feature: Feature) -> None:
    state = bare_state(["CTRL_VQ", feature.name])
    assert _planned(state, _device(features=frozenset({Feature.CTRL_VQ}))).commands == ()


@pytest.mark.parametrize("bit", TRANSPORT)
def test_the_ring_and_transport_may_differ_on_the_two_sides(bit: int) -> None:
    state = bare_state([FEATURES.name(bit)])
    assert _planned(state, _device(features=frozenset())).commands == ()


def test_a_feature_that_needs_no_command_must_be_there_all_the_same() -> None:
    assert _problems(bare_state(["MRG_RXBUF"])) == [("features", "missing-feature")]


def test_a_device_may_have_more_than_the_guest_negotiated() -> None:
    more = _device(features=DEVICE.features | {Feature.HASH_REPORT, 100})
    assert _planned(net_state(), more) == _planned(net_state())


def test_mq_pairs_are_left_to_rss_where_there_is_no_mq() -> None:
    features = [name for name in SAMPLE["features"] if name != "MQ"]
    commands = _planned(net_state(features=features), _without(Feature.MQ)).commands
    assert not any(isinstance(command, MqPairsSet) for command in commands)
    assert any(isinstance(command, MqRssConfig) for command in commands)


# --- limits, at them and one past them ---


def test_queue_pairs_fit_the_device_exactly_or_are_refused() -> None:
    state = net_state(rss=..., coalescing=...)
    assert _planned(state, _device(max_queue_pairs=4)).commands
    assert _problems(state, _device(max_queue_pairs=3)) == [("queue_pairs", "out-of-range")]


def test_rss_s_transmit_queues_fit_the_device_exactly_or_are_refused() -> None:
    rss = SAMPLE["rss"] | {"indirection_table": [0]}
    state = bare_state(SAMPLE["features"], rss=rss)
    assert _planned(state, _device(max_queue_pairs=4)).commands
    assert _problems(state, _device(max_queue_pairs=3)) == [("rss.max_tx_queues", "out-of-range")]


def test_rss_s_entries_fit_the_device_exactly_or_are_refused_by_place() -> None:
    rss = SAMPLE["rss"] | {"indirection_table": [0, 6, 7, 7], "max_tx_queues": 1}
    state = bare_state(SAMPLE["features"], rss=rss)
    assert _planned(state, _device(max_queue_pairs=8)).commands
    assert _problems(state, _device(max_queue_pairs=7)) == [
        ("rss.indirection_table.2", "out-of-range")
    ]


def test_rss_s_unclassified_queue_fits_the_device_exactly_or_is_refused() -> None:
    rss = SAMPLE["rss"] | {"indirection_table": [0], "unclassified_queue": 7, "max_tx_queues": 1}
    state = bare_state(SAMPLE["features"], rss=rss)
    assert _planned(state, _device(max_queue_pairs=8)).commands
    assert _problems(state, _device(max_queue_pairs=7)) == [
        ("rss.unclassified_queue", "out-of-range")
    ]


def test_an_indirection_table_fits_the_device_exactly_or_is_refused() -> None:
    assert _planned(net_state(), _device(rss_max_indirection_table_length=4)).commands
    made = plan(net_state(), _device(rss_max_indirection_table_length=3))
    assert made == Incompatible(
        (Problem("rss.indirection_table", "too-long", "4 entries; the device takes 3"),)
    )


HASH_FEATURES = [*SAMPLE["features"], "HASH_REPORT"]
HASH_DEVICE = _device(features=DEVICE.features | {Feature.HASH_REPORT})


def _hashing(part: str) -> NetState:
    report = {"hash_types": ["IPv4", "TCPv4"], "key": KEY_HEX}
    parts = {"rss": SAMPLE["rss"]} if part == "rss" else {"hash_report": report}
    return bare_state(HASH_FEATURES, **parts)


@pytest.mark.parametrize("part", ["rss", "hash_report"])
def test_a_key_fits_the_device_exactly_or_is_refused(part: str) -> None:
    fitting = dataclasses.replace(HASH_DEVICE, rss_max_key_size=40)
    assert _planned(_hashing(part), fitting).commands
    small = dataclasses.replace(HASH_DEVICE, rss_max_key_size=39)
    assert _problems(_hashing(part), small) == [(f"{part}.key", "too-long")]


@pytest.mark.parametrize("part", ["rss", "hash_report"])
def test_a_hash_type_that_the_device_does_not_hash_over_is_named(part: str) -> None:
    device = dataclasses.replace(HASH_DEVICE, supported_hash_types=frozenset({HashType.IPv4}))
    assert plan(_hashing(part), device) == Incompatible(
        (
            Problem(
                f"{part}.hash_types",
                "unsupported",
                "TCPv4; the device does not hash over these",
            ),
        )
    )


def _coalesced(*queues: int, **parts: Any) -> NetState:
    values = {"max_packets": 1, "max_usecs": 1}
    coalescing = {"queues": {str(queue): values for queue in queues}}
    return bare_state(SAMPLE["features"], coalescing=coalescing, **parts)


def test_a_queue_s_coalescing_is_for_a_queue_that_the_device_has() -> None:
    assert _planned(_coalesced(0, 7)).commands
    assert _problems(_coalesced(8, 99999)) == [("coalescing.queues.8", "out-of-range")]


def test_a_queue_s_coalescing_may_be_for_one_that_is_not_in_use() -> None:
    """As Linux sets it: for all of its queues, and then it may use fewer of them."""
    assert _planned(_coalesced(0, 7, queue_pairs=3)).commands
    rss = SAMPLE["rss"] | {"max_tx_queues": 2, "indirection_table": [0]}
    assert _planned(_coalesced(7, rss=rss)).commands


def _wide_table(unicast: int) -> NetState:
    macs = [f"52:54:00:00:{n >> 8:02x}:{n & 255:02x}" for n in range(unicast)]
    return bare_state(["CTRL_VQ", "CTRL_RX"], mac_table={"unicast": macs})


@pytest.mark.parametrize(
    ("state", "path", "size"),
    [
        (_wide_table(100), "mac_table", 2 + 4 + 600 + 4),
        (net_state(), "rss", 2 + 8 + 8 + 3 + 40),
        (_hashing("hash_report"), "hash_report", 2 + 13 + 40),
    ],
    ids=["mac_table", "rss", "hash_report"],
)
def test_a_command_fits_the_queue_s_buffers_exactly_or_is_refused(
    state: NetState, path: str, size: int
) -> None:
    fitting = dataclasses.replace(HASH_DEVICE, largest_command=size)
    assert _planned(state, fitting).commands
    small = dataclasses.replace(HASH_DEVICE, largest_command=size - 1)
    assert _problems(state, small) == [(path, "too-large")]


def test_every_reason_is_told_at_once() -> None:
    features = [*SAMPLE["features"], "MRG_RXBUF"]
    values = {"max_packets": 1, "max_usecs": 1}
    state = net_state(features=features, coalescing={"queues": {"8": values}})
    device = Capabilities(
        features=DEVICE.features - {Feature.CTRL_VLAN},
        largest_command=4095,
        max_queue_pairs=3,
        rss_max_key_size=39,
        rss_max_indirection_table_length=2,
        supported_hash_types=frozenset(),
    )
    assert _problems(state, device) == [
        ("features", "missing-feature"),
        ("vlans", "missing-feature"),
        ("queue_pairs", "out-of-range"),
        ("rss.max_tx_queues", "out-of-range"),
        ("rss.indirection_table.3", "out-of-range"),
        ("rss.indirection_table", "too-long"),
        ("rss.hash_types", "unsupported"),
        ("rss.key", "too-long"),
        ("hash_tunnel.types", "unsupported"),
        ("coalescing.queues.8", "out-of-range"),
    ]


def test_tunnel_types_are_the_device_s_or_refused() -> None:
    device = _device(supported_tunnel_types=frozenset({TunnelType.VXLAN}))
    refused = plan(net_state(), device)
    assert isinstance(refused, Incompatible)
    [problem] = refused.problems
    assert (problem.path, problem.code) == ("hash_tunnel.types", "unsupported")
    assert problem.message.startswith("GENEVE; ")
    assert _planned(net_state(hash_tunnel={"types": ["VXLAN"]}), device)
    without = _device(
        features=DEVICE.features - {Feature.HASH_TUNNEL}, supported_tunnel_types=frozenset()
    )
    assert _problems(net_state(), without) == [
        ("features", "missing-feature"),
        ("hash_tunnel", "missing-feature"),
    ]


def test_a_device_without_hashing_is_not_also_blamed_for_its_limits() -> None:
    problems = _problems(
        net_state(), _device(features=DEVICE.features - {Feature.RSS}, rss_max_key_size=0)
    )
    assert problems == [("features", "missing-feature"), ("rss", "missing-feature")]


# --- widened ---

WITH_EXTRA = ["CTRL_VQ", "CTRL_RX", "CTRL_RX_EXTRA"]
EXTRA, PLAIN = _device(), _without(Feature.CTRL_RX_EXTRA)
UNICAST_ALLUNI = "mac_table.unicast overflowed on the source: alluni is switched on"
UNICAST_PROMISC = "mac_table.unicast overflowed on the source: promisc is switched on"
MULTICAST = "mac_table.multicast overflowed on the source: allmulti is switched on"


@pytest.mark.parametrize(
    ("device", "table", "rx", "modes", "widened"),
    [
        (EXTRA, "unicast", {}, {RxAllUni(True)}, [UNICAST_ALLUNI]),
        (EXTRA, "unicast", {"alluni": False}, {RxAllUni(True)}, [UNICAST_ALLUNI]),
        (EXTRA, "unicast", {"alluni": True}, {RxAllUni(True)}, []),
        (
            EXTRA,
            "unicast",
            {"promisc": False},
            {RxAllUni(True), RxPromisc(False)},
            [UNICAST_ALLUNI],
        ),
        (EXTRA, "unicast", {"promisc": True}, {RxPromisc(True)}, []),
        (PLAIN, "unicast", {}, {RxPromisc(True)}, [UNICAST_PROMISC]),
        (PLAIN, "unicast", {"promisc": False}, {RxPromisc(True)}, [UNICAST_PROMISC]),
        (PLAIN, "unicast", {"promisc": True}, {RxPromisc(True)}, []),
        (EXTRA, "multicast", {}, {RxAllMulti(True)}, [MULTICAST]),
        (PLAIN, "multicast", {"allmulti": False}, {RxAllMulti(True)}, [MULTICAST]),
        (PLAIN, "multicast", {"allmulti": True}, {RxAllMulti(True)}, []),
        (PLAIN, "multicast", {"promisc": True}, {RxPromisc(True)}, []),
    ],
)
def test_a_table_that_overflowed_opens_the_filter_and_the_plan_says_so(
    device: Capabilities,
    table: str,
    rx: dict[str, bool],
    modes: set[object],
    widened: list[str],
) -> None:
    features = WITH_EXTRA if device is EXTRA else WITH_EXTRA[:2]
    state = bare_state(features, mac_table={f"{table}_overflow": True}, rx=rx)
    made = _planned(state, device)
    assert list(made.widened) == widened
    assert set(made.commands) == {MacTableSet((), ()), *modes}


def test_both_tables_may_overflow() -> None:
    table = {"unicast_overflow": True, "multicast_overflow": True}
    made = _planned(bare_state(WITH_EXTRA, mac_table=table))
    assert made.widened == (UNICAST_ALLUNI, MULTICAST)
    assert made.commands == (MacTableSet((), ()), RxAllUni(True), RxAllMulti(True))


def test_of_a_table_that_overflowed_what_is_left_is_sent_as_well() -> None:
    table = SAMPLE["mac_table"] | {"unicast_overflow": True}
    commands = _planned(bare_state(WITH_EXTRA, mac_table=table)).commands
    assert commands[0] == MacTableSet(
        (bytes.fromhex("525400000007"),), (bytes.fromhex("01005e000001"),)
    )


def test_a_state_whose_tables_are_whole_widens_nothing() -> None:
    assert _planned(net_state()).widened == ()


# --- properties ---

CAPABILITIES = st.builds(
    Capabilities,
    features=FEATURE_SETS,
    largest_command=st.integers(18, 5000),
    max_queue_pairs=st.integers(1, 16),
    rss_max_key_size=st.integers(0, 60),
    rss_max_indirection_table_length=st.integers(0, 256),
    supported_hash_types=st.frozensets(st.sampled_from(HashType)),
    supported_tunnel_types=st.frozensets(st.sampled_from(TunnelType)),
)


@given(net_states(), CAPABILITIES, st.data())
def test_no_command_is_planned_whose_feature_the_device_has_not(
    state: NetState, device: Capabilities, data: st.DataObject
) -> None:
    if data.draw(st.booleans()):
        device = dataclasses.replace(device, features=data.draw(feature_supersets(state.features)))
    made = plan(state, device)
    if isinstance(made, Incompatible):
        assert made.problems
        return
    assert {command.FEATURE for command in made.commands} <= device.features
    for command in made.commands:
        assert len(command.encode()) <= device.largest_command


@given(net_states())
def test_a_device_that_has_all_takes_every_state(state: NetState) -> None:
    device = Capabilities(
        features=frozenset(range(128)),
        largest_command=1 << 20,
        max_queue_pairs=0x8000,
        rss_max_key_size=255,
        rss_max_indirection_table_length=65535,
        supported_hash_types=frozenset(range(32)),
        supported_tunnel_types=frozenset(range(32)),
    )
    assert isinstance(plan(state, device), Plan)


@given(net_states())
def test_a_device_that_has_nothing_takes_only_states_that_ask_for_nothing(state: NetState) -> None:
    made = plan(state, Capabilities(features=frozenset(), largest_command=0))
    assert isinstance(made, Incompatible) or made.commands == ()
