"""Command logs: written by hand, written by us, and such as nobody should send."""

import contextlib
import io
import json
import random
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.commands import COMMANDS
from tests.support.states import bare_state, net_state, net_states
from vdpad.state.formats.command_log import (
    MAX_SIZE,
    decode,
    encode,
    push_command,
    push_header,
    push_reset,
)
from vdpad.state.formats.recognise import COMMAND_LOG, read
from vdpad.state.found import FormatError
from vdpad.state.model import NetState
from vdpad.state.observed import MAX_COMMAND
from vdpad.state.recorder import Recorder
from vdpad.virtio.commands import Command, MacTableSet, VlanAdd
from vdpad.virtio.features import Feature

FEATURES = frozenset({Feature.CTRL_VQ, Feature.CTRL_RX, Feature.CTRL_VLAN, Feature.RSS_CONTEXT})

# Bits 17, 18 and 19, and bit 64.
HEADER = bytes.fromhex("5644504144 4c4f47 01000000 00000000 00000e0000000000 0100000000000000")
STATE = b'{"version":1,"features":["CTRL_VQ","CTRL_RX","CTRL_VLAN","RSS_CONTEXT"],"vlans":[7]}'
RECORDS = (
    len(STATE).to_bytes(4, "little") + bytes.fromhex("03 00 0000") + STATE,
    bytes.fromhex("04000000 01 00 0000 0200 2a00"),  # VLAN_ADD 42
    bytes.fromhex("04000000 01 01 0000 0200 2b00"),  # VLAN_ADD 43, refused
    bytes.fromhex("03000000 01 00 0000 0000 01"),  # RX_PROMISC on
)
# CTRL_VQ and CTRL_RX.
RESET = bytes.fromhex("10000000 02 00 0000 0000060000000000 0000000000000000")
LOG = HEADER + b"".join(RECORDS)
WHOLE = LOG + RESET + RECORDS[-1]


def _told(data: bytes) -> dict[str, object]:
    state = decode(data).state
    assert state is not None
    plain: dict[str, object] = json.loads(state.model_dump_json(exclude_none=True))
    return {name: plain[name] for name in plain if name not in ("version", "features")}


def test_one_that_was_written_by_hand_is_folded() -> None:
    assert _told(HEADER) == {}
    assert _told(LOG) == {"vlans": [7, 42], "rx": {"promisc": True}}
    assert dict(decode(LOG).about) == {"commands": "2 acknowledged, 1 refused", "resets": "0"}


def test_behind_a_reset_everything_is_new() -> None:
    found = decode(WHOLE)
    assert found.state == bare_state(["CTRL_VQ", "CTRL_RX"], rx={"promisc": True})
    assert dict(found.about) == {"commands": "3 acknowledged, 1 refused", "resets": "1"}


def test_what_no_state_can_say_is_missing() -> None:
    unknown = bytes.fromhex("02000000 01 00 0000 0900")
    assert [each.part for each in decode(LOG + unknown).missing] == ["class 9"]
    assert [each.part for each in decode(LOG + RESET + RECORDS[1]).missing] == ["vlans"]


def test_it_is_written_as_it_stands_in_formats_md() -> None:
    assert push_header(FEATURES) == HEADER
    assert push_reset({Feature.CTRL_VQ, Feature.CTRL_RX}) == RESET
    assert push_command(VlanAdd(42).encode(), 0) == RECORDS[1]
    assert push_command(VlanAdd(43).encode(), 1) == RECORDS[2]


def test_it_is_known_by_its_first_bytes() -> None:
    reading = read(io.BytesIO(WHOLE))
    assert (reading.format, reading.devices) == (COMMAND_LOG, (decode(WHOLE),))


@given(
    st.frozensets(st.integers(0, 127)),
    st.lists(st.tuples(COMMANDS, st.sampled_from([0, 0, 0, 1, 255]))),
)
def test_folding_a_log_is_folding_its_commands(
    features: frozenset[int], told: list[tuple[Command, int]]
) -> None:
    recorder, log = Recorder(features), push_header(features)
    for command, ack in told:
        readable = command.encode()
        recorder.fold(readable, ack)
        log += push_command(readable, ack)
    assert replace(decode(log), about=()) == recorder.found()


@given(net_states())
def test_a_state_is_the_beginning_of_a_log(state: NetState) -> None:
    began = Recorder.of(state)
    assert replace(decode(encode(state)), about=()) == began.found()
    began.fold(VlanAdd(9).encode(), 0)
    log = encode(state) + push_command(VlanAdd(9).encode(), 0)
    assert replace(decode(log), about=()) == began.found()


def test_a_command_that_is_too_long_is_missing_and_not_half_of_it_taken() -> None:
    macs = tuple(bytes([2, 0, *number.to_bytes(4, "big")]) for number in range(50_000))
    table = MacTableSet(unicast=macs, multicast=())
    log = push_header(FEATURES) + push_command(table.encode(), 0)
    assert len(log) < len(HEADER) + MAX_COMMAND + 100
    found = decode(log)
    assert [each.part for each in found.missing] == ["mac_table"]
    assert f"at most {MAX_COMMAND} bytes" in found.missing[0].why


def _changed(at: int, data: bytes, of: bytes = LOG) -> bytes:
    return of[:at] + data + of[at + len(data) :]


_RECORD = len(HEADER)
_COMMAND = len(HEADER) + len(RECORDS[0])
_OTHER = b'{"version":1,"features":["CTRL_VQ"]}'


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "begins with VDPADLOG"),
        (_changed(7, b"F"), "begins with VDPADLOG"),
        (_changed(8, b"\2"), "version 1, got version 2"),
        (_changed(8, b"\0"), "version 1, got version 0"),
        (_changed(12, b"\1"), "expected 0 behind the version, got 0x1"),
        (_changed(_COMMAND, b"\xff\xff\xff\xff"), "at most 262145 bytes, got 4294967295"),
        (_changed(_COMMAND, b"\2\0\4\0"), "at most 262145 bytes, got 262146"),
        (_changed(_COMMAND, b"\1\0\4\0"), r"expected 262145 bytes, got \d\d to the end"),
        (_changed(_COMMAND + 4, b"\0"), r"kind 1 \(COMMAND\), 2 \(RESET\), 3 \(STATE\), got 0"),
        (_changed(_COMMAND + 4, b"\4"), f"byte {_COMMAND}: .* got 4"),
        (_changed(_COMMAND + 4, b"\2"), "RESET: expected 16 bytes, got 4"),
        (_changed(_COMMAND + 6, b"\1"), "COMMAND: expected zeros"),
        (LOG + _changed(5, b"\1", RESET), "RESET: expected zeros"),
        (LOG + RECORDS[0], "STATE: expected a state behind the header"),
        (_changed(_RECORD + 8, b"["), "STATE: expected"),
        (_changed(_RECORD + 8, b'{"version":2'), "STATE: expected a state, got one that is wrong"),
        (HEADER + bytes([len(_OTHER), 0, 0, 0, 3, 0, 0, 0]) + _OTHER, "the header's features"),
        (LOG + bytes(MAX_SIZE), f"at most {MAX_SIZE} bytes, got more; have its VMM begin"),
    ],
    ids=lambda value: repr(value[-20:]),
)
def test_what_is_none_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        decode(data)


def test_cut_anywhere_but_between_records_it_is_refused() -> None:
    ends, at = {len(HEADER)}, len(HEADER)
    for record in (*RECORDS, RESET, RECORDS[-1]):
        at += len(record)
        ends.add(at)
    for length in range(len(WHOLE)):
        if length in ends:
            assert decode(WHOLE[:length]).state is not None
        else:
            with pytest.raises(FormatError):
                decode(WHOLE[:length])


def test_whatever_is_done_to_the_bytes_there_is_an_error_or_an_answer() -> None:
    chance = random.Random(17)
    records = [*RECORDS[1:], RESET]
    states = refused = invalid = 0
    for _ in range(5_000):
        chance.shuffle(records)
        data = bytearray(HEADER + b"".join((RECORDS[0], *records)[chance.randrange(2) :]))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 2, 5, chance.randrange(256)))
        if chance.random() < 0.1:
            del data[chance.randrange(len(data)) :]
        try:
            found = decode(bytes(data))
        except FormatError:
            refused += 1
            continue
        assert (found.state is None) is bool(found.problems)
        states += found.state is not None
        invalid += bool(found.missing)
    assert min(states, refused, invalid) > 100


@given(st.binary(max_size=100))
def test_no_bytes_behind_a_header_are_a_crash(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        decode(HEADER + data)


@pytest.mark.parametrize(
    "record", [push_command(b"", 0), RECORDS[1], RESET, push_command(bytes([9]) * 1000, 0)]
)
def test_memory_does_not_grow_with_the_records(record: bytes) -> None:
    data = HEADER + record * ((MAX_SIZE - len(HEADER)) // len(record) // 16)
    tracemalloc.start()
    try:
        decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(data)


def test_the_longest_state_fits() -> None:
    macs = [f"02:00:{number.to_bytes(4, 'big').hex(':')}" for number in range(65_536)]
    state = net_state(mac_table={"unicast": macs, "multicast": []})
    assert decode(encode(state)).state is not None
