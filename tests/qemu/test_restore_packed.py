"""A lent ring of QEMU's that is packed, or in order: what QEMU says of what was restored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.availability import skip_or_fail
from vdpad.client import Client
from vdpad.virtio.features import Feature

from .guestless import Guestless, Options, guestless
from .lender import Json, lent_target, refused, restore
from .states import (
    EVERY_VLAN,
    EVERYTHING,
    EVERYTHING_COMMANDS,
    SAMPLE,
    SAMPLE_COMMANDS,
    SAMPLE_VLANS,
    mac,
    settings_at_reset,
    state_of,
    vlans,
)
from .versions import TRIXIE, TRIXIE_BACKPORTS, Version, why_unavailable


def place(position: int, size: int) -> Json:
    """Where a ring stands so many descriptors behind its beginning, as a lender says it."""
    at, wrap = position % size, 1 - position // size % 2
    return {"next_available": at, "next_used": at, "available_wrap": wrap, "used_wrap": wrap}


def assert_restored(report: Json, qemu: Guestless, commands: int, before: int = 0) -> None:
    """Everything was applied, and the ring is handed back behind that."""
    assert report["outcome"] == "restored"
    assert report["applied"] == report["commands"] == commands
    assert (report["rejected"], report["unanswered"]) == ([], [])
    assert "notes" not in report
    assert not report["device_must_reset"]
    assert report["ring"] == place(before + 2 * commands, qemu.lend.ring_size)


@pytest.mark.parametrize("ring_size", [2, 63, 64, 100, 256])
async def test_everything(vdpad: Client, ring_size: int, without: frozenset[int]) -> None:
    options = Options(
        packed=True,
        ring_size=ring_size,
        without=without,
        device_properties=EVERYTHING.properties,
    )
    at_reset = await settings_at_reset(options)
    async with guestless(options) as qemu:
        before = await qemu.rx_filter()
        report = await restore(vdpad, qemu, state_of(qemu, EVERYTHING.parts))
        assert_restored(report, qemu, EVERYTHING_COMMANDS)
        assert report["doorbells"] == qemu.kicks
        after = await qemu.rx_filter()
        assert after == replace(before, **EVERYTHING.shown)
        assert set(after.vlan_table) == EVERY_VLAN
        assert await qemu.settings() == replace(at_reset, **EVERYTHING.streamed)


async def test_every_qemu_serves_one(vdpad: Client, program: str) -> None:
    async with guestless(Options(qemu=program, packed=True)) as qemu:
        before = await qemu.rx_filter()
        report = await restore(vdpad, qemu, state_of(qemu, SAMPLE.parts))
        assert_restored(report, qemu, SAMPLE_COMMANDS)
        assert await qemu.rx_filter() == replace(before, **SAMPLE.shown)


@pytest.mark.parametrize("ring_size", [7, 8])
async def test_one_restore_after_another_at_every_place_of_a_ring(
    vdpad: Client, ring_size: int, without: frozenset[int]
) -> None:
    async with guestless(Options(packed=True, ring_size=ring_size, without=without)) as qemu:
        position, seen = 0, set()
        for turn in range(2 * ring_size):
            one = mac(f"52:54:00:00:01:{turn:02x}") | vlans([[turn, turn + 1]], frozenset())
            report = await restore(
                vdpad,
                qemu,
                state_of(qemu, one.parts),
                lent_target(qemu, ring=place(position, ring_size)),
            )
            assert_restored(report, qemu, 3, position)
            assert (await qemu.rx_filter()).main_mac == one.shown["main_mac"]
            position += 6
            seen.add(position % (2 * ring_size))
        assert len(seen) == ring_size
        assert (await qemu.rx_filter()).vlan_table == tuple(range(2 * ring_size + 1))


@pytest.mark.parametrize("wrong", [{"next_used": 2}, {"used_wrap": 0}, {"next_available": 64}])
async def test_a_ring_that_says_that_it_is_not_idle(vdpad: Client, wrong: Json) -> None:
    async with guestless(Options(packed=True)) as qemu:
        state = state_of(qemu, SAMPLE.parts)
        refusal = await refused(vdpad, qemu, state, lent_target(qemu, ring=wrong))
        assert (refusal.code, refusal.kind) == (-32010, "bad-lend")
        assert qemu.kicks == 0
        report = await restore(vdpad, qemu, state)
        assert_restored(report, qemu, SAMPLE_COMMANDS)
        assert (await qemu.rx_filter()).vlan_table == SAMPLE_VLANS


async def test_a_ring_that_stands_elsewhere_than_its_lender_says_is_not_served(
    vdpad: Client,
) -> None:
    """The device looks at its own place: no command is done, and none is told as done."""
    async with guestless(Options(packed=True)) as qemu:
        before = await qemu.rx_filter()
        target = lent_target(qemu, ring=place(10, 64))
        refusal = await refused(vdpad, qemu, state_of(qemu, SAMPLE.parts), target, deadline_ms=200)
        report = refusal.data["report"]
        assert (refusal.kind, report["applied"]) == ("timeout", 0)
        assert (report["ring"], report["device_must_reset"]) == (None, True)
        assert await qemu.rx_filter() == before


@pytest.mark.parametrize("version", [TRIXIE, TRIXIE_BACKPORTS], ids=str)
@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
async def test_a_ring_in_order(
    vdpad: Client, version: Version, packed: bool, without: frozenset[int]
) -> None:
    """QEMU has the feature since 9.2."""
    skip_or_fail(why_unavailable(version))
    options = Options(
        qemu=version.program,
        packed=packed,
        without=without,
        also=frozenset({Feature.IN_ORDER}),
        device_properties="in_order=on",
    )
    parts = SAMPLE | vlans([[1, 330]], frozenset(range(1, 331)))
    async with guestless(options) as qemu:
        before = await qemu.rx_filter()
        report = await restore(vdpad, qemu, state_of(qemu, parts.parts))
        assert (report["outcome"], report["applied"]) == ("restored", report["commands"])
        assert await qemu.rx_filter() == replace(before, **parts.shown)
