"""Full banks that come back in order go one straight way, and whatever does not leaves it in time.

The device here does all it has as soon as it is kicked, and asks for every doorbell, so nothing but
the straight way moves banks until something is out of the ordinary.
"""

import asyncio
from collections.abc import Callable

import pytest

from tests.support.batches import vlans
from tests.support.devices import DEADLINE
from tests.support.stepped import SteppedDevice, Taken, complete_all, nothing, stepped
from vdpad.restore.pipeline import Pipeline
from vdpad.restore.program import encode
from vdpad.restore.replay import Outcome, Replayed, replay
from vdpad.virtio.commands import ACK_ERR

COUNT = 203
RING = 16
POSITIONS = [0, 3, 4, 7, 8, 37, 100, 196, 199, 200, COUNT - 1]

at_any_position = pytest.mark.parametrize("position", POSITIONS)
on_any_ring = pytest.mark.parametrize(
    ("event_idx", "start_index"), [(False, 0), (False, 65533), (True, 0), (True, 3), (True, 65530)]
)

Return = Callable[[SteppedDevice, Taken], None]


def _device(event_idx: bool, start_index: int) -> SteppedDevice:
    return SteppedDevice(RING, event_idx=event_idx, start_index=start_index)


async def _replay(
    device: SteppedDevice, on_kick: Callable[[SteppedDevice], None], later: Callable[..., None]
) -> Replayed:
    def kicked(device: SteppedDevice) -> None:
        device.put_avail_event(device.words.available_index)
        on_kick(device)

    program = encode(vlans(COUNT), device.geometry, event_idx=device.event_idx)
    with stepped(device, later, kicked) as queue:
        deadline = asyncio.get_running_loop().time() + DEADLINE
        return await replay(program, queue, deadline=deadline, poll_ns=0)


def _but(position: int, return_it: Return) -> Callable[[SteppedDevice], None]:
    """Does all there is, and what stands at this position in its own way."""

    def step(device: SteppedDevice) -> None:
        for chain in device.take():
            if len(device.served) == position:
                return_it(device, chain)
            else:
                device.complete(chain)

    return step


@on_any_ring
async def test_all_in_order(event_idx: bool, start_index: int) -> None:
    device = _device(event_idx, start_index)
    replayed = await _replay(device, complete_all, nothing)
    assert replayed.outcome is Outcome.RESTORED
    assert len(device.served) == COUNT
    assert device.served == [each.encode() for each in vlans(COUNT)]
    assert replayed.next_index == (start_index + COUNT) & 0xFFFF


@at_any_position
@on_any_ring
async def test_a_refusal_is_told(event_idx: bool, start_index: int, position: int) -> None:
    step = _but(position, lambda device, chain: device.complete(chain, ack=ACK_ERR))
    replayed = await _replay(_device(event_idx, start_index), step, complete_all)
    assert (replayed.outcome, replayed.rejected) == (Outcome.REJECTED, (position,))


@pytest.mark.parametrize("ack", [0x55, None])
@at_any_position
@on_any_ring
async def test_a_strange_ack_ends_it(
    event_idx: bool, start_index: int, position: int, ack: int | None
) -> None:
    step = _but(position, lambda device, chain: device.complete(chain, ack=ack))
    replayed = await _replay(_device(event_idx, start_index), step, complete_all)
    assert replayed.outcome is Outcome.BROKEN
    assert position in replayed.unanswered


@at_any_position
@on_any_ring
@pytest.mark.parametrize("length", [0, 2])
async def test_a_wrong_length_is_counted(
    event_idx: bool, start_index: int, position: int, length: int
) -> None:
    step = _but(position, lambda device, chain: device.complete(chain, length=length))
    device = _device(event_idx, start_index)
    replayed = await _replay(device, step, complete_all)
    assert replayed.outcome is Outcome.RESTORED
    assert replayed.wrong_lengths == ((length, 1),)
    assert device.served == [each.encode() for each in vlans(COUNT)]


@pytest.mark.parametrize("length", [0, 2])
@at_any_position
@on_any_ring
async def test_an_ack_that_was_never_written_ends_it_whatever_the_length(
    event_idx: bool, start_index: int, position: int, length: int
) -> None:
    step = _but(position, lambda device, chain: device.complete(chain, ack=None, length=length))
    replayed = await _replay(_device(event_idx, start_index), step, complete_all)
    assert replayed.outcome is Outcome.BROKEN
    assert replayed.fault == "an ack is 0xff, neither OK nor ERR"
    assert position in replayed.unanswered


@on_any_ring
async def test_a_device_may_have_lengths_of_its_own_throughout(
    event_idx: bool, start_index: int
) -> None:
    """As VDUSE devices of DPDK's that gave the number of descriptors."""

    def step(device: SteppedDevice) -> None:
        for chain in device.take():
            device.complete(chain, length=2)

    device = _device(event_idx, start_index)
    replayed = await _replay(device, step, step)
    assert replayed.outcome is Outcome.RESTORED
    assert replayed.wrong_lengths == ((2, COUNT),)
    assert device.served == [each.encode() for each in vlans(COUNT)]


@on_any_ring
async def test_a_chain_that_stays_out_is_not_touched(event_idx: bool, start_index: int) -> None:
    """As many chains are back as a bank has, but they are not the bank's: the device checks."""

    def all_but_the_oldest(device: SteppedDevice) -> None:
        for chain in device.take()[1:]:
            device.complete(chain)

    device = _device(event_idx, start_index)
    replayed = await _replay(device, all_but_the_oldest, complete_all)
    assert replayed.outcome is Outcome.RESTORED
    assert len(device.served) == COUNT


@on_any_ring
async def test_a_used_index_that_runs_a_bank_ahead_ends_it(
    event_idx: bool, start_index: int
) -> None:
    kicks = 0

    def step(device: SteppedDevice) -> None:
        nonlocal kicks
        kicks += 1
        complete_all(device)
        if kicks == 5:
            device.show_used_index(device.words.used_index + RING // 2)

    replayed = await _replay(_device(event_idx, start_index), step, nothing)
    assert replayed.outcome is Outcome.BROKEN
    assert "ran ahead" in replayed.fault


@pytest.mark.parametrize("start_index", [0, 5])
@pytest.mark.parametrize("banks_before", range(5))
def test_it_can_be_taken_up_again_at_any_bank(start_index: int, banks_before: int) -> None:
    device = _device(True, start_index)
    program = encode(vlans(COUNT), device.geometry, event_idx=True)

    def kicked() -> None:
        complete_all(device)
        device.put_avail_event(device.words.available_index)

    with stepped(device, nothing) as queue:
        pipeline = Pipeline(program, queue.ring, start_index, kicked)
        pipeline.publish(ring_anyway=True)
        for _ in range(banks_before):
            pipeline.collect()
            pipeline.publish(ring_anyway=True)
        assert pipeline.run_fast(0, 1 << 63)
        # The last ones have nothing to be replaced by.
        first, last = program.banks[0], program.banks[-1]
        assert not pipeline.unpublished or len(last.heads) < len(first.heads)
        pipeline.close()
