"""NetState: what is refused, where and by which code; and that JSON keeps it as it is."""

import json
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from tests.support.states import KEY_HEX, SAMPLE, bare_state, net_state, net_states
from vdpad.state.model import HashReport, NetState, Rss, RxModes
from vdpad.state.problems import problems_of
from vdpad.virtio.config import GuestOffload, HashType
from vdpad.virtio.features import Feature


def _problems(raw: dict[str, Any]) -> list[tuple[str, str]]:
    """Path and code of everything that is wrong with a state in JSON."""
    try:
        NetState.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        return [(problem.path, problem.code) for problem in problems_of(error)]
    return []


def _sample_with(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**SAMPLE, **changes}.items() if value is not ...}


def _features(*names: str) -> list[str]:
    """The sample's features and these."""
    return [*SAMPLE["features"], *names]


def _part_with(part: str, **changes: Any) -> dict[str, Any]:
    merged = SAMPLE[part] | changes
    return _sample_with(**{part: {k: v for k, v in merged.items() if v is not ...}})


# --- what is accepted ---


def test_the_state_of_the_api_s_page_is_valid() -> None:
    assert _problems(dict(SAMPLE)) == []


def test_only_version_and_features_are_required() -> None:
    assert _problems({"version": 1, "features": []}) == []
    assert _problems({}) == [("version", "missing"), ("features", "missing")]


OPTIONAL_PARTS = [part for part in SAMPLE if part not in ("version", "features")]


@pytest.mark.parametrize("part", OPTIONAL_PARTS)
def test_every_other_part_may_be_absent(part: str) -> None:
    assert _problems(_sample_with(**{part: ...})) == []
    assert getattr(net_state(**{part: ...}), part) is None


@pytest.mark.parametrize("part", OPTIONAL_PARTS)
def test_every_part_may_be_alone(part: str) -> None:
    assert _problems({key: SAMPLE[key] for key in ("version", "features", part)}) == []


def test_a_state_is_kept_in_its_in_memory_form() -> None:
    state = net_state()
    assert state.mac == bytes.fromhex("525400123456")
    assert state.vlans == (1, 5, *range(100, 201))
    assert state.rss == Rss(
        hash_types=frozenset({HashType.IPv4, HashType.TCPv4}),
        indirection_table=(0, 1, 2, 3),
        unclassified_queue=0,
        max_tx_queues=4,
        key=bytes.fromhex(KEY_HEX),
    )
    assert state.guest_offloads == frozenset({1, 7})


def test_equal_settings_make_equal_states_however_they_are_written() -> None:
    written_otherwise = net_state(
        features=[*reversed(SAMPLE["features"][:-1]), "bit_60"],
        mac="52:54:00:12:34:56".upper(),
        vlans=[[101, 200], 5, 100, [1, 1]],
        guest_offloads=["GUEST_TSO4", "bit_1"],
        rss=SAMPLE["rss"] | {"key": KEY_HEX.upper()},
    )
    assert written_otherwise == net_state()


def test_a_state_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        net_state().version = 2  # type: ignore[misc]


@given(net_states())
def test_a_state_comes_back_from_json_as_it_was(state: NetState) -> None:
    assert NetState.model_validate_json(state.model_dump_json(exclude_unset=True)) == state


@given(net_states())
def test_what_is_written_has_the_parts_that_were_set_and_no_others(state: NetState) -> None:
    written = json.loads(state.model_dump_json(exclude_unset=True))
    assert set(written) == state.model_fields_set
    assert None not in written.values()


# --- strictness ---

PARTS_BELOW = {
    "mac": (1, ["52:54:00:12:34:56"], "52:54:00:12:34", "52-54-00-12-34-56", "5254.0012.3456", ""),
    "vlans": ("1", {}, 1, {"1": 1}),
    "queue_pairs": (True, 1.0, "1", [1]),
    "guest_offloads": ("GUEST_CSUM", {}, 2, [1]),
    "rx": ([], 1, "promisc", False),
    "mac_table": ([], "52:54:00:00:00:07"),
    "rss": ([], True),
    "hash_report": ([], True),
    "coalescing": ([], 0),
    "version": (True, 1.0, "1", [1]),
    "features": ("MQ", {}, 0, [22], [["MQ"]], [True]),
}


@pytest.mark.parametrize(
    ("part", "wrong"), [(part, wrong) for part, all_ in PARTS_BELOW.items() for wrong in all_]
)
def test_a_part_of_another_type_is_refused_at_its_path(part: str, wrong: Any) -> None:
    problems = _problems(_sample_with(**{part: wrong}))
    assert len(problems) == 1
    assert problems[0][0].split(".")[0] == part


@pytest.mark.parametrize("part", [*SAMPLE, "hash_report"])
def test_a_null_part_is_refused(part: str) -> None:
    problems = _problems(_sample_with(**{part: None}))
    assert [path for path, _ in problems] == [part]


NESTED = [
    ("rx", "promisc", 1),
    ("rx", "promisc", "true"),
    ("rx", "nobcast", None),
    ("mac_table", "unicast", None),
    ("mac_table", "unicast", "52:54:00:00:00:07"),
    ("mac_table", "multicast", {}),
    ("mac_table", "unicast_overflow", 0),
    ("mac_table", "multicast_overflow", None),
    ("rss", "hash_types", "IPv4"),
    ("rss", "hash_types", None),
    ("rss", "indirection_table", None),
    ("rss", "indirection_table", {"0": 1}),
    ("rss", "unclassified_queue", True),
    ("rss", "unclassified_queue", 0.0),
    ("rss", "max_tx_queues", 4.0),
    ("rss", "max_tx_queues", None),
    ("rss", "key", None),
    ("rss", "key", 1),
    ("coalescing", "rx", None),
    ("coalescing", "tx", []),
    ("coalescing", "queues", None),
    ("coalescing", "queues", []),
]


@pytest.mark.parametrize(("part", "key", "wrong"), NESTED)
def test_a_value_of_another_type_is_refused_at_its_path(part: str, key: str, wrong: Any) -> None:
    problems = _problems(_part_with(part, **{key: wrong}))
    assert [path for path, _ in problems] == [f"{part}.{key}"]


@pytest.mark.parametrize("key", ["max_packets", "max_usecs"])
@pytest.mark.parametrize("wrong", [True, 1.0, "1", None, -1, 1 << 32])
@pytest.mark.parametrize("where", ["rx", "tx", "queues.0"])
def test_coalescing_takes_32_bit_numbers_only(key: str, wrong: Any, where: str) -> None:
    values = {"max_packets": 1, "max_usecs": 1, key: wrong}
    part = {"queues": {"0": values}} if where == "queues.0" else {where: values}
    problems = _problems(_sample_with(coalescing=part))
    assert [path for path, _ in problems] == [f"coalescing.{where}.{key}"]


@pytest.mark.parametrize("part", ["rx", "mac_table", "rss", "coalescing"])
def test_an_unknown_key_in_a_part_is_refused(part: str) -> None:
    assert _problems(_part_with(part, more=1)) == [(f"{part}.more", "unknown-key")]


def test_an_unknown_part_is_refused() -> None:
    assert _problems(_sample_with(rss_context=[])) == [("rss_context", "unknown-key")]


@pytest.mark.parametrize("key", SAMPLE["rss"])
def test_rss_is_whole_or_not_there(key: str) -> None:
    assert _problems(_part_with("rss", **{key: ...})) == [(f"rss.{key}", "missing")]


@pytest.mark.parametrize("key", ["hash_types", "key"])
def test_a_hash_report_is_whole_or_not_there(key: str) -> None:
    report = {"hash_types": ["IPv4"], "key": "00"}
    del report[key]
    raw = _sample_with(rss=..., features=_features("HASH_REPORT"), hash_report=report)
    assert _problems(raw) == [(f"hash_report.{key}", "missing")]


@pytest.mark.parametrize("version", [0, 2, -1])
def test_another_version_is_refused(version: int) -> None:
    assert [path for path, _ in _problems(_sample_with(version=version))] == ["version"]


def test_every_fault_of_the_types_is_told_at_once() -> None:
    raw = _sample_with(version=2, mac="x", vlans=[4096], queue_pairs=0, more=1)
    assert [path for path, _ in _problems(raw)] == [
        "version",
        "mac",
        "vlans.0",
        "queue_pairs",
        "more",
    ]


def _told(part: str, name: str, entries: object) -> list[str]:
    """Paths of problems below a list or a map of a part, or a list that is one."""
    value = {name: entries} if name else entries
    state = {"version": 1, "features": [], part: value}
    with pytest.raises(ValidationError) as refused:
        NetState.model_validate_json(json.dumps(state))
    table = f"{part}.{name}" if name else part
    paths = [each.path for each in problems_of(refused.value)]
    return [each.removeprefix(table) for each in paths if each.startswith(table)]


@pytest.mark.parametrize(
    ("part", "name", "wrong"),
    [
        ("features", "", 1),
        ("vlans", "", 5000),
        ("guest_offloads", "", "x"),
        ("hash_report", "hash_types", None),
        ("rss", "hash_types", ""),
        ("rss", "indirection_table", True),
        ("mac_table", "unicast", 1),
        ("mac_table", "multicast", "52:54"),
    ],
)
def test_of_a_list_each_wrong_entry_is_told_up_to_a_bound(
    part: str, name: str, wrong: object
) -> None:
    assert _told(part, name, [wrong] * 16) == [f".{at}" for at in range(16)]
    # The empty one says that there are more.
    assert _told(part, name, [wrong] * 1000) == [*(f".{at}" for at in range(16)), ""]


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({str(n): {} for n in range(9)}, [".0.max_packets", ".0.max_usecs"]),
        ({f"q{n}": None for n in range(9)}, [".q0.[key]"]),
    ],
)
def test_of_a_map_the_first_wrong_member_is_told(entries: object, told: list[str]) -> None:
    assert _told("coalescing", "queues", entries) == told


def test_of_a_part_that_is_all_wrong_so_much_is_told() -> None:
    table = {"unicast": ["01:00:5e:00:00:01"] * 10_000}
    with pytest.raises(ValidationError) as refused:
        NetState.model_validate_json(
            json.dumps({"version": 1, "features": ["CTRL_VQ", "CTRL_RX"], "mac_table": table})
        )
    *others, last = problems_of(refused.value)
    assert len(others) == 16
    assert (last.path, last.message) == ("mac_table", "there are more than these 16")


# --- each part by itself ---


@pytest.mark.parametrize(
    "mac", ["00:00:00:00:00:00", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "03:00:00:00:00:00"]
)
def test_the_device_s_address_is_unicast_and_not_zero(mac: str) -> None:
    assert _problems(_sample_with(mac=mac)) == [("mac", "not-unicast")]


@pytest.mark.parametrize("mac", ["00:00:00:00:00:01", "02:00:00:00:00:00", "fe:ff:ff:ff:ff:ff"])
def test_any_other_unicast_address_may_be_the_device_s(mac: str) -> None:
    assert _problems(_sample_with(mac=mac)) == []


MULTICAST, UNICAST = "01:00:5e:00:00:01", "52:54:00:00:00:07"


@pytest.mark.parametrize(
    ("table", "problems"),
    [
        ({"unicast": [UNICAST, MULTICAST]}, [("mac_table.unicast.1", "wrong-table")]),
        ({"multicast": [UNICAST, MULTICAST]}, [("mac_table.multicast.0", "wrong-table")]),
        ({"unicast": [UNICAST, UNICAST]}, [("mac_table.unicast.1", "duplicate")]),
        (
            {"multicast": [MULTICAST, "33:33:00:00:00:01", MULTICAST.upper()]},
            [("mac_table.multicast.2", "duplicate")],
        ),
        (
            {"unicast": [MULTICAST, MULTICAST], "multicast": [UNICAST]},
            [
                ("mac_table.unicast.0", "wrong-table"),
                ("mac_table.unicast.1", "wrong-table"),
                ("mac_table.unicast.1", "duplicate"),
                ("mac_table.multicast.0", "wrong-table"),
            ],
        ),
        ({"unicast": [UNICAST, "x"]}, [("mac_table.unicast.1", "mac")]),
        ({"unicast": [None]}, [("mac_table.unicast.0", "mac")]),
    ],
)
def test_a_mac_table_s_faults_are_told_by_entry(
    table: dict[str, Any], problems: list[tuple[str, str]]
) -> None:
    assert _problems(_sample_with(mac_table=table)) == problems


def test_a_mac_table_may_be_empty_and_may_have_overflowed() -> None:
    assert _problems(_sample_with(mac_table={})) == []
    table = {"unicast_overflow": True, "multicast_overflow": True}
    assert _problems(_sample_with(mac_table=table)) == []


@pytest.mark.parametrize(
    ("vlans", "problem"),
    [
        ([4096], ("vlans.0", "vlan")),
        ([-1], ("vlans.0", "vlan")),
        ([1, True], ("vlans.1", "vlan")),
        ([False], ("vlans.0", "vlan")),
        ([1.0], ("vlans.0", "vlan")),
        (["1"], ("vlans.0", "vlan")),
        ([None], ("vlans.0", "vlan")),
        ([[200, 100]], ("vlans.0", "vlan")),
        ([[0, 4096]], ("vlans.0", "vlan")),
        ([[-1, 1]], ("vlans.0", "vlan")),
        ([[1]], ("vlans.0", "vlan")),
        ([[1, 2, 3]], ("vlans.0", "vlan")),
        ([[]], ("vlans.0", "vlan")),
        ([[1, True]], ("vlans.0", "vlan")),
        ([[1, 2.0]], ("vlans.0", "vlan")),
        ([[1, [2, 3]]], ("vlans.0", "vlan")),
        ([{"1": 2}], ("vlans.0", "vlan")),
        ([7, 7], ("vlans.1", "duplicate")),
        ([7, [5, 9]], ("vlans.1", "duplicate")),
        ([[5, 9], 7], ("vlans.1", "duplicate")),
        ([[5, 9], [9, 10]], ("vlans.1", "duplicate")),
        ([[0, 4095], 0], ("vlans.1", "duplicate")),
    ],
)
def test_vlans_are_ids_and_ascending_ranges_without_duplicates(
    vlans: list[Any], problem: tuple[str, str]
) -> None:
    assert _problems(_sample_with(vlans=vlans)) == [problem]


@pytest.mark.parametrize(
    ("vlans", "ids"),
    [
        ([], ()),
        ([0], (0,)),
        ([4095], (4095,)),
        ([[7, 7]], (7,)),
        ([9, [3, 5], 1], (1, 3, 4, 5, 9)),
        ([[0, 4095]], tuple(range(4096))),
    ],
)
def test_vlans_are_kept_as_ascending_ids(vlans: list[Any], ids: tuple[int, ...]) -> None:
    assert net_state(vlans=vlans).vlans == ids


@pytest.mark.parametrize(
    ("ids", "written"),
    [
        ((), []),
        ((1, 2), [1, 2]),
        ((1, 2, 3), [[1, 3]]),
        ((0, 2, 3, 5, 6, 7, 8, 4095), [0, 2, 3, [5, 8], 4095]),
        (tuple(range(4096)), [[0, 4095]]),
    ],
)
def test_three_or_more_vlans_in_a_row_are_written_as_a_range(
    ids: tuple[int, ...], written: list[Any]
) -> None:
    state = NetState(version=1, features=net_state().features, vlans=ids)
    assert json.loads(state.model_dump_json(exclude_unset=True))["vlans"] == written


@pytest.mark.parametrize("pairs", [1, 0x8000])
def test_queue_pairs_go_from_1_to_32768(pairs: int) -> None:
    assert _problems(_sample_with(queue_pairs=pairs, rss=...)) == []


@pytest.mark.parametrize("pairs", [0, -1, 0x8001, 1 << 70])
def test_no_other_number_of_queue_pairs_is_taken(pairs: int) -> None:
    problems = _problems(_sample_with(queue_pairs=pairs, rss=...))
    assert [path for path, _ in problems] == ["queue_pairs"]


@pytest.mark.parametrize("length", [1, 2, 128, 65536])
def test_an_indirection_table_may_have_any_power_of_two_of_entries(length: int) -> None:
    assert _problems(_part_with("rss", indirection_table=[0] * length)) == []


@pytest.mark.parametrize("length", [3, 5, 6, 127, 129, 65535])
def test_an_indirection_table_of_another_length_is_refused(length: int) -> None:
    problems = _problems(_part_with("rss", indirection_table=[0] * length))
    assert problems == [("rss.indirection_table", "not-a-power-of-two")]


@pytest.mark.parametrize(("length", "code"), [(0, "too-short"), (131072, "too-long")])
def test_an_indirection_table_has_1_to_65536_entries(length: int, code: str) -> None:
    problems = _problems(_part_with("rss", indirection_table=[0] * length))
    assert problems == [("rss.indirection_table", code)]


@pytest.mark.parametrize("entry", [-1, 65536, True, 0.0, "0", None])
def test_an_entry_that_is_no_queue_is_told_by_its_place(entry: Any) -> None:
    problems = _problems(_part_with("rss", indirection_table=[0, entry]))
    assert [path for path, _ in problems] == ["rss.indirection_table.1"]


def test_a_key_may_have_255_bytes_and_no_more() -> None:
    assert _problems(_part_with("rss", key="00" * 255)) == []
    assert _problems(_part_with("rss", key="00" * 256)) == [("rss.key", "key")]


@pytest.mark.parametrize("key", ["0", "0x00", "gg", "00 00", "00:00", "00\n", "٠٠"])
def test_a_key_is_an_even_number_of_hexadecimal_digits(key: str) -> None:
    assert _problems(_part_with("rss", key=key)) == [("rss.key", "key")]


@pytest.mark.parametrize("hash_types", [[], ["IPv4"]])
def test_rss_that_is_on_has_a_key(hash_types: list[str]) -> None:
    problems = _problems(_part_with("rss", hash_types=hash_types, key=""))
    assert problems == [("rss.key", "empty")]
    assert _problems(_part_with("rss", hash_types=hash_types, key="00")) == []


def _with_report(hash_types: list[str], key: str) -> dict[str, Any]:
    report = {"hash_types": hash_types, "key": key}
    return _sample_with(rss=..., features=_features("HASH_REPORT"), hash_report=report)


def test_a_hash_report_needs_a_key_where_there_is_something_to_hash() -> None:
    assert _problems(_with_report(["IPv4"], "")) == [("hash_report.key", "empty")]
    assert _problems(_with_report(["IPv4"], "00")) == []
    assert _problems(_with_report([], "")) == []


@pytest.mark.parametrize("queue", ["0", "9", "10", "65535"])
def test_a_queue_is_a_decimal_string(queue: str) -> None:
    part = {"queues": {queue: {"max_packets": 1, "max_usecs": 1}}}
    assert _problems(_sample_with(coalescing=part)) == []


@pytest.mark.parametrize("queue", ["", "00", "01", "-1", "+1", " 1", "1\n", "x", "1e1", "100000"])
def test_a_queue_has_one_way_to_be_written(queue: str) -> None:
    part = {"queues": {queue: {"max_packets": 1, "max_usecs": 1}}}
    problems = _problems(_sample_with(coalescing=part))
    assert len(problems) == 1
    assert problems[0][0].startswith("coalescing.queues.")


# --- the parts against the features ---


@pytest.mark.parametrize(
    ("part", "feature"),
    [
        ("mac", "CTRL_MAC_ADDR"),
        ("mac_table", "CTRL_RX"),
        ("vlans", "CTRL_VLAN"),
        ("rss", "RSS"),
        ("guest_offloads", "CTRL_GUEST_OFFLOADS"),
    ],
)
def test_a_part_needs_the_feature_that_permits_its_commands(part: str, feature: str) -> None:
    features = [name for name in SAMPLE["features"] if name != feature]
    raw = {"version": 1, "features": features, part: SAMPLE[part]}
    assert _problems(raw) == [(part, "needs-feature")]


def test_a_hash_report_needs_its_feature() -> None:
    raw = _sample_with(rss=..., hash_report={"hash_types": ["IPv4"], "key": "00"})
    assert _problems(raw) == [("hash_report", "needs-feature")]


@pytest.mark.parametrize("mode", ["promisc", "allmulti"])
@pytest.mark.parametrize("on", [False, True])
def test_the_plain_receive_modes_need_ctrl_rx(mode: str, on: bool) -> None:
    raw = {"version": 1, "features": ["CTRL_VQ"], "rx": {mode: on}}
    assert _problems(raw) == [(f"rx.{mode}", "needs-feature")]


@pytest.mark.parametrize("mode", ["alluni", "nomulti", "nouni", "nobcast"])
def test_the_other_receive_modes_need_ctrl_rx_extra_where_they_are_on(mode: str) -> None:
    features = ["CTRL_VQ", "CTRL_RX"]
    assert _problems({"version": 1, "features": features, "rx": {mode: True}}) == [
        (f"rx.{mode}", "needs-feature")
    ]
    assert _problems({"version": 1, "features": features, "rx": {mode: False}}) == []


@pytest.mark.parametrize(
    ("key", "feature"), [("rx", "NOTF_COAL"), ("tx", "NOTF_COAL"), ("queues", "VQ_NOTF_COAL")]
)
def test_coalescing_needs_the_feature_of_its_class_or_of_its_queues(key: str, feature: str) -> None:
    coalescing = {key: SAMPLE["coalescing"][key]}
    others = [name for name in ("CTRL_VQ", "NOTF_COAL", "VQ_NOTF_COAL") if name != feature]
    raw = {"version": 1, "features": others, "coalescing": coalescing}
    assert _problems(raw) == [(f"coalescing.{key}", "needs-feature")]
    assert _problems(raw | {"features": [*others, feature]}) == []


def test_more_than_one_queue_pair_needs_multiqueue() -> None:
    raw = {"version": 1, "features": ["CTRL_VQ"], "queue_pairs": 2}
    assert set(_problems(raw)) == {("queue_pairs", "needs-feature")}
    assert _problems(raw | {"queue_pairs": 1}) == []
    assert _problems(raw | {"features": ["CTRL_VQ", "MQ"]}) == []


def test_without_mq_only_rss_sets_the_queue_pairs() -> None:
    features = ["CTRL_VQ", "RSS"]
    raw = {"version": 1, "features": features, "queue_pairs": 4}
    assert _problems(raw) == [("queue_pairs", "needs-feature")]
    assert _problems(raw | {"rss": SAMPLE["rss"]}) == []


@pytest.mark.parametrize("offload", GuestOffload)
def test_an_offload_needs_its_own_feature(offload: GuestOffload) -> None:
    features = ["CTRL_VQ", "CTRL_GUEST_OFFLOADS", offload.name]
    raw = {"version": 1, "features": features, "guest_offloads": [offload.name]}
    assert _problems(raw) == []
    assert _problems(raw | {"features": features[:-1]}) == [("guest_offloads", "needs-feature")]


def test_an_offload_that_has_no_feature_is_refused() -> None:
    assert _problems(_sample_with(guest_offloads=["bit_0"])) == [
        ("guest_offloads", "needs-feature")
    ]


@pytest.mark.parametrize("feature", Feature)
def test_a_feature_may_be_without_any_other(feature: Feature) -> None:
    """Real guests are: what the specification requires is for notes."""
    assert _problems({"version": 1, "features": [feature.name]}) == []


@pytest.mark.parametrize("part", [part for part in OPTIONAL_PARTS if part != "rx"])
def test_a_part_needs_the_control_queue_that_its_commands_go_over(part: str) -> None:
    features = [name for name in SAMPLE["features"] if name != "CTRL_VQ"]
    problems = _problems({"version": 1, "features": features, part: SAMPLE[part]})
    assert problems
    for path, code in problems:
        assert (path.split(".")[0], code) == (part, "needs-feature")


@pytest.mark.parametrize("mode", SAMPLE["rx"])
def test_a_receive_mode_needs_the_control_queue(mode: str) -> None:
    raw = {"version": 1, "features": ["CTRL_RX", "CTRL_RX_EXTRA"], "rx": {mode: True}}
    assert _problems(raw) == [(f"rx.{mode}", "needs-feature")]


def test_what_no_command_has_to_set_needs_no_control_queue() -> None:
    raw = {"version": 1, "features": ["MQ", "CTRL_RX_EXTRA"], "queue_pairs": 1}
    assert _problems(raw | {"rx": {"alluni": False}}) == []


# --- the parts against each other ---


def test_a_device_holds_either_rss_or_a_hash_report() -> None:
    raw = _sample_with(
        features=_features("HASH_REPORT"), hash_report={"hash_types": ["IPv4"], "key": "00"}
    )
    assert _problems(raw) == [("hash_report", "conflict")]


def test_rss_agrees_with_the_queue_pairs() -> None:
    assert _problems(_part_with("rss", max_tx_queues=3)) == [("rss.max_tx_queues", "conflict")]


def test_rss_names_only_queues_that_there_are() -> None:
    raw = _part_with("rss", indirection_table=[0, 3, 4, 9], unclassified_queue=4)
    assert _problems(raw) == [
        ("rss.indirection_table.2", "out-of-range"),
        ("rss.unclassified_queue", "out-of-range"),
    ]
    assert _problems(_part_with("rss", indirection_table=[3], unclassified_queue=3)) == []


def test_without_queue_pairs_rss_names_any_queue() -> None:
    raw = _part_with("rss", indirection_table=[9, 65535]) | {"queue_pairs": ...}
    assert _problems({key: value for key, value in raw.items() if value is not ...}) == []


def test_faults_among_the_parts_are_told_all_at_once() -> None:
    raw = _sample_with(
        features=["CTRL_VQ", "RSS", "GUEST_TSO4"], mac="00:00:00:00:00:00", rx=..., coalescing=...
    )
    assert set(_problems(raw)) == {
        ("mac", "needs-feature"),
        ("mac", "not-unicast"),
        ("mac_table", "needs-feature"),
        ("vlans", "needs-feature"),
        ("hash_tunnel", "needs-feature"),
        ("guest_offloads", "needs-feature"),
    }


# --- what a plan asks ---


def test_a_state_tells_which_features_its_parts_need() -> None:
    needs = dict(net_state().needs())
    assert needs[("queue_pairs",)] == (Feature.MQ, Feature.RSS)
    assert needs[("coalescing", "queues")] == (Feature.VQ_NOTF_COAL,)
    assert needs[("rx", "promisc")] == (Feature.CTRL_RX,)
    assert ("rx", "nobcast") not in needs  # off: a device without the feature is that already


def test_a_bare_state_needs_nothing() -> None:
    assert list(bare_state([], queue_pairs=1, rx={"nouni": False}).needs()) == []


def test_python_may_give_the_in_memory_form() -> None:
    state = NetState(
        version=1,
        features=frozenset({Feature.CTRL_VQ, Feature.CTRL_RX, Feature.HASH_REPORT}),
        rx=RxModes(promisc=True),
        hash_report=HashReport(hash_types=frozenset(), key=b""),
    )
    assert state == bare_state(
        ["CTRL_VQ", "CTRL_RX", "HASH_REPORT"],
        rx={"promisc": True},
        hash_report={"hash_types": [], "key": ""},
    )
