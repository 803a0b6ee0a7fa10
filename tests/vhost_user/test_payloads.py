"""The bytes of payloads, against those of the page."""

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdpad.vhost_user import payloads
from vdpad.vhost_user.payloads import (
    ConfigSpace,
    MemoryRegion,
    StateTransfer,
    VringAddresses,
    VringDescriptor,
    VringState,
)

# Each of them, byte by byte, on a machine that is little-endian.
VECTORS: list[tuple[Callable[[Any], bytes], Callable[[bytes], Any], Any, str]] = [
    (payloads.push_u64, payloads.pull_u64, 0x1_4000_0000, "0000004001000000"),
    (
        payloads.push_vring_state,
        payloads.pull_vring_state,
        VringState(2, 256),
        "0200000000010000",
    ),
    (
        payloads.push_vring_addresses,
        payloads.pull_vring_addresses,
        VringAddresses(1, 1, 0x7F0000001000, 0x7F0000003000, 0x7F0000002000, 0x123000),
        "0100000001000000"
        "00100000007f0000"
        "00300000007f0000"  # the used ring stands before the available ring
        "00200000007f0000"
        "0030120000000000",
    ),
    (
        payloads.push_vring_descriptor,
        payloads.pull_vring_descriptor,
        VringDescriptor(3, True),
        "0300000000000000",
    ),
    (
        payloads.push_vring_descriptor,
        payloads.pull_vring_descriptor,
        VringDescriptor(255, False),
        "ff01000000000000",
    ),
    (
        payloads.push_memory_region,
        payloads.pull_memory_region,
        MemoryRegion(0x100000, 0x3F00000, 0x7F0000100000, 0x100000),
        "000000000000000000001000000000000000f0030000000000001000007f00000000100000000000",
    ),
    (
        payloads.push_memory_table,
        payloads.pull_memory_table,
        [MemoryRegion(0, 0xA0000, 0x7F0000000000, 0), MemoryRegion(0xC0000, 0x1000, 1 << 63, 7)],
        "0200000000000000"
        "000000000000000000000a000000000000000000007f00000000000000000000"
        "00000c0000000000001000000000000000000000000000800700000000000000",
    ),
    (
        payloads.push_config,
        payloads.pull_config,
        ConfigSpace(6, 1, b"\x01\x02"),
        "0600000002000000010000000102",
    ),
    (payloads.push_mac, payloads.pull_mac, b"\x52\x54\x00\x12\x34\x56", "5254001234560000"),
    (
        payloads.push_state_transfer,
        payloads.pull_state_transfer,
        StateTransfer(1, 0),
        "0100000000000000",
    ),
]


@pytest.mark.parametrize(("push", "pull", "value", "text"), VECTORS)
def test_bytes_by_the_page(
    push: Callable[[Any], bytes], pull: Callable[[bytes], Any], value: Any, text: str
) -> None:
    assert push(value).hex() == text
    assert pull(bytes.fromhex(text)) == value


@pytest.mark.parametrize(("push", "pull", "value", "text"), VECTORS)
def test_cut_at_every_length(
    push: Callable[[Any], bytes], pull: Callable[[bytes], Any], value: Any, text: str
) -> None:
    """Sizes are checked before; a pull of fewer bytes is never a value of its own."""
    data = bytes.fromhex(text)
    for size in range(len(data)):
        try:
            assert pull(data[:size]) != value
        except struct.error:
            continue


@given(st.lists(st.tuples(*[st.integers(0, (1 << 64) - 1)] * 4), max_size=8))
def test_tables_come_back(fields: list[tuple[int, int, int, int]]) -> None:
    regions = [MemoryRegion(*each) for each in fields]
    data = payloads.push_memory_table(regions)
    assert payloads.pull_memory_table(data) == regions
    assert payloads.memory_table_size(data) == len(data)
