"""The lent ring itself: where its indices start, where they end, and whose it is afterwards."""

from __future__ import annotations

import mmap
import struct
from dataclasses import replace

import pytest

from vdpad.client import Client

from .driver import Driver, indices
from .guestless import Guestless, Options, guestless
from .lender import (
    Json,
    assert_restored,
    descriptors,
    lent_target,
    migration,
    refused,
    restore,
)
from .states import SAMPLE, SAMPLE_COMMANDS, SAMPLE_VLANS, mac, state_of, vlans

BEFORE_THE_WRAP = 65500
VLAN_ADD_4000 = b"\x02\x00" + struct.pack("<H", 4000)
ACK_OK = 0


def at(index: int) -> Json:
    """What a lender says that names its ring's indices."""
    return {"next_available": index, "next_used": index}


@pytest.mark.parametrize("said", [True, False], ids=["said", "left-out"])
@pytest.mark.parametrize("start_index", [0, 7, BEFORE_THE_WRAP])
async def test_any_start_index(
    vdpad: Client, start_index: int, said: bool, without: frozenset[int]
) -> None:
    options = Options(start_index=start_index, without=without)
    async with guestless(options) as qemu:
        before = await qemu.rx_filter()
        target = lent_target(qemu, ring=at(start_index) if said else {})
        report = await restore(vdpad, qemu, state_of(qemu, SAMPLE.parts), target)
        assert_restored(report, qemu, SAMPLE_COMMANDS)
        assert await qemu.rx_filter() == replace(before, **SAMPLE.shown)
        await assert_lender_goes_on(qemu, report)


async def assert_lender_goes_on(qemu: Guestless, report: Json) -> None:
    """A driver that starts at the reported index gets a command done and hears of it."""
    table = (await qemu.rx_filter()).vlan_table
    driver = Driver(replace(qemu.lend, start_index=report["ring"]["next_available"]))
    try:
        assert await driver.send(VLAN_ADD_4000) == ACK_OK
    finally:
        driver.close()
    assert (await qemu.rx_filter()).vlan_table == (*table, 4000)


async def test_one_restore_after_another_on_the_same_ring(
    vdpad: Client, without: frozenset[int]
) -> None:
    async with guestless(Options(without=without, start_index=BEFORE_THE_WRAP)) as qemu:
        for vid in range(5):
            start = indices(qemu.lend)[0]
            one = mac(f"52:54:00:00:01:{vid:02x}") | vlans([vid, [10, 40]], frozenset())
            report = await restore(
                vdpad, qemu, state_of(qemu, one.parts), lent_target(qemu, ring=at(start))
            )
            assert report["outcome"] == "restored"
            assert report["ring"] == at((start + 33) & 0xFFFF)
        found = await qemu.rx_filter()
        assert found.main_mac == "52:54:00:00:01:04"
        assert found.vlan_table == (*range(5), *range(10, 41))


async def test_an_empty_state_leaves_the_ring_alone(vdpad: Client) -> None:
    async with guestless(Options(start_index=7)) as qemu:
        before = ring_bytes(qemu)
        report = await restore(vdpad, qemu, state_of(qemu, {}))
        assert (report["outcome"], report["commands"]) == ("restored", 0)
        assert report["ring"] == at(7)
        assert (report["doorbells"], qemu.kicks) == (0, 0)
        assert ring_bytes(qemu) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"next_available": 6},
        {"next_used": 8},
        {"next_available": 6, "next_used": 6},
        {"next_available": 7 + 64},
    ],
    ids=str,
)
async def test_indices_that_the_ring_does_not_have(vdpad: Client, wrong: Json) -> None:
    async with guestless(Options(start_index=7)) as qemu:
        before = ring_bytes(qemu), await qemu.rx_filter()
        state = state_of(qemu, SAMPLE.parts)
        refusal = await refused(vdpad, qemu, state, lent_target(qemu, ring=wrong))
        assert (refusal.code, refusal.kind) == (-32010, "bad-lend")
        assert next(iter(wrong)) in str(refusal)
        assert (ring_bytes(qemu), await qemu.rx_filter()) == before
        report = await restore(vdpad, qemu, state, lent_target(qemu, ring=at(7)))
        assert_restored(report, qemu, SAMPLE_COMMANDS)
        assert (await qemu.rx_filter()).vlan_table == SAMPLE_VLANS


async def test_a_ring_that_is_not_idle(vdpad: Client) -> None:
    async with guestless() as qemu:
        state = state_of(qemu, SAMPLE.parts)
        set_available_index(qemu, 1)
        refusal = await refused(vdpad, qemu, state)
        assert refusal.kind == "bad-lend"
        assert "idle" in str(refusal)
        assert qemu.kicks == 0
        set_available_index(qemu, 0)
        assert_restored(await restore(vdpad, qemu, state), qemu, SAMPLE_COMMANDS)


async def test_descriptors_in_the_wrong_order_and_then_in_the_right_one(vdpad: Client) -> None:
    async with guestless() as qemu:
        name, state, target = migration(), state_of(qemu, SAMPLE.parts), lent_target(qemu)
        memory, kick, call = descriptors(qemu.lend)
        for wrong in ((kick, memory, call), (memory, kick), (), (memory, memory, memory)):
            refusal = await refused(vdpad, qemu, state, target, fds=wrong, name=name)
            assert refusal.kind == "bad-lend"
            assert (await vdpad.status(name))["state"] == "prepared"
        report = await vdpad.restore(name, state, target, fds=(memory, kick, call))
        assert_restored(report, qemu, SAMPLE_COMMANDS)


async def test_nothing_is_written_outside_the_ring_and_its_buffers(vdpad: Client) -> None:
    async with guestless(Options(ring_size=16, buffers_size=4096)) as qemu:
        before = around(qemu)
        report = await restore(vdpad, qemu, state_of(qemu, SAMPLE.parts))
        assert_restored(report, qemu, SAMPLE_COMMANDS)
        assert around(qemu) == before


def ring_bytes(qemu: Guestless) -> bytes:
    """Return the whole ring, the buffers too."""
    lend = qemu.lend
    with mmap.mmap(lend.memory_fd, lend.memory_size) as memory:
        return (
            memory[lend.descriptors : ring_end(qemu)]
            + memory[lend.buffers_iova : lend.buffers_iova + lend.buffers_size]
        )


def around(qemu: Guestless) -> bytes:
    """Return the memory from before the ring to behind its buffers, but for the lent parts."""
    lend = qemu.lend
    with mmap.mmap(lend.memory_fd, lend.memory_size) as memory:
        return (
            memory[lend.descriptors - 4096 : lend.descriptors]
            + memory[ring_end(qemu) : lend.buffers_iova]
            + memory[lend.buffers_iova + lend.buffers_size :]
        )


def ring_end(qemu: Guestless) -> int:
    """Return the first address behind the used ring and its event index."""
    return qemu.lend.used + 4 + 8 * qemu.lend.ring_size + 2


def set_available_index(qemu: Guestless, index: int) -> None:
    """Write the available index, as nobody may who has lent the ring."""
    lend = qemu.lend
    with mmap.mmap(lend.memory_fd, lend.memory_size) as memory:
        struct.pack_into("<H", memory, lend.available + 2, index)
