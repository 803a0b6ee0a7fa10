"""What is said of a ring at the deadline, of each mistake that a lender can make."""

import asyncio

import pytest

from tests.support.batches import vlans
from tests.support.devices import Sent, config, memory_of, running, send
from vdpad.queues.lent_indices import Indices
from vdpad.queues.lent_queue import LentQueue
from vdpad.queues.software.device import SoftwareDevice
from vdpad.queues.software.misbehaviour import Fault
from vdpad.restore.program import encode
from vdpad.restore.replay import Outcome, replay
from vdpad.restore.standstill import Standstill
from vdpad.virtio.driver_ring import RingStanding

COUNT = 12


def _said(sent: Sent, *, lent: bool = True) -> str:
    assert sent.replayed.outcome is Outcome.INCOMPLETE
    assert sent.replayed.standstill is not None
    return sent.replayed.standstill.sentence(lent=lent)


async def _claiming_event_idx(device: SoftwareDevice) -> Sent:
    """As of a lender that says RING_EVENT_IDX of a device that has it not."""
    program = encode(tuple(vlans(COUNT)), device.geometry, event_idx=True)
    queue = LentQueue(
        device.geometry, device.lend(), Indices(), event_idx=True, worth_polling=False
    )
    try:
        deadline = asyncio.get_running_loop().time() + 1
        replayed = await replay(program, queue, deadline=deadline, poll_ns=0)
    finally:
        queue.close()
    return Sent(replayed, program, memory_of(device))


async def test_a_device_that_hears_nothing() -> None:
    device = SoftwareDevice(config(start_index=65535))
    try:
        sent = await send(device, vlans(2))
    finally:
        await device.stop()
    stands = "the ring stands at available index 1 and used index 65535, used flags 0: "
    served = "the device has returned nothing; see that it is at DRIVER_OK with this queue enabled"
    assert _said(sent) == f"{stands}{served}, and that kick and call are not swapped"
    assert _said(sent, lent=False) == f"{stands}{served}"


async def test_a_device_that_ignores_event_idx() -> None:
    async with running(config(event_idx=False)) as device:
        said = _said(await _claiming_event_idx(device))
    assert "avail_event 0: the device has returned 4 and not moved its avail_event" in said
    assert "claim that feature only where it was negotiated" in said


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
async def test_a_device_that_hangs_in_its_first_batch_ignores_nothing(packed: bool) -> None:
    """It had no reason yet to say when it wants a doorbell."""
    configured = config(event_idx=True, packed=packed, faults={2: Fault.SILENCE})
    async with running(configured) as device:
        said = _said(await send(device, vlans(COUNT)))
    assert "avail_event 0" in said
    assert said.endswith("the device has returned 2 so far; give it more time, or reset it")


async def test_a_device_that_knows_it_and_hangs() -> None:
    configured = config(event_idx=True, start_index=7, faults={5: Fault.SILENCE})
    async with running(configured) as device:
        said = _said(await send(device, vlans(COUNT)))
    assert said.endswith("the device has returned 5 so far; give it more time, or reset it")
    assert "ignores" not in said


async def test_a_device_without_it_that_hangs() -> None:
    async with running(config(faults={5: Fault.SILENCE})) as device:
        said = _said(await send(device, vlans(COUNT)))
    assert "used index 5, used flags " in said
    assert said.endswith("the device has returned 5 so far; give it more time, or reset it")


async def test_nothing_is_said_where_no_deadline_came() -> None:
    async with running(config(faults={5: Fault.ERR})) as device:
        sent = await send(device, vlans(COUNT))
    assert sent.replayed.standstill is None


def test_the_index_goes_round() -> None:
    before = RingStanding(available=65534, used=65534, flags=0, avail_event=None)
    now = RingStanding(available=10, used=3, flags=1, avail_event=None)
    said = Standstill(before, now, 8).sentence(lent=True)
    assert "used flags 1: the device has returned 5" in said
