"""Commands as bytes: what is not known, or is not as it should be, goes on unchanged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.commands import COMMANDS
from vdpad.virtio.commands import Command, DecodeError, MqHashConfig, VlanAdd, decode_command
from vdpad.virtio.raw_command import RawCommand, decode_or_raw


@given(st.binary(min_size=2, max_size=80))
def test_whatever_has_a_class_and_a_command_goes_on_as_it_came(readable: bytes) -> None:
    command = decode_or_raw(readable)
    assert command.encode() == readable
    if isinstance(command, RawCommand):
        assert not _is_written_so(readable)


def _is_written_so(readable: bytes) -> bool:
    try:
        return decode_command(readable).encode() == readable
    except DecodeError:
        return False


@given(COMMANDS)
def test_a_command_that_is_known_is_decoded(command: Command) -> None:
    assert decode_or_raw(command.encode()) == command


@pytest.mark.parametrize("readable", [b"", b"\x02"])
def test_what_has_no_class_and_command_is_none(readable: bytes) -> None:
    with pytest.raises(DecodeError, match=f"a class and a command, got {len(readable)} bytes"):
        decode_or_raw(readable)


def test_linux_s_hash_config_with_words_that_are_not_zero_is_raw() -> None:
    """It is understood, and passed on as it came."""
    wire = bytes.fromhex("04 02  00000000 0000000000000100  00")
    assert isinstance(decode_command(wire), MqHashConfig)
    assert decode_or_raw(wire) == RawCommand((4, 2), wire[2:])


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (RawCommand((9, 3), b""), "class=9 command=3 size=0 data="),
        (RawCommand((255, 0), bytes.fromhex("00ff10")), "class=255 command=0 size=3 data=00ff10"),
        (RawCommand((8, 1), bytes(32)), f"class=8 command=1 size=32 data={'00' * 32}"),
        (RawCommand((8, 1), bytes(100000)), f"class=8 command=1 size=100000 data={'00' * 32}"),
    ],
)
def test_a_report_line_has_its_numbers_and_its_first_bytes(
    command: RawCommand, arguments: str
) -> None:
    assert command.NAME == "RAW"
    assert command.arguments() == arguments


def test_the_same_bytes_known_and_raw_are_not_equal() -> None:
    raw = RawCommand((2, 0), b"\x2a\0")
    assert raw.encode() == VlanAdd(42).encode()
    assert {raw, VlanAdd(42), RawCommand((2, 0), b"\x2a\0")} == {raw, VlanAdd(42)}
