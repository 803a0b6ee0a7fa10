"""prepare, then commit; and the same asked again, which touches nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vdpad.client import Client, Refused

from .driver import indices
from .guestless import Guestless, Options, guestless
from .lender import (
    assert_restored,
    descriptors,
    lent_target,
    migration,
    refused,
    restore,
)
from .states import SAMPLE, SAMPLE_COMMANDS, mac, state_of


async def test_prepare_touches_nothing_and_commit_restores(
    vdpad: Client, without: frozenset[int]
) -> None:
    async with guestless(Options(without=without)) as qemu:
        before = await qemu.rx_filter()
        name, state, target = migration(), state_of(qemu, SAMPLE.parts), lent_target(qemu)
        prepared = await vdpad.prepare(name, state, target)
        assert (prepared["migration"], prepared["state"]) == (name, "prepared")
        assert (prepared["commands"], prepared["report"]) == (SAMPLE_COMMANDS, None)
        assert prepared["target"] == target
        assert prepared["prepare_us"] > 0
        assert await untouched(qemu)
        assert await qemu.rx_filter() == before

        report = await vdpad.commit(name, fds=descriptors(qemu.lend))
        assert_restored(report, qemu, SAMPLE_COMMANDS)
        assert report["prepare_us"] == prepared["prepare_us"]
        assert report["commit_us"] > 0
        assert report["doorbells"] <= prepared["doorbells"]
        assert await qemu.rx_filter() == replace(before, **SAMPLE.shown)
        assert await vdpad.status(name) == {**prepared, "state": "restored", "report": report}


async def untouched(qemu: Guestless) -> bool:
    """Whether neither doorbell nor ring has been used."""
    return qemu.kicks == 0 and indices(qemu.lend) == (0, 0)


async def test_asked_again_nothing_is_done_again(vdpad: Client) -> None:
    async with guestless() as qemu:
        name, state, target = migration(), state_of(qemu, SAMPLE.parts), lent_target(qemu)
        fds = descriptors(qemu.lend)
        prepared = await vdpad.prepare(name, state, target)
        assert await vdpad.prepare(name, state, target) == prepared
        report = await vdpad.commit(name, fds=fds)
        kicks, filled = qemu.kicks, indices(qemu.lend)
        assert await vdpad.commit(name, fds=fds) == report
        assert await vdpad.commit(name) == report
        assert await vdpad.restore(name, state, target, fds=fds) == report
        assert (await vdpad.prepare(name, state, target))["report"] == report
        assert (qemu.kicks, indices(qemu.lend)) == (kicks, filled)


async def test_another_state_under_the_same_name_is_a_conflict(vdpad: Client) -> None:
    async with guestless() as qemu:
        name, state = migration(), state_of(qemu, SAMPLE.parts)
        prepared = await vdpad.prepare(name, state, lent_target(qemu))
        other_state = state_of(qemu, mac("52:54:00:00:00:55").parts)
        other_target = lent_target(qemu, ring={"next_available": 0})
        for differing in ((other_state, lent_target(qemu)), (state, other_target)):
            refusal = await refused(vdpad, qemu, *differing, name=name)
            assert (refusal.code, refusal.kind) == (-32002, "conflict")
            assert refusal.data["digest"] == prepared["digest"]
        assert await untouched(qemu)
        assert_restored(await vdpad.commit(name, fds=descriptors(qemu.lend)), qemu, SAMPLE_COMMANDS)


async def test_cancelled_is_cancelled(vdpad: Client) -> None:
    async with guestless() as qemu:
        name, state = migration(), state_of(qemu, SAMPLE.parts)
        await vdpad.prepare(name, state, lent_target(qemu))
        assert (await vdpad.cancel(name))["state"] == "cancelled"
        with pytest.raises(Refused) as caught:
            await vdpad.commit(name, fds=descriptors(qemu.lend))
        assert caught.value.kind == "conflict"
        assert await untouched(qemu)
        assert_restored(await restore(vdpad, qemu, state), qemu, SAMPLE_COMMANDS)


async def test_what_was_prepared_for_one_device_is_good_for_its_twin(vdpad: Client) -> None:
    """The descriptors come with the commit: a lender may bring its device up after prepare."""
    async with guestless() as qemu:
        name, state, target = migration(), state_of(qemu, SAMPLE.parts), lent_target(qemu)
        await vdpad.prepare(name, state, target)
    async with guestless() as twin:
        assert lent_target(twin) == target
        before = await twin.rx_filter()
        assert_restored(await vdpad.commit(name, fds=descriptors(twin.lend)), twin, SAMPLE_COMMANDS)
        assert await twin.rx_filter() == replace(before, **SAMPLE.shown)


async def test_a_commit_of_nothing_known(vdpad: Client) -> None:
    async with guestless() as qemu:
        with pytest.raises(Refused) as caught:
            await vdpad.commit(migration(), fds=descriptors(qemu.lend))
        assert (caught.value.code, caught.value.kind) == (-32009, "no-such-migration")
        assert await untouched(qemu)
