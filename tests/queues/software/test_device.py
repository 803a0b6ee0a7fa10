"""The software device as its borrower sees it: what it lends, serves, and forgets."""

import asyncio
import fcntl
import os
import struct
from dataclasses import replace

import pytest

from tests.support.batches import mixed, settings_after, vlans
from tests.support.descriptors import no_descriptor_left
from tests.support.devices import borrowed, config, memory_of, read_words, running, send
from tests.support.marks import with_and_without_event_idx
from vdpad.queues import eventfds
from vdpad.queues.control_queue import split_ring
from vdpad.queues.lent_indices import Indices
from vdpad.queues.software.device import ALL_FEATURES, SoftwareConfig, SoftwareDevice
from vdpad.queues.software.misbehaviour import Fault, Misbehaviour, Order
from vdpad.restore.replay import Outcome
from vdpad.virtio.commands import VlanAdd
from vdpad.virtio.driver_ring import command_descriptors
from vdpad.virtio.features import Feature
from vdpad.virtio.rings import DESC_F_INDIRECT
from vdpad.virtio.split_ring import DESCRIPTOR, SplitGeometry

# --- what it lends ---


@with_and_without_event_idx
@pytest.mark.parametrize("start_index", [0, 65535])
@pytest.mark.parametrize("ring_size", [1, 2, 64, 1024, 32768])
async def test_a_device_lends_an_idle_ring_in_sealed_memory(
    ring_size: int, start_index: int, event_idx: bool
) -> None:
    configured = config(ring_size=ring_size, start_index=start_index, event_idx=event_idx)
    async with running(configured) as device:
        device.geometry.check()
        with borrowed(device, Indices(start_index, start_index)) as queue:
            assert queue.next_index == start_index
        lent = device.lend()
        assert fcntl.fcntl(lent.memory, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        lent.close()


async def test_the_device_s_addresses_are_no_offsets() -> None:
    async with running(config()) as device:
        assert device.geometry.memory.iova > device.geometry.memory.size


async def test_a_stopped_device_leaves_no_descriptor_and_no_task() -> None:
    tasks = asyncio.all_tasks()
    with no_descriptor_left():
        async with running(config()) as device:
            await send(device, vlans(20))
    assert asyncio.all_tasks() == tasks


async def test_a_device_that_was_never_started_can_be_stopped() -> None:
    with no_descriptor_left():
        await SoftwareDevice(config()).stop()


async def test_a_lender_may_go_before_its_borrower() -> None:
    with no_descriptor_left():
        async with running(config()) as device:
            lent = device.lend()
        assert os.fstat(lent.memory).st_size == device.geometry.memory.size
        os.eventfd_write(lent.kick, 1)
        lent.close()


def test_the_default_device_serves_no_ring_feature_that_it_does_not_know() -> None:
    unknown = {
        Feature.RING_PACKED,
        Feature.IN_ORDER,
        Feature.NOTIFICATION_DATA,
        Feature.NOTIFY_ON_EMPTY,
    }
    assert not unknown & ALL_FEATURES
    assert {Feature.RING_INDIRECT_DESC, Feature.RING_EVENT_IDX} <= ALL_FEATURES
    assert SoftwareConfig().features == ALL_FEATURES


@with_and_without_event_idx
async def test_a_ring_that_is_lent_asks_for_the_first_doorbell(event_idx: bool) -> None:
    async with running(config(start_index=7, event_idx=event_idx)) as device:
        words = read_words(memory_of(device), device.geometry)
        assert (words.used_flags, words.avail_event) == (0, 7 if event_idx else 0)


def test_the_default_device_is_no_legacy_one() -> None:
    assert Feature.VERSION_1 in ALL_FEATURES
    assert Feature.GSO not in ALL_FEATURES


# --- what it does ---


async def test_no_doorbell_is_heard_later_than_the_first_however_many_there_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(eventfds, "_CALLS_IN_A_ROW", 0)
    now = asyncio.get_running_loop().time
    async with running(config()) as device:
        for number in range(1, 4):
            assert (await send(device, vlans(3))).replayed.outcome is Outcome.RESTORED
            assert (device.doorbells_heard, now()) == (number, 0.0)
            device.reset()


async def test_nothing_is_served_before_the_doorbell_until_the_device_looks_by_itself() -> None:
    async with running(config()) as device:
        with borrowed(device) as queue:
            iova, ring = device.geometry.buffers.iova, split_ring(queue)
            ring.buffers[:5] = b"\xff" + VlanAdd(7).encode()
            ring.descriptors[:32] = command_descriptors([(0, iova + 1, 4, iova)])
            ring.place(0, b"\0\0")
            ring.publish(1)
            await asyncio.sleep(50.0)
            assert (ring.used_index(), ring.buffers[0]) == (0, 0xFF)
            await asyncio.sleep(50.0)
            assert (ring.used_index(), ring.buffers[0]) == (1, 0)


@pytest.mark.parametrize("negotiated", [False, True])
async def test_an_indirect_chain_is_served_where_it_was_negotiated(negotiated: bool) -> None:
    configured = config()
    if not negotiated:
        features = configured.features - {Feature.RING_INDIRECT_DESC}
        configured = replace(configured, features=features)
    async with running(configured) as device:
        with borrowed(device) as queue:
            iova, ring = device.geometry.buffers.iova, split_ring(queue)
            ring.buffers[:5] = b"\xff" + VlanAdd(7).encode()
            ring.buffers[16:48] = command_descriptors([(0, iova + 1, 4, iova)])
            ring.descriptors[:16] = DESCRIPTOR.pack(iova + 16, 32, DESC_F_INDIRECT, 0)
            ring.place(0, b"\0\0")
            ring.publish(1)
            queue.kick()
            await asyncio.sleep(1.0)
            served = (ring.used_index(), ring.buffers[0], device.net.settings()["vlans"])
            assert served == ((1, 0, [7]) if negotiated else (0, 0xFF, []))


async def test_the_time_that_serving_took_is_counted() -> None:
    async with running(config()) as device:
        await send(device, vlans(50))
        assert device.busy_ns > 0


@pytest.mark.parametrize("order", Order)
async def test_commands_are_carried_out_as_sent_whatever_the_order_of_their_return(
    order: Order,
) -> None:
    commands = mixed(30)
    async with running(config(ring_size=256, order=order)) as device:
        sent = await send(device, commands)
        assert device.net.settings() == settings_after(device.config, commands)
    assert isinstance(device.geometry, SplitGeometry)
    used = device.geometry.used - device.geometry.memory.iova + 4
    heads = [head for head, _ in struct.iter_unpack("<II", sent.memory[used : used + 8 * 30])]
    as_sent = list(range(0, 60, 2))
    assert sorted(heads) == as_sent
    expected = {Order.AS_SENT: heads == as_sent, Order.REVERSED: heads == as_sent[::-1]}
    assert expected.get(order, heads not in (as_sent, as_sent[::-1]))


async def test_a_refused_command_is_not_carried_out() -> None:
    async with running(config(faults={1: Fault.ERR})) as device:
        await send(device, vlans(3))
        assert device.net.settings()["vlans"] == [0, 2]


@pytest.mark.parametrize("fault", [Fault.STALE_ACK, Fault.STRANGE_ACK, Fault.SILENCE])
async def test_a_command_without_an_honest_ack_is_not_carried_out(fault: Fault) -> None:
    async with running(config(faults={1: fault})) as device:
        await send(device, vlans(2), seconds=0.5)
        assert device.net.settings()["vlans"] == [0]


# --- reset ---


@with_and_without_event_idx
async def test_a_reset_brings_ring_and_settings_back_to_the_start(event_idx: bool) -> None:
    async with running(config(event_idx=event_idx, start_index=9)) as device:
        fresh, memory = device.net.settings(), memory_of(device)
        await send(device, vlans(20))
        device.reset()
        assert device.net.settings() == fresh
        assert memory_of(device) == memory
        sent = await send(device, vlans(20), indices=Indices(9, 9))
        assert sent.replayed.outcome is Outcome.RESTORED


async def test_a_reset_wakes_a_silent_device() -> None:
    async with running(config(faults={0: Fault.SILENCE})) as device:
        assert (await send(device, vlans(3), seconds=0.5)).replayed.outcome is Outcome.INCOMPLETE
        device.reset(Misbehaviour())
        assert (await send(device, vlans(3))).replayed.outcome is Outcome.RESTORED


async def test_after_a_reset_positions_are_counted_from_the_start() -> None:
    async with running(config(faults={1: Fault.ERR})) as device:
        for _ in range(2):
            assert (await send(device, vlans(3))).replayed.rejected == (1,)
            device.reset()


async def test_a_reset_takes_away_what_a_slow_device_was_working_on() -> None:
    async with running(config(seconds_a_command=10.0)) as device:
        await send(device, vlans(4), seconds=1.0)
        device.reset(Misbehaviour())
        await asyncio.sleep(100.0)
        assert device.net.settings()["vlans"] == []
        assert read_words(memory_of(device), device.geometry).used_index == 0


# --- a hostile driver ---


@with_and_without_event_idx
async def test_after_a_chain_that_makes_no_sense_a_device_does_nothing_until_it_is_reset(
    event_idx: bool,
) -> None:
    async with running(config(event_idx=event_idx)) as device:
        with borrowed(device) as queue:
            iova = device.geometry.buffers.iova
            split_ring(queue).descriptors[:16] = DESCRIPTOR.pack(iova, 16, DESC_F_INDIRECT, 0)
            split_ring(queue).place(0, b"\0\0")
            split_ring(queue).publish(1)
            queue.kick()
            await asyncio.sleep(1.0)
            assert split_ring(queue).used_index() == 0
        device.reset()
        assert (await send(device, vlans(3))).replayed.outcome is Outcome.RESTORED
