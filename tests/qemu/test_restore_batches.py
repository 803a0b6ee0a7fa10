"""Long batches through rings of every size, and how often the doorbell is rung for them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.support.daemon import Daemon
from vdpad.client import Client
from vdpad.virtio.features import Feature

from .guestless import Guestless, Options, guestless
from .lender import Json, assert_restored, restore
from .states import (
    EVERY_VLAN,
    EVERYTHING,
    EVERYTHING_COMMANDS,
    WITHOUT_HASHES,
    rx,
    settings_at_reset,
    state_of,
    vlans,
)

RING_SIZES = tuple(1 << bit for bit in range(1, 11))
SOME_HUNDRED = WITHOUT_HASHES | vlans([[1, 330]], frozenset(range(1, 331)))
SOME_HUNDRED_COMMANDS = 330 + 10

# A ring of 64 takes 32 commands: who lets the device run dry rings 128 times at least. Others run
# on this machine too, and cost doorbells; one unlucky run says nothing.
MAX_DOORBELLS = 32
ATTEMPTS = 10


@pytest.mark.parametrize("ring_size", [64, 256])
async def test_everything(vdpad: Client, ring_size: int, without: frozenset[int]) -> None:
    options = Options(ring_size=ring_size, without=without, device_properties=EVERYTHING.properties)
    at_reset = await settings_at_reset(options)
    async with guestless(options) as qemu:
        before = await qemu.rx_filter()
        report = await restore(vdpad, qemu, state_of(qemu, EVERYTHING.parts))
        show(report)
        assert_restored(report, qemu, EVERYTHING_COMMANDS)
        after = await qemu.rx_filter()
        assert after == replace(before, **EVERYTHING.shown)
        assert set(after.vlan_table) == EVERY_VLAN
        assert await qemu.settings() == replace(at_reset, **EVERYTHING.streamed)
    if without:
        assert report["doorbells"] == ring_fuls(EVERYTHING_COMMANDS, ring_size)


async def test_a_device_that_takes_its_time_is_kept_fed(vdpad: Client, daemon: Daemon) -> None:
    """With EVENT_IDX a doorbell is rung only where the device has run dry.

    QEMU's own device, at 0.4 us a command, is through half a ring of 64 before any Python has
    filled the other; a trace event makes it take some 2 us, which is still fast for a real one.
    And where both share a CPU they take turns, a ring-ful each, which scheduling may well choose.
    """
    cpus = os.sched_getaffinity(0)
    skip_or_fail(
        "a device is kept fed from another CPU only, here is one" if len(cpus) < 2 else None
    )
    rung: list[int] = []
    with pinned(daemon.pid, min(cpus)):
        while min(rung, default=MAX_DOORBELLS + 1) > MAX_DOORBELLS and len(rung) < ATTEMPTS:
            async with guestless(Options(device_properties=EVERYTHING.properties)) as qemu:
                await qemu.qmp.execute("trace-event-set-state", name="virtqueue_pop", enable=True)
                with pinned(qemu.pid, max(cpus)):
                    report = await restore(vdpad, qemu, state_of(qemu, EVERYTHING.parts))
                show(report)
                assert_restored(report, qemu, EVERYTHING_COMMANDS)
                rung.append(report["doorbells"])
    assert min(rung) <= MAX_DOORBELLS, rung


@contextmanager
def pinned(pid: int, cpu: int) -> Iterator[None]:
    """Keep a process, all its threads, on one CPU for the time of the context."""
    threads = [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]
    before = os.sched_getaffinity(pid)
    for thread in threads:
        os.sched_setaffinity(thread, {cpu})
    try:
        yield
    finally:
        for thread in threads:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, before)


def show(report: Json) -> None:
    """Print the figures, for `pytest -rP`."""
    print(
        f"{report['commands']} commands: {report['doorbells']} doorbells, "
        f"commit {report['commit_us']} us, prepare {report['prepare_us']} us"
    )


@pytest.mark.parametrize("ring_size", RING_SIZES)
async def test_every_ring_size(vdpad: Client, ring_size: int, without: frozenset[int]) -> None:
    async with guestless(Options(ring_size=ring_size, without=without)) as qemu:
        before = await qemu.rx_filter()
        report = await restore(vdpad, qemu, state_of(qemu, SOME_HUNDRED.parts))
        assert_restored(report, qemu, SOME_HUNDRED_COMMANDS)
        assert await qemu.rx_filter() == replace(before, **SOME_HUNDRED.shown)
    if without:
        assert report["doorbells"] == ring_fuls(SOME_HUNDRED_COMMANDS, ring_size)


@pytest.mark.parametrize("ring_size", RING_SIZES)
async def test_a_batch_that_fits_is_one_doorbell(
    vdpad: Client, ring_size: int, without: frozenset[int]
) -> None:
    commands = ring_size // 2
    async with guestless(Options(ring_size=ring_size, without=without)) as qemu:
        report = await restore(vdpad, qemu, promisc_and_vlans(qemu, commands))
        assert_restored(report, qemu, commands)
        assert report["doorbells"] == qemu.doorbells == 1
        found = await qemu.rx_filter()
        assert not found.promiscuous
        assert found.vlan_table == tuple(range(1, commands))


async def test_one_more_than_fits(vdpad: Client) -> None:
    async with guestless(
        Options(ring_size=64, without=frozenset({Feature.RING_EVENT_IDX}))
    ) as qemu:
        report = await restore(vdpad, qemu, promisc_and_vlans(qemu, 33))
        assert_restored(report, qemu, 33)
        assert report["doorbells"] == 2
        assert (await qemu.rx_filter()).vlan_table == tuple(range(1, 33))


@pytest.mark.parametrize("buffers_size", [32, 63, 200])
async def test_little_room_for_buffers(vdpad: Client, buffers_size: int) -> None:
    """Then it is the buffers that say how many commands go at a time, and not the ring."""
    async with guestless(Options(buffers_size=buffers_size)) as qemu:
        report = await restore(vdpad, qemu, promisc_and_vlans(qemu, 200))
        assert_restored(report, qemu, 200)
        assert (await qemu.rx_filter()).vlan_table == tuple(range(1, 200))


def promisc_and_vlans(qemu: Guestless, commands: int) -> Json:
    """A state of so many commands."""
    if commands == 1:
        return state_of(qemu, rx(promisc=False).parts)
    tagged = vlans([[1, commands - 1]], frozenset(range(1, commands)))
    return state_of(qemu, (rx(promisc=False) | tagged).parts)


def ring_fuls(commands: int, ring_size: int) -> int:
    """How many doorbells a device without EVENT_IDX needs: a command takes two descriptors."""
    return math.ceil(commands / (ring_size // 2))
