"""The replay on a device that behaves: all is applied, whatever ring, start, order and waiting."""

import asyncio

import pytest

from tests.support.batches import mixed, settings_after, vlans
from tests.support.descriptors import no_descriptor_left
from tests.support.devices import (
    DEADLINE,
    Sent,
    borrowed,
    config,
    has_event_idx,
    memory_of,
    read_words,
    running,
    send,
)
from tests.support.marks import in_bulk, with_and_without_event_idx
from vdpad.queues.lent_indices import Indices
from vdpad.queues.lent_queue import LentQueue
from vdpad.queues.software.device import SoftwareDevice
from vdpad.queues.software.misbehaviour import Fault, Order
from vdpad.restore.program import encode
from vdpad.restore.replay import Outcome, Replayed, replay
from vdpad.virtio.commands import Command, VlanAdd
from vdpad.virtio.raw_command import RawCommand

LONG = 4100


def _assert_restored(sent: Sent, device: SoftwareDevice, commands: tuple[Command, ...]) -> None:
    assert sent.replayed.outcome is Outcome.RESTORED
    assert sent.replayed.fault == ""
    assert sent.applied == set(range(len(commands)))
    assert device.net.settings() == settings_after(device.config, commands)
    end = (device.config.start_index + len(commands)) % 65536
    assert sent.replayed.next_index == end
    assert (sent.words.available_index, sent.words.used_index) == (end, end)


@with_and_without_event_idx
@pytest.mark.parametrize(
    ("ring_size", "count"),
    [
        *((size, 256 * size) for size in (2, 4, 8)),
        *((size, LONG) for size in (64, 256, 1024)),
        *in_bulk((size, LONG) for size in (2, 4, 8)),
    ],
)
async def test_a_long_batch_is_applied_on_a_ring_of_any_size(
    ring_size: int, count: int, event_idx: bool
) -> None:
    commands = mixed(count)
    async with running(config(ring_size=ring_size, event_idx=event_idx)) as device:
        _assert_restored(await send(device, commands), device, commands)


@with_and_without_event_idx
@pytest.mark.parametrize("ring_size", [2, 4, 8, 16])
async def test_a_batch_of_every_short_length_is_applied(ring_size: int, event_idx: bool) -> None:
    for count in range(6, 4 * ring_size + 2):
        commands = mixed(count)
        async with running(config(ring_size=ring_size, event_idx=event_idx)) as device:
            _assert_restored(await send(device, commands), device, commands)


@with_and_without_event_idx
async def test_commands_that_are_not_known_are_sent_as_their_bytes(event_idx: bool) -> None:
    commands = (RawCommand((2, 0), b"\x2a\0"), RawCommand((9, 3), b"abc"), VlanAdd(7))
    async with running(config(event_idx=event_idx)) as device:
        sent = await send(device, commands)
        assert device.net.settings()["vlans"] == [7, 42]
    assert sent.replayed.rejected == (1,)
    assert sent.program.encoded == bytes.fromhex("02002a00 0903616263 02000700")


@with_and_without_event_idx
@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize(("ring_size", "count"), [(4, 256 * 4), (64, LONG), *in_bulk([(4, LONG)])])
async def test_a_device_may_return_commands_in_any_order(
    order: Order, ring_size: int, count: int, event_idx: bool
) -> None:
    commands = mixed(count)
    async with running(config(ring_size=ring_size, event_idx=event_idx, order=order)) as device:
        _assert_restored(await send(device, commands), device, commands)


@with_and_without_event_idx
@pytest.mark.parametrize("start_index", [1, 5, 32767, 65500, 65535])
@pytest.mark.parametrize("order", [Order.AS_SENT, Order.REVERSED])
async def test_a_ring_may_stand_at_any_index(
    start_index: int, order: Order, event_idx: bool
) -> None:
    commands = mixed(100)
    configured = config(event_idx=event_idx, start_index=start_index, order=order)
    async with running(configured) as device:
        _assert_restored(await send(device, commands), device, commands)


@with_and_without_event_idx
async def test_a_long_batch_wraps_the_ring_s_indices(event_idx: bool) -> None:
    commands = mixed(LONG)
    configured = config(ring_size=64, event_idx=event_idx, start_index=65500)
    async with running(configured) as device:
        sent = await send(device, commands)
        _assert_restored(sent, device, commands)
    assert sent.replayed.next_index == 65500 + LONG - 65536


@with_and_without_event_idx
async def test_a_device_that_never_interrupts_is_looked_after(event_idx: bool) -> None:
    commands = mixed(40)
    async with running(config(event_idx=event_idx, interrupts=False)) as device:
        _assert_restored(await send(device, commands), device, commands)


@with_and_without_event_idx
async def test_a_slow_device_is_waited_for(event_idx: bool) -> None:
    commands = mixed(20)
    async with running(config(event_idx=event_idx, seconds_a_command=1.0)) as device:
        _assert_restored(await send(device, commands, seconds=100.0), device, commands)


@with_and_without_event_idx
async def test_an_interrupt_ends_the_wait_at_once_and_a_look_soon_after(event_idx: bool) -> None:
    took: list[float] = []
    for interrupts in (True, False):
        configured = config(event_idx=event_idx, seconds_a_command=0.033, interrupts=interrupts)
        async with running(configured) as device:
            started = asyncio.get_running_loop().time()
            await send(device, vlans(4))
            took.append(asyncio.get_running_loop().time() - started)
    interrupted, looked = took
    assert interrupted == pytest.approx(4 * 0.033)
    assert interrupted < looked <= interrupted + 0.05


@with_and_without_event_idx
async def test_no_commands_touch_nothing(event_idx: bool) -> None:
    async with running(config(event_idx=event_idx, start_index=7)) as device:
        sent = await send(device, ())
        assert device.doorbells_heard == 0
    assert (sent.replayed.outcome, sent.replayed.doorbells) == (Outcome.RESTORED, 0)
    assert sent.replayed.next_index == sent.words.available_index == 7


# --- doorbells ---


@with_and_without_event_idx
@pytest.mark.parametrize("ring_size", [2, 8, 64, 256])
async def test_a_batch_that_fits_the_ring_is_one_doorbell(ring_size: int, event_idx: bool) -> None:
    for count in {1, ring_size // 4, ring_size // 2} - {0}:
        async with running(config(ring_size=ring_size, event_idx=event_idx)) as device:
            sent = await send(device, vlans(count))
            assert sent.replayed.doorbells == device.doorbells_heard == 1
        assert sent.replayed.outcome is Outcome.RESTORED


@with_and_without_event_idx
@pytest.mark.parametrize("ring_size", [2, 8, 64])
async def test_a_longer_batch_rings_no_more_often_than_the_program_says(
    ring_size: int, event_idx: bool
) -> None:
    async with running(config(ring_size=ring_size, event_idx=event_idx)) as device:
        sent = await send(device, vlans(200))
        assert 1 <= device.doorbells_heard <= sent.replayed.doorbells
    assert sent.replayed.doorbells <= sent.program.most_doorbells


# --- the ring as it is handed back ---


@pytest.mark.parametrize("faults", [{}, {0: Fault.ERR}, {4: Fault.ERR}], ids=str)
@pytest.mark.parametrize("start_index", [0, 65530])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
async def test_without_event_idx_the_ring_asks_for_interrupts_again_at_the_end(
    faults: dict[int, Fault], start_index: int, count: int
) -> None:
    async with running(config(start_index=start_index, faults=faults)) as device:
        sent = await send(device, vlans(count))
    assert sent.replayed.next_index is not None
    assert sent.words.available_flags == 0


@pytest.mark.parametrize("faults", [{}, {0: Fault.ERR}, {4: Fault.ERR}], ids=str)
@pytest.mark.parametrize("start_index", [0, 65530])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
async def test_with_event_idx_the_ring_asks_to_hear_of_the_next_completion(
    faults: dict[int, Fault], start_index: int, count: int
) -> None:
    configured = config(event_idx=True, start_index=start_index, faults=faults)
    async with running(configured) as device:
        sent = await send(device, vlans(count))
    assert sent.words.used_event == sent.replayed.next_index == (start_index + count) % 65536


@with_and_without_event_idx
@pytest.mark.parametrize("faults", [{}, {2: Fault.ERR}], ids=str)
async def test_another_replay_may_follow_on_the_same_ring(
    faults: dict[int, Fault], event_idx: bool
) -> None:
    configured = config(event_idx=event_idx, start_index=65530, faults=faults)
    async with running(configured) as device:
        first = await send(device, vlans(11))
        index = first.replayed.next_index
        second = await send(device, mixed(13)[:2], indices=Indices(index, index))
        expected = settings_after(device.config, (*vlans(11), *mixed(13)[:2]), without=faults)
        assert device.net.settings() == expected
    assert second.replayed.outcome is Outcome.RESTORED
    assert second.replayed.next_index == (65530 + 13) % 65536


class _Unhurried(LentQueue):
    """Takes its time to let go of a wait that is cancelled: until its device has done all."""

    async def called(self, seconds: float) -> None:
        try:
            await super().called(seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(1.0)
            raise


async def _send_until(device: SoftwareDevice, count: int, seconds: float) -> Replayed:
    """Sends so many commands through an unhurried queue, with so much time for it."""
    event_idx = has_event_idx(device)
    queue = _Unhurried(
        device.geometry, device.lend(), Indices(), event_idx=event_idx, worth_polling=False
    )
    try:
        program = encode(vlans(count), device.geometry, event_idx=event_idx)
        deadline = asyncio.get_running_loop().time() + seconds
        return await replay(program, queue, deadline=deadline, poll_ns=0)
    finally:
        queue.close()


@with_and_without_event_idx
async def test_what_came_with_the_deadline_counts_and_the_ring_asks_for_interrupts_again(
    event_idx: bool,
) -> None:
    async with running(config(event_idx=event_idx, seconds_a_command=0.1)) as device:
        replayed = await _send_until(device, 4, 0.2)
        words = read_words(memory_of(device), device.geometry)
    assert (replayed.outcome, replayed.next_index) == (Outcome.RESTORED, 4)
    assert words.used_event == 4 if event_idx else words.available_flags == 0


@with_and_without_event_idx
async def test_what_the_deadline_left_no_time_to_send_is_unanswered(event_idx: bool) -> None:
    async with running(config(event_idx=event_idx, seconds_a_command=0.1)) as device:
        replayed = await _send_until(device, 6, 0.2)
        words = read_words(memory_of(device), device.geometry)
    # All that was published came back, but two were never published.
    assert words.available_index == words.used_index == 4
    assert replayed.outcome is Outcome.INCOMPLETE
    assert replayed.unanswered == (4, 5)


# --- cancellation ---


@with_and_without_event_idx
async def test_a_cancelled_replay_leaves_nothing_behind(event_idx: bool) -> None:
    async with running(config(event_idx=event_idx, faults={3: Fault.SILENCE})) as device:
        before = asyncio.all_tasks()
        with no_descriptor_left(), borrowed(device) as queue:
            program = encode(vlans(20), device.geometry, event_idx=event_idx)
            deadline = asyncio.get_running_loop().time() + DEADLINE
            task = asyncio.create_task(
                replay(program, queue, deadline=deadline, poll_ns=0), name="replay"
            )
            await asyncio.sleep(1.0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert asyncio.all_tasks() == before


async def test_a_replay_leaves_no_descriptor_open() -> None:
    async with running(config()) as device:
        with no_descriptor_left():
            await send(device, vlans(20))
