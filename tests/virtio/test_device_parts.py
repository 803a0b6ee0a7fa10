"""Device parts on the wire: sizes, reserved bytes, parts that are there twice.

Every part is written by hand from the specification's structures.
"""

import re
from collections.abc import Callable

import pytest

from vdpad.virtio.device_parts import (
    MAX_BYTES,
    MAX_PARTS,
    MAX_SETTING_BYTES,
    DevicePart,
    PartError,
    PartType,
    pull_parts,
    push_part,
)

# type, flags, reserved   selector   length   value
DEV_FEATURES = "0001 01 00  0000000000000000  08000000  ffffffffffffffff"
DRV_FEATURES = "0101 00 00  0000000000000000  10000000  0000020001000000 0200000000000000"
NUM_QUEUES = "0201 00 00  1200000000000000  02000000  0500"
DEVICE_STATUS = "0301 00 00  0000000000000000  01000000  0f"
VQ_2 = (
    "0401 00 00  0200000000000000  20000000"
    "0001 ffff 0100 0000  0010000000000000 0020000000000000 0030000000000000"
)
NOTIFY_2 = "0501 00 00  0200000000000000  08000000  0200 0000 00000000"
MQ_PAIRS = "0002 00 00  0400000000000000  02000000  0300"
NEW_COMMON = "0601 00 00  0102030405060708  00000000"
NEW_NET = "0102 00 00  0102030405060708  0c000000  000102030405060708090a0b"
PARTS = (
    *(DEV_FEATURES, DRV_FEATURES, NUM_QUEUES, DEVICE_STATUS, VQ_2, NOTIFY_2, MQ_PAIRS),
    *(NEW_COMMON, NEW_NET),
)
NAMES = [
    *("DEV_FEATURES", "DRV_FEATURES", "PCI_COMMON_CFG", "DEVICE_STATUS", "VQ_CFG"),
    *("VQ_NOTIFY_CFG", "CVQ_CFG_PART MQ_VQ_PAIRS_SET", "part 0x106", "part 0x201"),
]
ALL = bytes.fromhex("".join(PARTS))


def pulled(wire: str) -> list[DevicePart]:
    return list(pull_parts(bytes.fromhex(wire)))


def refused(wire: str, message: str) -> None:
    """Whether the part is refused with this, behind a part that is not."""
    with pytest.raises(PartError, match=re.escape(message)) as error:
        pulled(DEVICE_STATUS + wire)
    assert str(error.value).startswith("byte 17")


def test_parts_are_read_one_behind_the_other() -> None:
    parts = list(pull_parts(ALL))
    assert [part.name for part in parts] == NAMES
    assert [part.at for part in parts] == [0, 24, 56, 74, 91, 139, 163, 181, 197]
    assert [part.optional for part in parts] == [True] + [False] * 8
    assert parts[2].selector == bytes.fromhex("1200000000000000")
    assert parts[6].code == (4, 0)
    assert parts[8].value == bytes(range(12))


def test_no_bytes_are_no_parts() -> None:
    assert pulled("") == []


def test_a_part_is_written_as_it_is_read() -> None:
    assert push_part(PartType.CVQ_CFG_PART, b"\4\0", b"\3\0") == bytes.fromhex(MQ_PAIRS)
    assert push_part(PartType.DEVICE_STATUS, b"", b"\x0f") == bytes.fromhex(DEVICE_STATUS)


def test_bytes_that_end_within_a_part_are_refused() -> None:
    ends = {part.at for part in pull_parts(ALL)} | {len(ALL)}
    for length in range(len(ALL)):
        if length in ends:
            continue
        at = max(end for end in ends if end < length)
        with pytest.raises(PartError, match=rf"^byte {at}[:,].* bytes, got \d+$"):
            list(pull_parts(ALL[:length]))


def test_what_is_left_is_told() -> None:
    refused("0301 00", "byte 17: expected a part's header of 16 bytes, got 3")
    refused(MQ_PAIRS[:-2], "MQ_VQ_PAIRS_SET: expected a value of 2 bytes, got 1")
    refused("0102 00 00 0000000000000000 ffffffff 00", "expected a value of 4294967295 bytes, got")


def test_reserved_types_are_refused() -> None:
    assert pulled("ff05 00 00 0000000000000000 00000000")[0].name == "part 0x5ff"
    refused("0006 00 00 0000000000000000 00000000", "part 0x600: expected a type below 0x600")
    refused("ffff 01 00 0000000000000000 00000000", "part 0xffff: expected a type below 0x600")


@pytest.mark.parametrize("wire", PARTS)
@pytest.mark.parametrize("flags", ["02", "80", "ff"])
def test_only_the_flag_that_is_defined_is_taken(wire: str, flags: str) -> None:
    refused(wire[:5] + flags + wire[7:], f"expected flags 0 or 1, got {int(flags, 16):#x}")


@pytest.mark.parametrize("wire", PARTS)
def test_the_reserved_byte_is_zero(wire: str) -> None:
    refused(wire[:8] + "01" + wire[10:], "expected a reserved byte of 0, got 0x1")


@pytest.mark.parametrize(
    ("wire", "used"),
    [
        *((DEV_FEATURES, 0), (DRV_FEATURES, 0), (NUM_QUEUES, 4), (DEVICE_STATUS, 0)),
        *((VQ_2, 2), (NOTIFY_2, 2), (MQ_PAIRS, 2), (NEW_COMMON, 8), (NEW_NET, 8)),
    ],
)
def test_a_selector_has_zeros_where_its_part_does_not_use_it(wire: str, used: int) -> None:
    for at in range(8):
        changed = bytearray.fromhex(wire)
        changed[4 + at] = 0x40
        if at < used:
            assert pulled(changed.hex())[0].selector[at] == 0x40
        else:
            refused(changed.hex(), f"expected a selector with zeros from its byte {used} on")


def _of_length(wire: str) -> Callable[[int], str]:
    header = bytes.fromhex(wire)[:12].hex()
    return lambda length: header + length.to_bytes(4, "little").hex() + "00" * length


@pytest.mark.parametrize(
    ("wire", "taken"),
    [
        (DEV_FEATURES, {8, 16, 24, 32}),
        (DRV_FEATURES, {8, 16, 24, 32}),
        (NUM_QUEUES, {1, 2, 4, 8}),
        (DEVICE_STATUS, {1}),
        (VQ_2, {32}),
        (NOTIFY_2, {8}),
        (MQ_PAIRS, set(range(40))),
        (NEW_COMMON, set(range(40))),
    ],
)
def test_a_value_has_the_length_of_its_type(wire: str, taken: set[int]) -> None:
    part = _of_length(wire)
    for length in range(40):
        if length in taken:
            assert pulled(part(length))[0].value == bytes(length)
        else:
            with pytest.raises(
                PartError, match=rf"expected a value of .*, got a length of {length}$"
            ):
                pulled(part(length))


def test_a_setting_of_more_bytes_than_any_table_has_is_refused() -> None:
    part = _of_length(MQ_PAIRS)
    assert pulled(part(MAX_SETTING_BYTES))
    with pytest.raises(PartError, match=f"at most {MAX_SETTING_BYTES} bytes"):
        pulled(part(MAX_SETTING_BYTES + 1))


def test_more_bytes_than_any_device_has_are_refused() -> None:
    part = _of_length(NEW_NET)
    assert pulled(part(MAX_BYTES - 16))
    with pytest.raises(PartError, match=f"expected at most {MAX_BYTES} bytes"):
        pulled(part(MAX_BYTES - 15))


def test_more_parts_than_any_device_has_are_refused() -> None:
    empty = bytes.fromhex("1001 00 00 0000000000000000 00000000")
    assert len(list(pull_parts(empty * MAX_PARTS))) == MAX_PARTS
    with pytest.raises(PartError, match=f"expected at most {MAX_PARTS} device parts"):
        list(pull_parts(empty * (MAX_PARTS + 1)))


@pytest.mark.parametrize("wire", PARTS[:7])
def test_a_part_is_there_once(wire: str) -> None:
    with pytest.raises(PartError, match=r"expected one part with this selector, got a second"):
        pulled(wire + DEVICE_STATUS.replace("0301", "0601") + wire)


@pytest.mark.parametrize("wire", [NUM_QUEUES, VQ_2, NOTIFY_2, MQ_PAIRS])
def test_parts_of_one_type_differ_by_their_selectors(wire: str) -> None:
    other = bytearray.fromhex(wire)
    other[5] = 1
    assert len(pulled(wire + other.hex())) == 2


def test_parts_that_are_not_known_may_be_there_twice() -> None:
    assert len(pulled(NEW_NET + NEW_COMMON + NEW_NET)) == 3


def test_a_setting_is_named_by_its_command() -> None:
    codes = ("0401", "0700", "0901")
    wire = "".join(f"0002 0000 {code}000000000000 00000000" for code in codes)
    names = [part.name.removeprefix("CVQ_CFG_PART ") for part in pulled(wire)]
    assert names == ["MQ_RSS_CONFIG", "HASH_TUNNEL_SET", "9.1"]
