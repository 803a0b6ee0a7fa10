"""A lent ring of a device that negotiated neither VERSION_1 nor ANY_LAYOUT.

QEMU reads commands however they are framed; that a legacy device which does not would understand
them too is looked at in tests/restore/test_legacy_framing.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from vdpad.client import Client
from vdpad.virtio.features import Feature

from .guestless import Options, guestless
from .lender import refused, restore
from .states import EVERY_VLAN, EVERYTHING, EVERYTHING_COMMANDS, SAMPLE, settings_at_reset, state_of

LEGACY = frozenset({Feature.VERSION_1, Feature.ANY_LAYOUT})


@pytest.mark.parametrize("ring_size", [4, 64])
async def test_everything(vdpad: Client, ring_size: int, without: frozenset[int]) -> None:
    options = Options(
        ring_size=ring_size,
        without=without | LEGACY,
        device_properties=EVERYTHING.properties,
    )
    at_reset = await settings_at_reset(options)
    async with guestless(options) as qemu:
        assert not qemu.features & LEGACY
        before = await qemu.rx_filter()
        report = await restore(vdpad, qemu, state_of(qemu, EVERYTHING.parts))
        assert report["outcome"] == "restored"
        assert report["applied"] == report["commands"] == EVERYTHING_COMMANDS
        assert report["doorbells"] == qemu.kicks
        end = EVERYTHING_COMMANDS % 65536
        assert report["ring"] == {"next_available": end, "next_used": end}
        after = await qemu.rx_filter()
        assert after == replace(before, **EVERYTHING.shown)
        assert set(after.vlan_table) == EVERY_VLAN
        assert await qemu.settings() == replace(at_reset, **EVERYTHING.streamed)


async def test_a_ring_with_no_room_for_the_longest_chain(vdpad: Client) -> None:
    async with guestless(Options(ring_size=2, without=LEGACY)) as qemu:
        refusal = await refused(vdpad, qemu, state_of(qemu, SAMPLE.parts))
        assert refusal.kind == "bad-lend"
        assert "at least 4 without VERSION_1 and ANY_LAYOUT, got 2" in str(refusal)
        assert qemu.kicks == 0
