"""What two states differ in: named, and nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.states import SAMPLE, net_state, net_states
from vdpad.state.diff import Difference, DifferenceKind, differences
from vdpad.state.model import NetState

FIRST, SECOND, CHANGED = DifferenceKind
UNICAST = [f"52:54:00:00:00:{at:02x}" for at in range(20)]
MULTICAST = [f"01:00:5e:00:00:{at:02x}" for at in range(3)]


def _told(first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, DifferenceKind, str]]:
    found = differences(net_state(**first), net_state(**second))
    return [(each.path, each.kind, each.what) for each in found]


def _rss(**changes: Any) -> dict[str, Any]:
    return {"rss": {**SAMPLE["rss"], **changes}}


def _values(packets: int, usecs: int) -> dict[str, int]:
    return {"max_packets": packets, "max_usecs": usecs}


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (
            {},
            {"features": [*(set(SAMPLE["features"]) - {"MAC"}), "bit_100", "MTU"]},
            [("features", FIRST, "MAC"), ("features", SECOND, "MTU, bit_100")],
        ),
        (
            {},
            {"mac": "52:54:00:00:00:01"},
            [
                (
                    "mac",
                    CHANGED,
                    "52:54:00:12:34:56 in the first, 52:54:00:00:00:01 in the second",
                )
            ],
        ),
        ({}, {"mac": ...}, [("mac", FIRST, "52:54:00:12:34:56")]),
        (
            {"rx": {"promisc": True, "alluni": True}},
            {"rx": {"promisc": False, "nobcast": False}},
            [
                ("rx.promisc", CHANGED, "on in the first, off in the second"),
                ("rx.alluni", FIRST, "on"),
                ("rx.nobcast", SECOND, "off"),
            ],
        ),
        (
            {
                "mac_table": {
                    "unicast": UNICAST[:3],
                    "multicast": MULTICAST,
                    "multicast_overflow": True,
                }
            },
            {"mac_table": {"unicast": UNICAST[2:15], "multicast": [], "unicast_overflow": True}},
            [
                ("mac_table.unicast", FIRST, ", ".join(UNICAST[:2])),
                ("mac_table.unicast", SECOND, f"{', '.join(UNICAST[3:11])} and 4 more"),
                ("mac_table.multicast", FIRST, ", ".join(MULTICAST)),
                ("mac_table.unicast_overflow", CHANGED, "off in the first, on in the second"),
                ("mac_table.multicast_overflow", CHANGED, "on in the first, off in the second"),
            ],
        ),
        (
            {"mac_table": {"unicast": UNICAST[:3]}},
            {"mac_table": {"unicast": UNICAST[2::-1]}},
            [("mac_table.unicast", CHANGED, "the same addresses in another order")],
        ),
        (
            {"vlans": [1, [5, 9], 100]},
            {"vlans": [[6, 8], 4095]},
            [("vlans", FIRST, "4 ids: 1, 5, 9, 100"), ("vlans", SECOND, "1 id: 4095")],
        ),
        ({"vlans": [[1, 100]]}, {"vlans": []}, [("vlans", FIRST, "100 ids: 1-100")]),
        ({"vlans": []}, {"vlans": ...}, [("vlans", FIRST, "the whole part")]),
        ({"rss": ...}, {}, [("rss", SECOND, "the whole part")]),
        (
            {},
            {**_rss(max_tx_queues=3, indirection_table=[0, 2, 1, 2]), "queue_pairs": 3},
            [
                ("queue_pairs", CHANGED, "4 in the first, 3 in the second"),
                (
                    "rss.indirection_table",
                    CHANGED,
                    "3 of 4 entries; the first is entry 1, 1 in the first, 2 in the second",
                ),
                ("rss.max_tx_queues", CHANGED, "4 in the first, 3 in the second"),
            ],
        ),
        (
            _rss(indirection_table=[0]),
            _rss(hash_types=["TCPv4", "UDPv6"], unclassified_queue=1),
            [
                ("rss.hash_types", FIRST, "IPv4"),
                ("rss.hash_types", SECOND, "UDPv6"),
                ("rss.indirection_table", CHANGED, "1 entry in the first, 4 entries in the second"),
                ("rss.unclassified_queue", CHANGED, "0 in the first, 1 in the second"),
            ],
        ),
        (
            _rss(key="00112233"),
            _rss(key="00aa22bb"),
            [
                (
                    "rss.key",
                    CHANGED,
                    "2 of 4 bytes; the first is byte 1, 11 in the first, aa in the second",
                )
            ],
        ),
        (
            {"guest_offloads": ["GUEST_CSUM"]},
            {"guest_offloads": ["GUEST_TSO4"]},
            [("guest_offloads", FIRST, "GUEST_CSUM"), ("guest_offloads", SECOND, "GUEST_TSO4")],
        ),
        (
            {"coalescing": {"rx": _values(1, 2), "queues": {"9": _values(0, 0)}}},
            {
                "coalescing": {
                    "rx": _values(1, 3),
                    "tx": _values(0, 0),
                    "queues": {"9": _values(5, 0), "10": _values(0, 0)},
                }
            },
            [
                ("coalescing.rx.max_usecs", CHANGED, "2 in the first, 3 in the second"),
                ("coalescing.tx", SECOND, "the whole part"),
                ("coalescing.queues.9.max_packets", CHANGED, "0 in the first, 5 in the second"),
                ("coalescing.queues.10", SECOND, "the whole part"),
            ],
        ),
    ],
)
def test_each_part_by_name(
    first: dict[str, Any], second: dict[str, Any], told: list[tuple[str, DifferenceKind, str]]
) -> None:
    assert _told(first, second) == told


def test_a_hash_report() -> None:
    base: dict[str, Any] = {"rss": ..., "features": [*SAMPLE["features"], "HASH_REPORT"]}
    first = {**base, "hash_report": {"hash_types": ["IPv4"], "key": "00"}}
    second = {**base, "hash_report": {"hash_types": [], "key": ""}}
    assert _told(first, second) == [
        ("hash_report.hash_types", FIRST, "IPv4"),
        ("hash_report.key", CHANGED, "1 byte in the first, 0 bytes in the second"),
    ]


@given(net_states())
def test_a_state_differs_in_nothing_from_itself(state: NetState) -> None:
    assert differences(state, state) == []
    assert differences(state, state.model_copy(deep=True)) == []


@given(net_states(), net_states())
def test_states_differ_in_nothing_where_they_are_equal_only(a: NetState, b: NetState) -> None:
    assert (differences(a, b) == []) is (a == b)


_MIRROR = {FIRST: SECOND, SECOND: FIRST, CHANGED: CHANGED}


@given(net_states(), net_states())
def test_the_other_way_round_it_is_the_same(a: NetState, b: NetState) -> None:
    def where(found: list[Difference], mirrored: bool) -> list[tuple[str, DifferenceKind]]:
        return sorted((d.path, _MIRROR[d.kind] if mirrored else d.kind) for d in found)

    assert where(differences(a, b), False) == where(differences(b, a), True)


@given(net_states(), net_states(), st.data())
def test_a_part_that_is_changed_alone_is_told_alone(
    state: NetState, other: NetState, data: st.DataObject
) -> None:
    """Its value is another state's, or none; whether the whole is valid is no matter here."""
    part = data.draw(st.sampled_from([name for name in NetState.model_fields if name != "version"]))
    changed = state.model_copy(update={part: getattr(other, part)})
    found = differences(state, changed)
    assert bool(found) is (getattr(state, part) != getattr(other, part))
    assert {each.path.split(".")[0] for each in found} <= {part}


@given(net_states(), net_states())
def test_no_difference_is_a_dump(a: NetState, b: NetState) -> None:
    for each in differences(a, b):
        assert each.what
        assert "\n" not in each.what
        # A feature set may be 128 names long, of 25 letters at the most.
        assert len(each.what) < 500 or each.path == "features"
