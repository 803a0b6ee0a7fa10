"""A state as the API takes it, from its bytes and back."""

import json
from typing import Any

import pytest
from hypothesis import given

from tests.support.states import SAMPLE, net_state, net_states
from vdpad.state.formats.native import MAX_SIZE, decode, encode
from vdpad.state.found import FormatError
from vdpad.state.model import Coalescing, CoalescingValues, MacTable, NetState
from vdpad.virtio.features import unmet_requirements


def _with(**changes: Any) -> bytes:
    return json.dumps({**SAMPLE, **changes}).encode()


@given(net_states())
def test_a_state_comes_back_as_it_was(state: NetState) -> None:
    found = decode(encode(state))
    assert found.state == state
    assert (found.device, found.problems, found.missing) == ("", (), ())
    assert found.notes == unmet_requirements(state.features)


def test_the_bytes_are_lines_that_end_in_one() -> None:
    text = encode(net_state()).decode()
    assert text.startswith('{\n  "version": 1,\n  "features": [\n    "GUEST_CSUM", ')
    assert text.endswith("\n}\n")
    assert max(map(len, text.splitlines())) <= 100
    assert '\n  "vlans": [1, 5, [100, 200]],\n' in text


def test_a_long_table_is_wrapped() -> None:
    addresses = [f"52:54:00:00:{at >> 8:02x}:{at & 255:02x}" for at in range(1000)]
    text = encode(net_state(mac_table={"unicast": addresses})).decode()
    assert max(map(len, text.splitlines())) <= 100
    assert json.loads(text)["mac_table"]["unicast"] == addresses


def test_equal_states_give_equal_bytes() -> None:
    features = net_state().features
    values = [CoalescingValues(max_packets=at, max_usecs=0) for at in range(2)]
    ways = [
        NetState(
            version=1,
            features=features,
            mac_table=MacTable(),
            coalescing=Coalescing(queues={"10": values[0], "9": values[1]}),
        ),
        NetState(
            version=1,
            features=features,
            mac_table=MacTable(unicast=(), multicast_overflow=False),
            coalescing=Coalescing(queues={"9": values[1], "10": values[0]}),
        ),
    ]
    assert ways[0] == ways[1]
    assert encode(ways[0]) == encode(ways[1])


@given(net_states(), net_states())
def test_different_states_give_different_bytes(first: NetState, second: NetState) -> None:
    assert (encode(first) == encode(second)) is (first == second)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "UTF-8 JSON"),
        (b"{", "UTF-8 JSON"),
        (b"\xff{}", "UTF-8 JSON"),
        (b"[]", "a JSON object, got list"),
        (b"1", "a JSON object, got int"),
        (b'{"version": 1, "features": [], "features": []}', "twice"),
        (_with(rx={"promisc": float("nan")}), "NaN"),
        (b" " * (MAX_SIZE + 1), f"at most {MAX_SIZE} bytes"),
        (_with(x=[0] * 140_000), "at most 139264 values"),
        (_with(x=[[]] * 17_000), "at most 16384 containers"),
        (_with(x=[dict.fromkeys(map(str, range(9)))] * 4000), "at most 32768 names"),
        (_with(**{f"x{number}": 0 for number in range(4097)}), r"with 41\d\d names in it"),
        (_with(rx={f"x{number}": 0 for number in range(4097)}), r"with 41\d\d names in it"),
        (_with(coalescing={"queues": {"1": dict.fromkeys(map(str, range(5000)))}}), "names in it"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_is_no_json_object_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        decode(data)


def test_what_is_no_valid_state_is_told_by_path() -> None:
    found = decode(_with(vlans=[5000], mac="x", more=1))
    assert found.state is None
    assert [(each.path, each.code) for each in found.problems] == [
        ("mac", "mac"),
        ("vlans.0", "vlan"),
        ("more", "unknown-key"),
    ]


def test_what_only_pydantic_refuses_is_a_problem() -> None:
    found = decode(b'{"version": 1, "features": ["\\ud800"]}')
    assert found.state is None
    assert found.problems


@given(net_states())
def test_no_cut_state_passes_for_a_whole_one(state: NetState) -> None:
    data = encode(state)
    for end in (0, 1, len(data) // 2, len(data) - 2):
        with pytest.raises(FormatError):
            decode(data[:end])


def test_the_longest_tables_and_ten_thousand_queues_are_read() -> None:
    macs = [f"02:00:{number.to_bytes(4, 'big').hex(':')}" for number in range(65_536)]
    values = {"max_packets": 0xFFFFFFFF, "max_usecs": 0xFFFFFFFF}
    features = ["CTRL_VQ", "CTRL_RX", "CTRL_VLAN", "MQ", "RSS", "VQ_NOTF_COAL"]
    tables: dict[str, Any] = {
        "mac_table": {"unicast": macs},
        "vlans": [[vid, vid] for vid in range(1, 2048, 2)],
        "queue_pairs": 32768,
        "rss": {
            "hash_types": ["IPv4"],
            "indirection_table": [32767] * 65_536,
            "unclassified_queue": 0,
            "max_tx_queues": 32768,
            "key": "aa",
        },
    }
    queues = {"coalescing": {"queues": {str(number): values for number in range(10_000)}}}
    for parts in (tables, queues):
        found = decode(json.dumps({"version": 1, "features": features, **parts}).encode())
        assert found.state is not None, found.problems
        assert decode(encode(found.state)).state == found.state
