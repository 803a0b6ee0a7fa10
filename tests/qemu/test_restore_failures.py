"""Devices that stop or die, lenders that don't forward, clients that go: the daemon serves on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from tests.support.daemon import Daemon
from tests.support.waiting import until
from vdpad.client import Client, Refused
from vdpad.virtio.features import Feature

from .driver import indices
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
from .states import MANY_VLANS, SAMPLE, SAMPLE_COMMANDS, SAMPLE_VLANS, mac, state_of

DEADLINE_MS = 150
LONG_MS = 20_000
REPORT_LINES = 64
LONGER_THAN_A_LOOK = 0.02


@contextmanager
def stopped(qemu: Guestless) -> Iterator[None]:
    """QEMU stands still for the time of the context."""
    os.kill(qemu.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(qemu.pid, signal.SIGCONT)


@asynccontextmanager
async def eventfd() -> AsyncIterator[int]:
    """An eventfd of which the other side hears nothing."""
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def assert_timed_out(refusal: Refused, *, applied: int, commands: int) -> None:
    """The report has all that was not answered, and nothing is claimed of the ring."""
    assert (refusal.code, refusal.kind) == (-32006, "timeout")
    report = refusal.data["report"]
    assert report["outcome"] == "incomplete"
    assert (report["commands"], report["applied"]) == (commands, applied)
    assert (report["rejected"], report["rejected_total"]) == ([], 0)
    assert report["unanswered_total"] == commands - applied
    lines = report["unanswered"]
    assert [line["index"] for line in lines] == list(range(applied, commands))[:REPORT_LINES]
    assert {line["ack"] for line in lines} == {None}
    assert report["device_must_reset"]
    assert report["ring"] is None


async def assert_serves(vdpad: Client) -> None:
    """The daemon restores another device."""
    async with guestless() as other:
        assert_restored(
            await restore(vdpad, other, state_of(other, SAMPLE.parts)), other, SAMPLE_COMMANDS
        )


async def test_a_device_that_stands_still(vdpad: Client, without: frozenset[int]) -> None:
    async with guestless(Options(without=without)) as qemu:
        name, state = migration(), state_of(qemu, SAMPLE.parts)
        with stopped(qemu):
            refusal = await refused(vdpad, qemu, state, name=name, deadline_ms=DEADLINE_MS)
            again = await refused(vdpad, qemu, state, name=name)
        assert_timed_out(refusal, applied=0, commands=SAMPLE_COMMANDS)
        assert again.data == refusal.data
        report = refusal.data["report"]
        assert DEADLINE_MS * 1000 <= report["commit_us"] < 10 * DEADLINE_MS * 1000
        assert report["unanswered"][0] == {
            "index": 0,
            "command": "MAC_ADDR_SET",
            "arguments": "mac=52:54:00:aa:bb:cc",
            "ack": None,
        }
        assert report["unanswered"][REPORT_LINES - 1]["command"] == "VLAN_ADD"
        assert report["doorbells"] == 1
        status = await vdpad.status(name)
        assert (status["state"], status["report"]) == ("failed", report)
        await assert_serves(vdpad)


async def test_what_was_published_stays_the_devices_until_a_reset(vdpad: Client) -> None:
    """A device that wakes up again does what it was given; such a ring can't be lent again."""
    async with guestless(Options(ring_size=64)) as qemu:
        state = state_of(qemu, SAMPLE.parts)
        with stopped(qemu):
            await refused(vdpad, qemu, state, deadline_ms=DEADLINE_MS)
            assert indices(qemu.lend) == (32, 0)
            second = await refused(vdpad, qemu, state)
            assert second.kind == "bad-lend"
            assert indices(qemu.lend) == (32, 0)
        await until(lambda: indices(qemu.lend) == (32, 32))
        assert (await qemu.rx_filter()).vlan_table == tuple(range(1, 30))


async def test_a_standstill_holds_nobody_else_up(vdpad: Client, daemon: Daemon) -> None:
    async with guestless() as qemu, Client(daemon.socket) as other:
        state, name = state_of(qemu, SAMPLE.parts), migration()
        with stopped(qemu):
            stalled = asyncio.create_task(
                restore(vdpad, qemu, state, name=name, deadline_ms=LONG_MS)
            )
            await until(lambda: qemu.kicks > 0)
            assert (await other.status(name))["state"] == "committing"
            busy = await refused(other, qemu, state)
            assert (busy.code, busy.kind) == (-32003, "busy")
            assert busy.data["migration"] == name
            with pytest.raises(Refused, match="commit is running"):
                await other.cancel(name)
            await assert_serves(other)
            assert not stalled.done()
        assert_restored(await stalled, qemu, SAMPLE_COMMANDS)


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_device_that_ends_in_the_middle(vdpad: Client, how: signal.Signals) -> None:
    # With two descriptors and no EVENT_IDX each command is a doorbell of its own.
    async with guestless(Options(ring_size=2, without=frozenset({Feature.RING_EVENT_IDX}))) as qemu:
        state = state_of(qemu, MANY_VLANS.parts)
        task = asyncio.create_task(refused(vdpad, qemu, state, deadline_ms=3 * DEADLINE_MS))
        await until(lambda: qemu.kicks >= 50, every=0)
        os.kill(qemu.pid, how)
        refusal = await task
        applied = refusal.data["report"]["applied"]
        assert 49 <= applied < 4000
        assert_timed_out(refusal, applied=applied, commands=4000)
        assert refusal.data["report"]["unanswered"][0]["arguments"] == f"vid={applied + 1}"
        if how is signal.SIGSTOP:
            os.kill(qemu.pid, signal.SIGCONT)
            table = (await qemu.rx_filter()).vlan_table
            # The one that was under way may have been done since.
            assert table in (tuple(range(1, applied + 1)), tuple(range(1, applied + 2)))
        await assert_serves(vdpad)


async def test_a_device_that_is_dead_from_the_start(vdpad: Client) -> None:
    async with guestless() as qemu:
        name, state, target = migration(), state_of(qemu, SAMPLE.parts), lent_target(qemu)
        await vdpad.prepare(name, state, target)
        os.kill(qemu.pid, signal.SIGKILL)
        with pytest.raises(Refused) as caught:
            await vdpad.commit(name, fds=descriptors(qemu.lend), deadline_ms=DEADLINE_MS)
        assert_timed_out(caught.value, applied=0, commands=SAMPLE_COMMANDS)
        await assert_serves(vdpad)


@pytest.mark.parametrize("ring_size", [2, 64])
async def test_interrupts_that_nobody_forwards(
    vdpad: Client, ring_size: int, without: frozenset[int]
) -> None:
    options = Options(ring_size=ring_size, without=without)
    async with guestless(options) as qemu, eventfd() as unheard:
        fds = (qemu.lend.memory_fd, qemu.lend.kick_fd, unheard)
        report = await restored_by_a_sleeper(vdpad, qemu, fds)
        assert_restored(report, qemu, SAMPLE_COMMANDS)
        assert (await qemu.rx_filter()).vlan_table == SAMPLE_VLANS


async def test_interrupts_wake_a_sleeper(vdpad: Client, without: frozenset[int]) -> None:
    async with guestless(Options(without=without)) as qemu:
        report = await restored_by_a_sleeper(vdpad, qemu, descriptors(qemu.lend))
        assert_restored(report, qemu, SAMPLE_COMMANDS)
        await until(lambda: qemu.interrupts > 0)


async def restored_by_a_sleeper(vdpad: Client, qemu: Guestless, fds: tuple[int, int, int]) -> Json:
    """Restore on a device that begins only when nobody looks at the ring any more."""
    with stopped(qemu):
        task = asyncio.create_task(
            restore(vdpad, qemu, state_of(qemu, SAMPLE.parts), fds=fds, deadline_ms=LONG_MS)
        )
        await until(lambda: qemu.kicks > 0)
        await asyncio.sleep(LONGER_THAN_A_LOOK)
    report = await task
    assert report["commit_us"] > LONGER_THAN_A_LOOK * 1e6
    return report


async def test_doorbells_that_nobody_forwards(vdpad: Client) -> None:
    async with guestless() as qemu, eventfd() as unheard:
        before = await qemu.rx_filter()
        fds = (qemu.lend.memory_fd, unheard, qemu.lend.call_fd)
        state = state_of(qemu, SAMPLE.parts)
        refusal = await refused(vdpad, qemu, state, fds=fds, deadline_ms=DEADLINE_MS)
        assert_timed_out(refusal, applied=0, commands=SAMPLE_COMMANDS)
        assert os.eventfd_read(unheard) == refusal.data["report"]["doorbells"] == 1
        assert await qemu.rx_filter() == before
        assert qemu.kicks == 0


async def test_a_client_that_goes_before_its_reply(vdpad: Client, daemon: Daemon) -> None:
    async with guestless(Options(ring_size=2, without=frozenset({Feature.RING_EVENT_IDX}))) as qemu:
        name = migration()
        async with Client(daemon.socket) as hasty:
            task = asyncio.create_task(
                restore(hasty, qemu, state_of(qemu, MANY_VLANS.parts), name=name)
            )
            await until(lambda: qemu.kicks > 0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        # A client that asks for a migration under way gets its outcome.
        report = await vdpad.commit(name)
        assert_restored(report, qemu, 4000)
        assert (await vdpad.status(name))["report"] == report
        assert (await qemu.rx_filter()).vlan_table == tuple(range(1, 4001))


async def test_no_descriptor_and_no_mapping_is_left_behind(vdpad: Client, daemon: Daemon) -> None:
    async with guestless() as qemu:
        state = state_of(qemu, SAMPLE.parts)
        memory, kick, call = descriptors(qemu.lend)
        before = held(daemon)
        for lend in range(20):
            report = await restore(vdpad, qemu, state)
            assert report["ring"]["next_used"] == (lend + 1) * SAMPLE_COMMANDS
        await until(lambda: held(daemon) == before)
        for wrong in ((call, kick, memory), (memory, kick), (memory, memory, memory)):
            assert (await refused(vdpad, qemu, state, fds=wrong)).kind == "bad-lend"
        refusal = await refused(vdpad, qemu, {**state, "queue_pairs": 9})
        assert refusal.kind == "incompatible"
        assert await vdpad.check(state, lent_target(qemu))
        await vdpad.call("info", fds=(memory, kick, call))
        with stopped(qemu):
            refusal = await refused(vdpad, qemu, state, deadline_ms=DEADLINE_MS)
            assert refusal.kind == "timeout"
        # A thread closes what was lent, for which no reply waits.
        await until(lambda: held(daemon) == before)


def held(daemon: Daemon) -> Json:
    """Return what the daemon holds: its descriptors, and its mappings of lent memory."""
    return {
        "descriptors": sorted(daemon.descriptors().values()),
        "mappings": daemon.mappings("memfd"),
    }


async def test_two_devices_at_once(vdpad: Client, daemon: Daemon) -> None:
    async with guestless() as one, guestless() as two, Client(daemon.socket) as other:
        reports = await asyncio.gather(
            restore(vdpad, one, state_of(one, (MANY_VLANS | mac("52:54:00:00:01:01")).parts)),
            restore(other, two, state_of(two, mac("52:54:00:00:02:02").parts)),
        )
        assert_restored(reports[0], one, 4001)
        assert_restored(reports[1], two, 1)
        found = await one.rx_filter(), await two.rx_filter()
        assert [each.main_mac for each in found] == ["52:54:00:00:01:01", "52:54:00:00:02:02"]
        assert [len(each.vlan_table) for each in found] == [4000, 0]
