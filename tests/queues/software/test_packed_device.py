"""The software device with a packed ring: what is sent to it arrives, and its faults are seen."""

import pytest

from tests.support.batches import mixed, settings_after, vlans
from tests.support.devices import config, running, send
from tests.support.marks import with_and_without_event_idx
from vdpad.queues.software.misbehaviour import Fault, Misbehaviour, Order
from vdpad.restore.replay import Outcome
from vdpad.virtio.commands import VlanAdd

FAULTS = {
    Fault.ID_OUT_OF_RANGE: "it returned descriptor 8, which is not in flight",
    Fault.ID_NOT_IN_FLIGHT: "it returned descriptor 1, which is not in flight",
    Fault.ID_TWICE: "which is not in flight",
    Fault.RUN_AHEAD: "the device ran ahead",
    Fault.STALE_ACK: "an ack is 0xff, neither OK nor ERR",
    Fault.STRANGE_ACK: "an ack is 0x07, neither OK nor ERR",
}


@with_and_without_event_idx
@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("size", [2, 3, 8, 63, 64])
async def test_what_is_sent_arrives_from_any_position(
    size: int, order: Order, event_idx: bool
) -> None:
    commands = mixed(100)
    for start in (0, 1, size - 1, size, 2 * size - 1):
        configured = config(
            packed=True, ring_size=size, order=order, event_idx=event_idx, start_index=start
        )
        async with running(configured) as device:
            sent = await send(device, commands)
            assert sent.replayed.outcome is Outcome.RESTORED
            assert device.net.settings() == settings_after(configured, commands)


@with_and_without_event_idx
@pytest.mark.parametrize("start", [0, 7, 8, 15])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_in_the_last_bank_is_seen(fault: Fault, start: int, event_idx: bool) -> None:
    faults = {8: fault}
    configured = config(packed=True, faults=faults, event_idx=event_idx, start_index=start)
    async with running(configured) as device:
        sent = await send(device, vlans(9))
        assert sent.replayed.outcome is Outcome.BROKEN
        assert FAULTS[fault] in sent.replayed.fault
        assert sent.replayed.next_index is None
        device.reset(Misbehaviour())
        assert (await send(device, vlans(9))).replayed.outcome is Outcome.RESTORED


@with_and_without_event_idx
@pytest.mark.parametrize("position", [0, 3, 7])
async def test_refusals_and_silence_are_told(position: int, event_idx: bool) -> None:
    faults = {position: Fault.ERR}
    async with running(config(packed=True, faults=faults, event_idx=event_idx)) as device:
        assert (await send(device, vlans(20))).replayed.rejected == (position,)
    faults = {position: Fault.SILENCE}
    async with running(config(packed=True, faults=faults, event_idx=event_idx)) as device:
        replayed = (await send(device, vlans(20), seconds=1)).replayed
    assert replayed.outcome is Outcome.INCOMPLETE
    assert position in replayed.unanswered


@with_and_without_event_idx
@pytest.mark.parametrize("size", [7, 8])
async def test_it_lends_its_ring_where_the_last_borrower_left_it(
    size: int, event_idx: bool
) -> None:
    configured = config(packed=True, ring_size=size, event_idx=event_idx, start_index=3)
    async with running(configured) as device:
        for turn in range(2 * size):
            sent = await send(device, [VlanAdd(3 * turn + each) for each in range(3)])
            assert sent.replayed.outcome is Outcome.RESTORED
        assert device.net.settings()["vlans"] == list(range(6 * size))
