"""Each command against bytes written from the specification's tables, not from our encoder."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.commands import BY_CLASS, COMMANDS
from vdpad.virtio import commands
from vdpad.virtio.commands import (
    AnnounceAck,
    CoalRxSet,
    CoalTxSet,
    CoalVqGet,
    CoalVqSet,
    Command,
    DecodeError,
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
    decode_command,
)
from vdpad.virtio.config import HashType

# The key that every receive-side-scaling manual prints.
KEY_HEX = (
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)  # fmt: skip
KEY = bytes.fromhex(KEY_HEX)


class Vector(NamedTuple):
    """A command, its bytes, the feature's number that permits it, and its report line."""

    command: Command
    wire: str
    feature: int
    arguments: str


VECTORS = (
    Vector(RxPromisc(True), "00 00 01", 18, "on=1"),
    Vector(RxPromisc(False), "00 00 00", 18, "on=0"),
    Vector(RxAllMulti(True), "00 01 01", 18, "on=1"),
    Vector(RxAllUni(True), "00 02 01", 20, "on=1"),
    Vector(RxNoMulti(False), "00 03 00", 20, "on=0"),
    Vector(RxNoUni(True), "00 04 01", 20, "on=1"),
    Vector(RxNoBcast(True), "00 05 01", 20, "on=1"),
    Vector(
        MacTableSet(
            (bytes.fromhex("525400000007"),),
            (bytes.fromhex("01005e000001"), bytes.fromhex("333300000001")),
        ),
        "01 00  01000000 525400000007  02000000 01005e000001 333300000001",
        18,
        "unicast=1 multicast=2",
    ),
    Vector(MacTableSet((), ()), "01 00  00000000  00000000", 18, "unicast=0 multicast=0"),
    Vector(
        MacAddrSet(bytes.fromhex("525400123456")),
        "01 01  525400123456",
        23,
        "mac=52:54:00:12:34:56",
    ),
    Vector(VlanAdd(42), "02 00  2a00", 19, "vid=42"),
    Vector(VlanAdd(0x0ABC), "02 00  bc0a", 19, "vid=2748"),
    Vector(VlanDel(4095), "02 01  ff0f", 19, "vid=4095"),
    Vector(AnnounceAck(), "03 00", 21, ""),
    Vector(MqPairsSet(3), "04 00  0300", 22, "pairs=3"),
    Vector(MqPairsSet(0x8000), "04 00  0080", 22, "pairs=32768"),
    Vector(
        MqRssConfig(frozenset({0, 1}), 1, (0, 1, 2, 0x103), 4, KEY),
        f"04 01  03000000  0300  0100  0000 0100 0200 0301  0400  28 {KEY_HEX}",
        60,
        "hash_types=IPv4, TCPv4 table=4 unclassified_queue=1 max_tx_queues=4 key=40",
    ),
    Vector(
        MqRssConfig(frozenset(), 0, (7,), 1, b""),
        "04 01  00000000  0000  0000  0700  0100  00",
        60,
        "hash_types=none table=1 unclassified_queue=0 max_tx_queues=1 key=0",
    ),
    Vector(
        MqHashConfig(frozenset({0, 8, 31}), bytes.fromhex("6d5a56")),
        "04 02  01010080  0000000000000000  03 6d5a56",
        57,
        "hash_types=IPv4, UDP_EX, bit_31 key=3",
    ),
    Vector(
        GuestOffloadsSet(frozenset({1, 7, 61})),
        "05 00  8200000000000020",
        2,
        "offloads=GUEST_CSUM, GUEST_TSO4, RSC_EXT",
    ),
    Vector(CoalTxSet(64, 100), "06 00  40000000 64000000", 53, "max_packets=64 max_usecs=100"),
    Vector(CoalRxSet(32, 50), "06 01  20000000 32000000", 53, "max_packets=32 max_usecs=50"),
    Vector(
        CoalVqSet(3, 16, 0x01020304),
        "06 02  0300 0000 10000000 04030201",
        52,
        "queue=3 max_packets=16 max_usecs=16909060",
    ),
    Vector(
        CoalVqGet(5, 0, 0),
        "06 03  0500 0000 00000000 00000000",
        52,
        "queue=5 max_packets=0 max_usecs=0",
    ),
    Vector(HashTunnelSet(frozenset({4, 7})), "07 00  90000000", 51, "tunnel_types=VXLAN, IPIP"),
)

one_vector = pytest.mark.parametrize(
    "vector", VECTORS, ids=lambda vector: f"{vector.command.NAME}-{vector.wire[6:20]}"
)


def test_every_command_has_a_vector() -> None:
    assert {type(vector.command) for vector in VECTORS} == set(commands.COMMANDS.values())
    assert set(BY_CLASS) == set(commands.COMMANDS.values())


@one_vector
def test_a_command_encodes_to_the_bytes_of_the_specification(vector: Vector) -> None:
    assert vector.command.encode() == bytes.fromhex(vector.wire)


@one_vector
def test_the_bytes_of_the_specification_decode_to_the_command(vector: Vector) -> None:
    assert decode_command(bytes.fromhex(vector.wire)) == vector.command


@one_vector
def test_a_command_truncated_anywhere_is_refused(vector: Vector) -> None:
    wire = bytes.fromhex(vector.wire)
    for length in range(len(wire)):
        with pytest.raises(DecodeError):
            decode_command(wire[:length])


PADDED = {(4, 1), (4, 2)}
"""Commands that end with a key, by their codes."""


@one_vector
def test_a_byte_behind_a_command_is_refused_but_where_linux_pads_a_key(vector: Vector) -> None:
    wire = bytes.fromhex(vector.wire)
    if vector.command.CODE in PADDED:
        assert decode_command(wire + b"\0") == vector.command
        wire += b"\0"
    with pytest.raises(DecodeError):
        decode_command(wire + b"\0")


@one_vector
def test_a_command_names_the_feature_that_permits_it(vector: Vector) -> None:
    assert vector.feature == vector.command.FEATURE


@one_vector
def test_a_command_tells_its_arguments(vector: Vector) -> None:
    assert vector.command.arguments() == vector.arguments


@given(COMMANDS)
def test_what_is_encoded_decodes_to_the_same(command: Command) -> None:
    assert decode_command(command.encode()) == command


@given(COMMANDS, st.data())
def test_no_proper_prefix_of_a_command_is_one(command: Command, data: st.DataObject) -> None:
    wire = command.encode()
    length = data.draw(st.integers(0, len(wire) - 1))
    with pytest.raises(DecodeError):
        decode_command(wire[:length])


RESERVED = {(4, 2): slice(6, 14), (6, 2): slice(4, 6), (6, 3): slice(4, 6)}
"""Where a command's reserved words stand, by its code."""


def _without_reserved(command: Command, wire: bytes) -> bytes:
    """The wire with reserved words of zeros, and nothing behind a key."""
    made = bytearray(wire)
    words = RESERVED.get(command.CODE, slice(0))
    made[words] = bytes(len(made[words]))
    if command.CODE in PADDED and len(made) == len(command.encode()) + 1:
        made.pop()
    return bytes(made)


@given(st.binary(max_size=64))
def test_whatever_decodes_encodes_to_the_same_bytes_but_for_what_is_reserved(wire: bytes) -> None:
    try:
        command = decode_command(wire)
    except DecodeError:
        return
    assert command.encode() == _without_reserved(command, wire)


@given(st.sampled_from(sorted(commands.COMMANDS)), st.binary(max_size=64))
def test_hostile_data_is_a_command_or_refused(code: tuple[int, int], data: bytes) -> None:
    wire = bytes(code) + data
    try:
        command = decode_command(wire)
    except DecodeError:
        return
    assert command.encode() == _without_reserved(command, wire)


def test_a_code_that_is_not_listed_is_refused_and_named() -> None:
    known = set(commands.COMMANDS)
    unknown = [(c, n) for c in range(10) for n in range(8) if (c, n) not in known]
    assert (8, 0) in unknown  # statistics, which carry no state
    assert (3, 1) in unknown
    for code in (*unknown, (255, 255)):
        with pytest.raises(DecodeError, match=f"class {code[0]} and command {code[1]}"):
            decode_command(bytes(code) + b"\0\0")


@pytest.mark.parametrize("code", [(0, n) for n in range(6)])
def test_a_receive_mode_is_0_or_1(code: tuple[int, int]) -> None:
    with pytest.raises(DecodeError, match="expected 0 or 1, got 2"):
        decode_command(bytes((*code, 2)))


@pytest.mark.parametrize("reserved", ["0000000000000100", "0100000000000000", "ff" * 8])
def test_reserved_words_of_a_hash_config_are_passed_over(reserved: str) -> None:
    """The first are Linux 6.12's, without RSS."""
    wire = bytes.fromhex(f"04 02  01000000  {reserved}  01 6d")
    assert decode_command(wire) == MqHashConfig(frozenset({HashType.IPv4}), b"\x6d")


@pytest.mark.parametrize(("number", "command"), [(2, CoalVqSet), (3, CoalVqGet)])
@pytest.mark.parametrize("reserved", ["0100", "0080", "ffff"])
def test_the_reserved_word_of_a_queue_s_coalescing_is_passed_over(
    number: int, command: Callable[[int, int, int], Command], reserved: str
) -> None:
    """virtio 1.4, 5.1.6.5.8: the device must ignore it."""
    wire = bytes.fromhex(f"06 0{number}  0300 {reserved} 10000000 19000000")
    assert decode_command(wire) == command(3, 16, 25)


@pytest.mark.parametrize(
    "wire",
    [
        "01 00  ffffffff 525400000007",
        "01 00  00000000  ffffffff",
        "01 00  02000000 525400000007  00000000",
    ],
)
def test_a_mac_table_that_announces_more_than_it_has_is_refused(wire: str) -> None:
    with pytest.raises(DecodeError, match="MAC_TABLE_SET"):
        decode_command(bytes.fromhex(wire))


def test_no_two_commands_are_equal_for_having_the_same_value() -> None:
    different: list[Command] = [
        *(mode(True) for mode in (RxPromisc, RxAllMulti, RxAllUni, RxNoMulti, RxNoUni, RxNoBcast)),
        RxPromisc(False),
        VlanAdd(1),
        VlanDel(1),
        MqPairsSet(1),
        CoalTxSet(1, 2),
        CoalRxSet(1, 2),
    ]
    assert len(set(different)) == len(different)
