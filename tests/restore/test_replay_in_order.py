"""IN_ORDER: a device tells of a batch by its last chain alone, on split and on packed rings."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.batches import mixed, settings_after, vlans
from tests.support.clock import run
from tests.support.devices import config, running, send
from tests.support.marks import with_and_without_event_idx
from tests.support.packed_stepped import PackedSteppedDevice, UnwrittenDevice
from tests.support.stepped import (
    SteppedDevice,
    replay_on,
)
from vdpad.queues.software.misbehaviour import Fault, Order
from vdpad.restore.replay import Outcome
from vdpad.virtio.packed_driver_ring import PackedDriverRing

KINDS = [SteppedDevice, PackedSteppedDevice, UnwrittenDevice]
kinds = pytest.mark.parametrize("kind", KINDS)
layouts = pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])


@given(
    kind=st.sampled_from(KINDS),
    power=st.integers(1, 5),
    count=st.integers(6, 80),
    event_idx=st.booleans(),
    start=st.integers(0, 65535),
    dice=st.integers(0, 1 << 32).map(random.Random),
)
def test_batches_of_any_size_are_all_taken_as_returned(
    kind: type[SteppedDevice],
    power: int,
    count: int,
    event_idx: bool,
    start: int,
    dice: random.Random,
) -> None:
    # That nothing of a chain in flight is touched the device itself asserts, at each step.
    size = 1 << power
    at = start if kind is SteppedDevice else start % (2 * size)
    device = kind(size, event_idx=event_idx, start_index=at, in_order=True)

    def step(device: SteppedDevice) -> None:
        chains = device.take()
        while chains and dice.random() < 0.7:
            batch = dice.randint(1, len(chains))
            device.complete_together(chains[:batch])
            chains = chains[batch:]

    commands = mixed(count)
    replayed = run(replay_on(device, commands, step, seconds=3600.0))
    assert (replayed.outcome, replayed.wrong_lengths) == (Outcome.RESTORED, ())
    assert device.served == [command.encode() for command in commands]
    assert replayed.next_index == device.end


@kinds
@with_and_without_event_idx
async def test_a_device_that_tells_of_each_chain_is_taken_at_its_word(
    kind: type[SteppedDevice], event_idx: bool
) -> None:
    def step(device: SteppedDevice) -> None:
        for chain in device.take():
            device.complete(chain)

    device = kind(8, event_idx=event_idx, start_index=13, in_order=True)
    replayed = await replay_on(device, vlans(100), step)
    assert replayed.outcome is Outcome.RESTORED
    assert device.served == [command.encode() for command in vlans(100)]


@kinds
async def test_at_the_deadline_the_batches_that_came_are_applied(kind: type[SteppedDevice]) -> None:
    def step(device: SteppedDevice) -> None:
        chains = device.take()
        if not device.served:
            device.complete_together(chains[:3])

    device = kind(16, event_idx=False, in_order=True)
    replayed = await replay_on(device, vlans(8), step, seconds=10.0)
    assert (replayed.outcome, replayed.unanswered) == (Outcome.INCOMPLETE, (3, 4, 5, 6, 7))


Lie = Callable[[SteppedDevice], None]


def _later_first(device: SteppedDevice) -> None:
    """The third, and then the first."""
    chains = device.take()
    device.complete_together(chains[:3])
    device.put_for(chains[0].head, 1)


LIES: dict[str, Lie] = {
    "an id twice": _later_first,
    "an id past the end": lambda device: device.put_for(99, 1),
    "an id of none": lambda device: device.put_for(1, 2),
}


@kinds
@pytest.mark.parametrize("lie", LIES)
@with_and_without_event_idx
async def test_a_lie_ends_it(kind: type[SteppedDevice], lie: str, event_idx: bool) -> None:
    told = False

    def step(device: SteppedDevice) -> None:
        nonlocal told
        if not told:
            device.take()
            LIES[lie](device)
            told = True

    replayed = await replay_on(kind(16, event_idx=event_idx, in_order=True), vlans(8), step)
    assert replayed.outcome is Outcome.BROKEN
    assert "where IN_ORDER has" in replayed.fault


async def test_a_batch_that_is_told_of_as_shorter_than_it_is_ends_it() -> None:
    """Of a split ring, whose index says how many there are: a packed one has no second word."""

    def step(device: SteppedDevice) -> None:
        if not device.served:
            chains = device.take()
            device.served.append(chains[2].readable)
            device.put_for(chains[2].head, 2)

    replayed = await replay_on(SteppedDevice(16, event_idx=False, in_order=True), vlans(8), step)
    assert replayed.outcome is Outcome.BROKEN
    assert "it returned descriptor 4 where IN_ORDER has 0, or one of the 1" in replayed.fault


@kinds
async def test_an_ack_that_a_batch_left_unwritten_ends_it(kind: type[SteppedDevice]) -> None:
    def step(device: SteppedDevice) -> None:
        chains = device.take()
        device.complete_together(chains[:])
        device.memory[chains[1].ack_at] = 0xFF

    replayed = await replay_on(kind(16, event_idx=False, in_order=True), vlans(8), step)
    assert replayed.outcome is Outcome.BROKEN
    assert replayed.unanswered == (1,)


# --- the software device ---


@layouts
@with_and_without_event_idx
@pytest.mark.parametrize("size", [2, 8, 64])
async def test_what_is_sent_to_the_software_device_arrives(
    size: int, packed: bool, event_idx: bool
) -> None:
    commands = mixed(300)
    configured = config(packed=packed, in_order=True, ring_size=size, event_idx=event_idx)
    async with running(configured) as device:
        sent = await send(device, commands)
        assert sent.replayed.outcome is Outcome.RESTORED
        assert device.net.settings() == settings_after(configured, commands)


@layouts
async def test_a_device_that_claims_in_order_and_is_not_is_found_out(packed: bool) -> None:
    configured = config(
        packed=packed, in_order=True, ring_size=64, order=Order.SHUFFLED, faults={31: Fault.ERR}
    )
    async with running(configured) as device:
        sent = await send(device, vlans(32))
    assert sent.replayed.outcome is Outcome.BROKEN
    assert "where IN_ORDER has" in sent.replayed.fault


def test_a_look_at_a_packed_ring_costs_what_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lends it may tell of as many batches as there are pairs of chains."""
    device = PackedSteppedDevice(2048, event_idx=True, in_order=True)
    looked_at: list[int] = []
    returned = PackedDriverRing.returned

    def counted(ring: PackedDriverRing, position: int, most: int) -> int:
        looked_at.append(most)
        return returned(ring, position, most)

    monkeypatch.setattr(PackedDriverRing, "returned", counted)
    looks: list[int] = []

    def step(device: SteppedDevice) -> None:
        chains = device.take()
        # In pairs, and the last one waits: so all is looked at again.
        while len(chains) > 2:
            device.complete_together(chains[:2])
            chains = chains[2:]
        looks.append(sum(looked_at))
        if len(looks) > 3 and chains:
            device.complete_together(chains)

    commands = vlans(1001)
    replayed = run(replay_on(device, commands, step, seconds=3600.0))
    assert replayed.outcome is Outcome.RESTORED
    assert sum(looked_at) < 5 * len(commands)
