"""Each part of a state, alone and all together, restored on QEMU's device and judged by QEMU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vdpad.client import Client
from vdpad.virtio.features import Feature

from .guestless import Options, guestless
from .lender import Json, assert_restored, restore
from .states import PARTS, RSS, TOGETHER, Sample, settings_at_reset, state_of


async def restore_and_judge(vdpad: Client, sample: Sample, options: Options) -> None:
    """Restore a sample; it must change what it should and nothing else."""
    at_reset = await settings_at_reset(options)
    async with guestless(options) as qemu:
        before = await qemu.rx_filter()
        report = await restore(vdpad, qemu, state_of(qemu, sample.parts))
        assert_restored(report, qemu)
        assert await qemu.rx_filter() == replace(before, **sample.shown)
        assert await qemu.settings() == replace(at_reset, **sample.streamed)


@pytest.mark.parametrize("sample", PARTS.values(), ids=PARTS)
async def test_a_part_alone(vdpad: Client, sample: Sample, without: frozenset[int]) -> None:
    options = Options(without=without, device_properties=sample.properties)
    await restore_and_judge(vdpad, sample, options)


@pytest.mark.parametrize("sample", TOGETHER.values(), ids=TOGETHER)
async def test_all_together(vdpad: Client, sample: Sample, without: frozenset[int]) -> None:
    options = Options(without=without, device_properties=sample.properties)
    await restore_and_judge(vdpad, sample, options)


@pytest.mark.parametrize("pairs", [{}, {"queue_pairs": 3}], ids=["no-pairs", "pairs"])
async def test_rss_without_mq(vdpad: Client, pairs: Json) -> None:
    """RSS sets the queue pairs too, so a state with both needs no MQ."""
    sample = Sample(pairs) | RSS
    options = Options(without=frozenset({Feature.MQ}), device_properties=sample.properties)
    await restore_and_judge(vdpad, sample, options)
