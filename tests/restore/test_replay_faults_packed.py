"""The replay on packed rings whose device refuses, falls silent or breaks, at each command.

The same as test_replay_faults.py has of the split ring, from several places in the ring: 4 commands
at a time, with event_idx in two banks of 2, without in one of 4.
"""

import asyncio

import pytest

from tests.support.batches import mixed, settings_after, vlans
from tests.support.devices import config, memory_of, running, send
from tests.support.marks import in_bulk, with_and_without_event_idx
from vdpad.queues.software.device import SoftwareConfig
from vdpad.queues.software.misbehaviour import Fault, Order
from vdpad.restore.replay import Outcome

AT_A_TIME = 4
COUNT = 12
SHORTER, LONG = 1100, 4100
BREAKING = [fault for fault in Fault if fault not in (Fault.ERR, Fault.SILENCE, Fault.WRONG_LENGTH)]
TEXTS = {
    Fault.ID_OUT_OF_RANGE: "it returned descriptor {size}, which is not in flight",
    Fault.ID_NOT_IN_FLIGHT: "it returned descriptor {odd}, which is not in flight",
    Fault.ID_TWICE: "it returned descriptor {before}, which is not in flight",
    Fault.RUN_AHEAD: "the device ran ahead: 5 chains returned, 4 in flight",
    Fault.STALE_ACK: "an ack is 0xff, neither OK nor ERR",
    Fault.STRANGE_ACK: "an ack is 0x07, neither OK nor ERR",
}
# Of 9 entries one is always spare, so that the ring's end lies in the midst of chains too.
at_each_place = pytest.mark.parametrize(
    ("size", "start"), [(8, 6), (8, 15), (9, 0), *in_bulk([(8, 0), (9, 8), (9, 17)])]
)
in_every_order = pytest.mark.parametrize("order", Order)


def ring(
    faults: dict[int, Fault],
    *,
    size: int = 8,
    start: int = 0,
    order: Order = Order.AS_SENT,
    event_idx: bool = False,
    in_order: bool = False,
) -> SoftwareConfig:
    return config(
        packed=True,
        ring_size=size,
        start_index=start,
        faults=faults,
        order=order,
        event_idx=event_idx,
        in_order=in_order,
    )


@with_and_without_event_idx
@in_every_order
@at_each_place
async def test_a_refused_command_is_told_and_all_others_are_applied(
    size: int, start: int, order: Order, event_idx: bool
) -> None:
    commands = vlans(COUNT)
    for refused in range(COUNT):
        faults = {refused: Fault.ERR}
        made = ring(faults, size=size, start=start, order=order, event_idx=event_idx)
        async with running(made) as device:
            sent = await send(device, commands)
            assert device.net.settings() == settings_after(made, commands, without={refused})
        assert sent.replayed.outcome is Outcome.REJECTED
        assert (sent.replayed.rejected, sent.replayed.unanswered) == ((refused,), ())


@with_and_without_event_idx
@in_every_order
@at_each_place
async def test_from_where_a_device_falls_silent_all_is_unanswered_and_the_rest_applied(
    size: int, start: int, order: Order, event_idx: bool
) -> None:
    commands = vlans(COUNT)
    for silent_from in range(COUNT):
        faults = {silent_from: Fault.SILENCE}
        made = ring(faults, size=size, start=start, order=order, event_idx=event_idx)
        async with running(made) as device:
            sent = await send(device, commands, seconds=0.5)
            assert device.net.settings() == settings_after(made, commands[:silent_from])
        assert (sent.replayed.outcome, sent.replayed.next_index) == (Outcome.INCOMPLETE, None)
        assert sent.replayed.unanswered == tuple(range(silent_from, COUNT))


def believable(fault: Fault, at: int, bank: int) -> set[int]:
    """The commands known to have been applied, where the one at `at` came back faulty.

    All before it; of a whole bank also those behind it whose acks are there; but nothing of what
    came with more than was sent.
    """
    if fault is Fault.RUN_AHEAD:
        return set(range(at // AT_A_TIME * AT_A_TIME))
    if fault in (Fault.STALE_ACK, Fault.STRANGE_ACK):
        return set(range((at // bank + 1) * bank)) - {at}
    return set(range(at))


@with_and_without_event_idx
@pytest.mark.parametrize("in_order", [False, True], ids=["any-order", "in-order"])
@pytest.mark.parametrize("fault", BREAKING)
@at_each_place
async def test_a_broken_device_is_told_and_sent_nothing_more(
    fault: Fault, size: int, start: int, in_order: bool, event_idx: bool
) -> None:
    """In a full ring who returns too much does so over what was returned: nothing has come back."""
    for at in range(COUNT):
        if fault is Fault.ID_TWICE and at % AT_A_TIME == 0:
            continue  # returned under the id of one that is in flight again, or of none
        made = ring({at: fault}, size=size, start=start, event_idx=event_idx, in_order=in_order)
        async with running(made) as device:
            sent = await send(device, vlans(COUNT), seconds=0.5)
            left = memory_of(device)
            await asyncio.sleep(10.0)
            assert memory_of(device) == left
        over = fault is Fault.RUN_AHEAD and size == 2 * AT_A_TIME
        outcome = Outcome.INCOMPLETE if over else Outcome.BROKEN
        assert (sent.replayed.outcome, sent.replayed.next_index) == (outcome, None)
        assert sent.replayed.rejected == ()
        assert at in sent.replayed.unanswered
        if not in_order and not over:
            text = TEXTS[fault].format(
                size=size, odd=2 * (at % AT_A_TIME) + 1, before=2 * (at % AT_A_TIME) - 2
            )
            assert sent.replayed.fault == text
            assert sent.applied == believable(fault, at, bank=2 if event_idx else 4)
        assert sent.applied <= believable(Fault.STALE_ACK, at, bank=2 if event_idx else 4)


@with_and_without_event_idx
@pytest.mark.parametrize("fault", BREAKING)
@pytest.mark.parametrize(
    ("at", "count"),
    [
        *((at, SHORTER) for at in (1, SHORTER // 2, SHORTER - 1)),
        *in_bulk((at, LONG) for at in (1, LONG // 2, LONG - 1)),
    ],
)
@pytest.mark.parametrize("size", [63, 64])
async def test_a_fault_in_a_long_batch_stops_the_replay_there(
    at: int, count: int, fault: Fault, size: int, event_idx: bool
) -> None:
    async with running(ring({at: fault}, size=size, event_idx=event_idx)) as device:
        sent = await send(device, mixed(count), seconds=0.5)
    slots = size // 2 if not event_idx else size // 4
    together = slots * (2 if event_idx else 1)
    over = fault is Fault.RUN_AHEAD and size == 2 * together and at < count - 1
    assert sent.replayed.outcome is (Outcome.INCOMPLETE if over else Outcome.BROKEN)
    assert at in sent.replayed.unanswered
    first = at // together * together
    assert set(range(first)) <= sent.applied <= set(range(first + together))
