"""Device parts and states, both ways; every kind of part is written by hand from the specification.

States that device parts can carry come back as they were; of others, what is lost is named.
"""

import re
from typing import Any, NamedTuple

import pytest
from hypothesis import given

from tests.state.formats.part_wires import DRV_FEATURES, FEATURES, NO_FEATURES, SAMPLE, cvq_part
from tests.support.states import bare_state, net_state, net_states
from vdpad.restore.capabilities import Capabilities
from vdpad.restore.plan import Plan, plan
from vdpad.state.formats.device_parts import decode, encode
from vdpad.state.found import FormatError, Found, Missing
from vdpad.state.model import HashReport, MacTable, NetState, Rss, RxModes
from vdpad.virtio.features import Feature

MAC = bytes.fromhex("525400123456")
UNICAST = bytes.fromhex("525400000007")
MULTICAST = (bytes.fromhex("01005e000001"), bytes.fromhex("333300000001"))
KEY = bytes.fromhex("6d5a56")


class Vector(NamedTuple):
    """A part of a state, and its device part: type, flags, reserved; selector; length; value."""

    part: dict[str, Any]
    wire: str


VECTORS = {
    "RX_PROMISC": Vector(
        {"rx": RxModes(promisc=True)}, "0002 00 00  0000 000000000000  01000000  01"
    ),
    "RX_ALLMULTI": Vector(
        {"rx": RxModes(allmulti=False)}, "0002 00 00  0001 000000000000  01000000  00"
    ),
    "RX_ALLUNI": Vector(
        {"rx": RxModes(alluni=True)}, "0002 00 00  0002 000000000000  01000000  01"
    ),
    "RX_NOMULTI": Vector(
        {"rx": RxModes(nomulti=False)}, "0002 00 00  0003 000000000000  01000000  00"
    ),
    "RX_NOUNI": Vector({"rx": RxModes(nouni=True)}, "0002 00 00  0004 000000000000  01000000  01"),
    "RX_NOBCAST": Vector(
        {"rx": RxModes(nobcast=True)}, "0002 00 00  0005 000000000000  01000000  01"
    ),
    "MAC_TABLE_SET": Vector(
        {"mac_table": MacTable(unicast=(UNICAST,), multicast=MULTICAST)},
        "0002 00 00  0100 000000000000  1a000000"
        "01000000 525400000007  02000000 01005e000001 333300000001",
    ),
    "MAC_TABLE_SET, empty": Vector(
        {"mac_table": MacTable()},
        "0002 00 00  0100 000000000000  08000000  00000000 00000000",
    ),
    "MAC_ADDR_SET": Vector({"mac": MAC}, "0002 00 00  0101 000000000000  06000000  525400123456"),
    "VLAN_ADD": Vector(
        {"vlans": (1, 5, 0xABC)}, "0002 00 00  0200 000000000000  06000000  0100 0500 bc0a"
    ),
    "VLAN_ADD, empty": Vector({"vlans": ()}, "0002 00 00  0200 000000000000  00000000"),
    "MQ_VQ_PAIRS_SET": Vector({"queue_pairs": 3}, "0002 00 00  0400 000000000000  02000000  0300"),
    "MQ_RSS_CONFIG": Vector(
        {
            "rss": Rss(
                hash_types=frozenset({0, 1}),
                indirection_table=(0, 1, 2, 0),
                unclassified_queue=1,
                max_tx_queues=3,
                key=KEY,
            )
        },
        "0002 00 00  0401 000000000000  16000000"
        "03000000 0300 0100  0000 0100 0200 0000  0300 03 6d5a56",
    ),
    "MQ_HASH_CONFIG": Vector(
        {"hash_report": HashReport(hash_types=frozenset({0, 8}), key=KEY)},
        "0002 00 00  0402 000000000000  10000000  01010000 0000000000000000 03 6d5a56",
    ),
}

one_vector = pytest.mark.parametrize("vector", VECTORS.values(), ids=list(VECTORS))

UNTOLD = [
    "hash_tunnel",
    "guest_offloads",
    "coalescing.rx",
    "coalescing.tx",
    "coalescing.queues",
]


def paths(missing: tuple[Missing, ...]) -> list[str]:
    return [each.part for each in missing]


def found_in(*wires: str) -> Found:
    return decode(bytes.fromhex("".join(wires)))


def state_in(*wires: str) -> NetState:
    found = found_in(*wires)
    assert found.problems == ()
    assert found.state is not None
    return found.state


def problems(found: Found) -> list[tuple[str, str]]:
    assert found.state is None
    return [(problem.path, problem.code) for problem in found.problems]


# --- by hand ---


@one_vector
def test_a_setting_has_the_bytes_of_the_specification(vector: Vector) -> None:
    state = NetState(version=1, features=FEATURES, **vector.part)
    encoded = encode(state)
    assert encoded.data == bytes.fromhex(DRV_FEATURES + vector.wire)
    assert encoded.missing == ()


@one_vector
def test_the_bytes_of_the_specification_are_the_setting(vector: Vector) -> None:
    found = found_in(DRV_FEATURES, vector.wire)
    assert found == Found("", NetState(version=1, features=FEATURES, **vector.part))


@pytest.mark.parametrize(
    ("features", "wire"),
    [
        (set(), NO_FEATURES),
        ({0, 63}, "0101 0000 0000000000000000 08000000 0100000000000080"),
        ({64}, "0101 0000 0000000000000000 10000000 0000000000000000 0100000000000000"),
        ({5, 127}, "0101 0000 0000000000000000 10000000 2000000000000000 0000000000000080"),
    ],
)
def test_features_are_words_of_64_bits(features: set[int], wire: str) -> None:
    state = NetState(version=1, features=frozenset(features))
    assert encode(state).data == bytes.fromhex(wire)
    assert state_in(wire) == state


def test_words_of_features_that_are_zero_say_nothing() -> None:
    many = "0101 0000 0000000000000000 20000000 0000de0000000012" + "00" * 24
    assert state_in(many).features == FEATURES


def test_the_state_of_the_api_s_page_has_these_bytes() -> None:
    encoded = encode(net_state())
    assert encoded.data == SAMPLE
    assert paths(encoded.missing) == UNTOLD


def test_these_bytes_are_the_state_of_the_api_s_page() -> None:
    found = decode(SAMPLE)
    assert found.state == net_state(hash_tunnel=..., guest_offloads=..., coalescing=...)
    assert paths(found.missing) == UNTOLD
    assert (found.device, found.notes, found.about) == ("", (), ())


# --- what is lost, and named ---


@pytest.mark.parametrize(
    ("features", "parts", "named"),
    [
        (
            ["NOTF_COAL"],
            {"coalescing": {"rx": {"max_packets": 1, "max_usecs": 2}}},
            "coalescing.rx",
        ),
        (
            ["NOTF_COAL"],
            {"coalescing": {"tx": {"max_packets": 0, "max_usecs": 0}}},
            "coalescing.tx",
        ),
        (
            ["VQ_NOTF_COAL"],
            {"coalescing": {"queues": {"0": {"max_packets": 1, "max_usecs": 2}}}},
            "coalescing.queues",
        ),
        (["CTRL_GUEST_OFFLOADS"], {"guest_offloads": []}, "guest_offloads"),
        (["HASH_TUNNEL"], {"hash_tunnel": {"types": []}}, "hash_tunnel"),
        (["CTRL_RX"], {"rx": {"alluni": False}}, "rx.alluni"),
        ([], {"queue_pairs": 1}, "queue_pairs"),
    ],
)
def test_what_has_no_part_is_named(features: list[str], parts: dict[str, Any], named: str) -> None:
    state = bare_state(["CTRL_VQ", *features], **parts)
    encoded = encode(state)
    assert paths(encoded.missing) == [named]
    assert encoded.data == encode(bare_state(["CTRL_VQ", *features])).data


def test_what_says_nothing_is_not_named() -> None:
    features = ["CTRL_VQ", "CTRL_RX", "NOTF_COAL", "VQ_NOTF_COAL", "CTRL_GUEST_OFFLOADS"]
    parts: list[dict[str, Any]] = [
        {},
        {"rx": {}},
        {"coalescing": {}},
        {"coalescing": {"queues": {}}},
    ]
    for part in parts:
        assert encode(bare_state(features, **part)).missing == ()


@pytest.mark.parametrize(
    ("feature", "named"),
    [
        ("CTRL_GUEST_OFFLOADS", ["guest_offloads"]),
        ("NOTF_COAL", ["coalescing.rx", "coalescing.tx"]),
        ("VQ_NOTF_COAL", ["coalescing.queues"]),
        ("CTRL_RX", []),
    ],
)
def test_what_the_guest_may_have_set_and_no_part_tells_is_named(
    feature: str, named: list[str]
) -> None:
    data = encode(bare_state(["CTRL_VQ", feature])).data
    assert paths(decode(data).missing) == named


@pytest.mark.parametrize(
    ("halves", "rx", "extra", "modes"),
    [
        (["unicast"], RxModes(), True, RxModes(alluni=True)),
        (["unicast"], RxModes(alluni=False), True, RxModes(alluni=True)),
        (["unicast"], RxModes(), False, RxModes(promisc=True)),
        (["unicast"], RxModes(promisc=False), False, RxModes(promisc=True)),
        (["unicast"], RxModes(promisc=True), True, RxModes(promisc=True)),
        (["multicast"], RxModes(), False, RxModes(allmulti=True)),
        (["multicast"], RxModes(promisc=True), False, RxModes(promisc=True)),
        (["unicast", "multicast"], RxModes(), True, RxModes(alluni=True, allmulti=True)),
        (["unicast", "multicast"], RxModes(), False, RxModes(promisc=True, allmulti=True)),
        ([], RxModes(alluni=False), True, RxModes(alluni=False)),
    ],
)
def test_a_table_that_overflowed_opens_a_receive_mode(
    halves: list[str], rx: RxModes, extra: bool, modes: RxModes
) -> None:
    table = MacTable(
        unicast=(UNICAST,),
        unicast_overflow="unicast" in halves,
        multicast_overflow="multicast" in halves,
    )
    state = NetState(
        version=1,
        features=frozenset({17, 18, 20} if extra else {17, 18}),
        rx=rx,
        mac_table=table,
    )
    encoded = encode(state)
    assert paths(encoded.missing) == [f"mac_table.{half}_overflow" for half in halves]
    found = decode(encoded.data)
    assert found.state == state.model_copy(
        update={"rx": modes, "mac_table": MacTable(unicast=(UNICAST,))}
    )


def test_the_mode_that_stands_for_a_flag_is_named() -> None:
    state = bare_state(["CTRL_VQ", "CTRL_RX"], mac_table={"unicast_overflow": True})
    (missing,) = encode(state).missing
    assert missing.why.endswith("promisc is switched on instead")


# --- what the guest's features do not permit ---


@pytest.mark.parametrize(
    ("bit", "name", "path"),
    [
        (18, "RX_PROMISC", "rx.promisc"),
        (18, "MAC_TABLE_SET", "mac_table"),
        (18, "RX_ALLMULTI", "rx.allmulti"),
        (20, "RX_ALLUNI", "rx.alluni"),
        (20, "RX_NOMULTI", "rx.nomulti"),
        (20, "RX_NOUNI", "rx.nouni"),
        (20, "RX_NOBCAST", "rx.nobcast"),
        (23, "MAC_ADDR_SET", "mac"),
        (19, "VLAN_ADD", "vlans"),
        (22, "MQ_VQ_PAIRS_SET", "queue_pairs"),
        (60, "MQ_RSS_CONFIG", "rss"),
        (57, "MQ_HASH_CONFIG", "hash_report"),
    ],
)
def test_a_setting_that_was_not_negotiated_is_left_out_and_named(
    bit: int, name: str, path: str
) -> None:
    features = encode(NetState(version=1, features=FEATURES - {bit})).data.hex()
    found = found_in(features, VECTORS[name].wire)
    assert found.state == NetState(version=1, features=FEATURES - {bit})
    assert paths(found.missing) == [path]
    assert found.missing[0].why.startswith(f"{name} needs ")


def test_it_is_refused_all_the_same_where_its_bytes_are_wrong() -> None:
    with pytest.raises(FormatError, match="byte 24, CVQ_CFG_PART RX_PROMISC"):
        found_in(NO_FEATURES, cvq_part("0000", "02"))


# --- settings that contradict each other or are none ---


def test_rss_says_how_many_queue_pairs_there_are() -> None:
    found = found_in(DRV_FEATURES, cvq_part("0400", "0200"), VECTORS["MQ_RSS_CONFIG"].wire)
    assert found.state is not None
    assert found.state.queue_pairs == 3
    assert found.notes == (
        "MQ_VQ_PAIRS_SET says 2 queue pairs and MQ_RSS_CONFIG 3: RSS is on, so its command came "
        "later",
    )


def test_rss_that_agrees_needs_no_note() -> None:
    found = found_in(DRV_FEATURES, VECTORS["MQ_VQ_PAIRS_SET"].wire, VECTORS["MQ_RSS_CONFIG"].wire)
    assert found.state is not None
    assert (found.state.queue_pairs, found.notes) == (3, ())


def test_rss_that_was_not_negotiated_says_nothing_of_queue_pairs() -> None:
    features = encode(NetState(version=1, features=FEATURES - {60})).data.hex()
    found = found_in(features, cvq_part("0400", "0200"), VECTORS["MQ_RSS_CONFIG"].wire)
    assert found.state is not None
    assert (found.state.queue_pairs, found.notes) == (2, ())


def test_rss_and_a_hash_report_are_a_problem() -> None:
    found = found_in(DRV_FEATURES, VECTORS["MQ_RSS_CONFIG"].wire, VECTORS["MQ_HASH_CONFIG"].wire)
    assert problems(found) == [("hash_report", "conflict")]


def test_addresses_in_the_wrong_half_or_there_twice_are_sorted_and_noted() -> None:
    table = "02000000 01005e000001 525400000007  02000000 333300000001 01005e000001"
    found = found_in(DRV_FEATURES, cvq_part("0100", table))
    assert found.state is not None
    assert found.state.mac_table == MacTable(unicast=(UNICAST,), multicast=MULTICAST)
    assert found.notes == ("01:00:5e:00:00:01 stood in the MAC table's unicast half",)


def test_vlans_may_come_in_any_order() -> None:
    assert state_in(DRV_FEATURES, cvq_part("0200", "ff0f 0000 0200")).vlans == (0, 2, 4095)


@pytest.mark.parametrize(
    ("code", "value", "problem"),
    [
        ("0200", "0100 0010", ("vlans.1", "vlan")),
        ("0200", "0100 0100", ("vlans", "duplicate")),
        ("0101", "01005e000001", ("mac", "not-unicast")),
        ("0400", "0000", ("queue_pairs", "greater-than-equal")),
        ("0401", "00000000 0000 0000 0000 0100 00", ("rss.key", "empty")),
    ],
)
def test_settings_that_are_no_state_s_are_problems(
    code: str, value: str, problem: tuple[str, str]
) -> None:
    (got,) = problems(found_in(DRV_FEATURES, cvq_part(code, value)))
    assert got[0].startswith(problem[0])
    assert got[1] == problem[1]


@pytest.mark.parametrize(
    ("code", "value", "message"),
    [
        ("0000", "", "RX_PROMISC: expected 1 bytes of data, got 0"),
        ("0005", "02", "RX_NOBCAST: expected 0 or 1, got 2"),
        ("0100", "01000000", "MAC_TABLE_SET: 1 addresses end at byte 10, there are 4"),
        ("0101", "5254001234", "MAC_ADDR_SET: expected 6 bytes of data, got 5"),
        ("0200", "010002", "VLAN_ADD: expected 2 bytes for each id, got 3 bytes"),
        ("0400", "03", "MQ_VQ_PAIRS_SET: expected 2 bytes of data, got 1"),
        ("0401", "00000000", "MQ_RSS_CONFIG: expected 8 bytes of data, got 4"),
        ("0402", "01000000 0000000000000000 01", "MQ_HASH_CONFIG: expected 14 bytes of data, got"),
    ],
)
def test_a_value_that_is_not_its_command_s_is_refused(code: str, value: str, message: str) -> None:
    with pytest.raises(FormatError, match=rf"^byte 24, CVQ_CFG_PART {re.escape(message)}"):
        found_in(DRV_FEATURES, cvq_part(code, value))


def test_reserved_words_of_a_hash_config_are_passed_over() -> None:
    """As Linux 6.12 without RSS sends them."""
    wire = VECTORS["MQ_HASH_CONFIG"].wire
    assert "0000000000000000" in wire
    found = found_in(DRV_FEATURES, wire.replace("0000000000000000", "0000000000000100"))
    assert found.state is not None, found.problems
    assert found.state.hash_report == VECTORS["MQ_HASH_CONFIG"].part["hash_report"]


# --- parts beside the settings ---


def test_a_state_needs_the_guest_s_features() -> None:
    for wire in ("", VECTORS["VLAN_ADD"].wire, DRV_FEATURES.replace("0101 00", "0001 01")):
        with pytest.raises(FormatError, match="expected a part DRV_FEATURES"):
            found_in(wire)


def test_features_that_no_state_can_have_are_refused() -> None:
    wire = "0101 0000 0000000000000000 18000000" + "00" * 16 + "0100000000000000"
    with pytest.raises(FormatError, match="byte 0, DRV_FEATURES: expected features 0 … 127"):
        found_in(wire)


def test_features_without_what_they_require_are_a_state_with_a_note() -> None:
    found = found_in("0101 0000 0000000000000000 08000000 0000040000000000")
    assert found.state == NetState(version=1, features=frozenset({Feature.CTRL_RX}))
    assert [each.partition(", which ")[0] for each in found.notes] == [
        "the guest negotiated CTRL_RX without CTRL_VQ"
    ]


def test_without_a_control_queue_the_parts_of_its_commands_are_left_out() -> None:
    no_control_queue = "0101 0000 0000000000000000 08000000 0400800000000000"
    found = found_in(no_control_queue, VECTORS["MAC_ADDR_SET"].wire)
    features = frozenset({Feature.CTRL_GUEST_OFFLOADS, Feature.CTRL_MAC_ADDR})
    assert found.state == NetState(version=1, features=features)
    assert [(each.part, each.why) for each in found.missing] == [
        ("mac", "MAC_ADDR_SET needs CTRL_VQ, which the guest did not negotiate")
    ]


def test_the_parts_of_every_device_are_told_and_change_nothing() -> None:
    queue = "0401 00 00  {}00000000000000  20000000  {} ffff {}000000" + "00" * 24
    found = found_in(
        "0001 01 00  0000000000000000  08000000  ffffffffffffffff",
        DRV_FEATURES,
        "0201 00 00  1200000000000000  02000000  0500",
        "0301 00 00  0000000000000000  01000000  4f",
        queue.format("00", "0001", "01"),
        queue.format("01", "4000", "01"),
        queue.format("02", "0002", "00"),
        "0501 00 00  0000000000000000  08000000  0000 0000 00000000",
        VECTORS["MAC_ADDR_SET"].wire,
    )
    assert found.state == NetState(version=1, features=FEATURES, mac=MAC)
    assert found.missing == ()
    assert found.about == (
        ("device status", "ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, DEVICE_NEEDS_RESET"),
        ("virtqueues", "2 of 3 enabled, of at most 512 entries"),
    )


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("0102 {} 00  0000000000000001", "part 0x201"),
        ("ff01 {} 00  0000000000000000", "part 0x1ff"),
        ("0002 {} 00  0901 000000000000", "CVQ_CFG_PART 9.1"),
        ("0002 {} 00  0700 000000000000", "CVQ_CFG_PART HASH_TUNNEL_SET"),
        ("0002 {} 00  0500 000000000000", "CVQ_CFG_PART GUEST_OFFLOADS_SET"),
        ("0002 {} 00  0201 000000000000", "CVQ_CFG_PART VLAN_DEL"),
    ],
)
def test_a_part_that_is_not_known_is_named_unless_it_is_optional(header: str, name: str) -> None:
    state = NetState(version=1, features=FEATURES, mac=MAC)
    for flags in ("00", "01"):
        unknown = header.format(flags) + "0c000000" + "00" * 12
        found = found_in(DRV_FEATURES, unknown, VECTORS["MAC_ADDR_SET"].wire)
        assert found.state == state
        missing = (
            ()
            if flags == "01"
            else (Missing(name, "12 bytes at byte 24: virtio 1.4 has no such part"),)
        )
        assert found.missing == missing


def test_a_setting_marked_as_optional_is_taken_all_the_same() -> None:
    assert state_in(DRV_FEATURES, cvq_part("0400", "0300", flags="01")).queue_pairs == 3


def test_an_acknowledged_announcement_sets_nothing() -> None:
    found = found_in(DRV_FEATURES, cvq_part("0300", ""))
    assert found == Found("", NetState(version=1, features=FEATURES))


def test_of_many_unknown_parts_the_first_are_named_and_the_others_counted() -> None:
    found = found_in(DRV_FEATURES, *(cvq_part(f"80{n:02x}", "") for n in range(100)))
    assert paths(found.missing[:2]) == ["CVQ_CFG_PART 128.0", "CVQ_CFG_PART 128.1"]
    assert len(found.missing) == 65
    assert found.missing[-1].why.startswith("36 more parts")


def test_a_part_that_is_there_twice_is_refused() -> None:
    for wire in (DRV_FEATURES, VECTORS["VLAN_ADD"].wire):
        with pytest.raises(FormatError, match="got a second"):
            found_in(DRV_FEATURES, wire, wire)


# --- all states ---


def _without_losses(state: NetState) -> NetState:
    """What is left of a state whose table did not overflow."""
    parts = {name: getattr(state, name) for name in ("mac", "vlans", "rss", "hash_report")}
    modes = state.rx.model_dump(exclude_none=True) if state.rx else {}
    if 20 not in state.features:
        modes = {name: on for name, on in modes.items() if name in ("promisc", "allmulti")}
    parts |= {
        "rx": RxModes(**modes) if modes else None,
        "mac_table": state.mac_table,
        "queue_pairs": state.queue_pairs if 22 in state.features else None,
    }
    kept = {name: part for name, part in parts.items() if part is not None}
    return NetState(version=1, features=state.features, **kept)


def _overflowed(state: NetState) -> bool:
    table = state.mac_table
    return table is not None and (table.unicast_overflow or table.multicast_overflow)


def _names(state: NetState) -> set[str]:
    """Paths of all that a state says, as Missing names them."""
    said: set[str] = set()
    for part, value in state.model_dump(exclude_none=True).items():
        if part in ("rx", "coalescing"):
            said |= {f"{part}.{name}" for name, below in value.items() if below != {}}
        else:
            said.add(part)
    return said


@given(net_states())
def test_a_state_comes_back_without_what_is_named(state: NetState) -> None:
    encoded = encode(state)
    found = decode(encoded.data)
    assert found.problems == ()
    assert found.state is not None
    if _overflowed(state):
        return
    assert found.state == _without_losses(state)
    assert set(paths(encoded.missing)) == _names(state) - _names(found.state)


@given(net_states())
def test_a_plan_of_what_comes_back_does_what_a_plan_of_the_state_does(state: NetState) -> None:
    """Even where the MAC table overflowed: the receive modes then say what the flags said."""
    found = decode(encode(state).data)
    assert found.state is not None
    device = Capabilities(
        features=state.features,
        largest_command=1 << 20,
        max_queue_pairs=8,
        rss_max_key_size=255,
        rss_max_indirection_table_length=65536,
        supported_hash_types=frozenset(range(32)),
        supported_tunnel_types=frozenset(range(32)),
    )
    untold = ("hash_tunnel", "guest_offloads", "coalescing")
    without = state.model_copy(update=dict.fromkeys(untold))
    there, back = plan(without, device), plan(found.state, device)
    assert isinstance(there, Plan)
    assert isinstance(back, Plan)
    assert there.commands == back.commands


@given(net_states())
def test_bytes_of_ours_are_the_same_after_both_ways(state: NetState) -> None:
    data = encode(state).data
    found = decode(data)
    assert found.state is not None
    assert encode(found.state).data == data
