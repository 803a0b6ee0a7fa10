"""The replay while commands are in flight: what is published when, and what is never touched.

On a device that is moved by hand, so that completions come one by one, in any order, at any time.
"""

import asyncio
import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.batches import mixed, vlans
from tests.support.clock import run
from tests.support.devices import DEADLINE
from tests.support.marks import with_and_without_event_idx
from tests.support.stepped import (
    Step,
    SteppedDevice,
    Taken,
    complete_all,
    complete_one,
    complete_some,
    nothing,
    replay_on,
    stepped,
)
from vdpad.restore import replay as replay_module
from vdpad.restore.program import encode
from vdpad.restore.replay import Outcome, replay
from vdpad.virtio.commands import ACK_ERR, ACK_OK
from vdpad.virtio.split_ring import wants_event


@with_and_without_event_idx
@pytest.mark.parametrize("step", [complete_one, complete_all])
@pytest.mark.parametrize("size", [2, 4, 16])
async def test_every_command_reaches_the_device_once_and_in_order(
    size: int, step: Step, event_idx: bool
) -> None:
    commands = mixed(50)
    device = SteppedDevice(size, event_idx=event_idx, start_index=65530)
    replayed = await replay_on(device, commands, step)
    assert replayed.outcome is Outcome.RESTORED
    assert device.served == [command.encode() for command in commands]


@given(
    size=st.sampled_from([2, 4, 8, 16]),
    count=st.integers(6, 60),
    event_idx=st.booleans(),
    start_index=st.integers(0, 65535),
    buffers=st.integers(72, 400),
    dice=st.integers(0, 1 << 32).map(random.Random),
)
def test_whatever_order_chains_come_back_in_each_was_sent_once_and_left_alone(
    size: int, count: int, event_idx: bool, start_index: int, buffers: int, dice: random.Random
) -> None:
    # That nothing of a chain in flight is touched the device itself asserts, at each step.
    commands = mixed(count)
    device = SteppedDevice(size, event_idx=event_idx, start_index=start_index, buffers=buffers)
    step = partial(complete_some, dice=dice)
    replayed = run(replay_on(device, commands, step, seconds=3600.0))
    assert replayed.outcome is Outcome.RESTORED
    assert sorted(device.served) == sorted(command.encode() for command in commands)
    assert replayed.next_index == (start_index + count) % 65536


@given(
    count=st.integers(1, 40),
    event_idx=st.booleans(),
    refused=st.frozensets(st.integers(0, 39), max_size=5),
    dice=st.integers(0, 1 << 32).map(random.Random),
)
def test_in_any_order_each_ack_is_told_of_its_own_command(
    count: int, event_idx: bool, refused: frozenset[int], dice: random.Random
) -> None:
    commands = vlans(count)
    wire = {command.encode(): at for at, command in enumerate(commands)}

    def step(device: SteppedDevice) -> None:
        chains = device.take()
        dice.shuffle(chains)
        for chain in chains[: dice.randint(0, 4)]:
            ack = ACK_ERR if wire[chain.readable] in refused else ACK_OK
            device.complete(chain, ack=ack)

    replayed = run(replay_on(SteppedDevice(8, event_idx=event_idx), commands, step, seconds=3600.0))
    expected = tuple(sorted(at for at in refused if at < count))
    assert replayed.rejected == expected
    assert replayed.outcome is (Outcome.REJECTED if expected else Outcome.RESTORED)
    assert replayed.unanswered == ()


@given(
    count=st.integers(1, 40),
    event_idx=st.booleans(),
    steps=st.integers(0, 12),
    dice=st.integers(0, 1 << 32).map(random.Random),
)
def test_at_the_deadline_just_those_that_were_acked_are_applied(
    count: int, event_idx: bool, steps: int, dice: random.Random
) -> None:
    commands = vlans(count)
    left = iter(range(steps))

    def step(device: SteppedDevice) -> None:
        if next(left, None) is not None:
            complete_some(device, dice)

    device = SteppedDevice(8, event_idx=event_idx)
    replayed = run(replay_on(device, commands, step, seconds=10.0))
    acked = {commands.index(command) for command in commands if command.encode() in device.served}
    assert set(replayed.unanswered) == set(range(count)) - acked
    whole = len(acked) == count
    assert replayed.outcome is (Outcome.RESTORED if whole else Outcome.INCOMPLETE)
    assert (replayed.next_index is not None) == whole


# --- a device that does what no device may ---


class _Wild:
    """Acks, and also writes what it likes into the used ring."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.acked_ok: set[bytes] = set()

    def __call__(self, device: SteppedDevice) -> None:
        chains = device.take()
        act = self._dice.choice([self._complete, self._complete, self._put, self._show])
        act(device, chains)

    def _complete(self, device: SteppedDevice, chains: list[Taken]) -> None:
        taken = list(device.in_flight.values())
        self._dice.shuffle(taken)
        for chain in taken[: self._dice.randint(0, 4)]:
            ack = self._dice.choice([0, 0, 0, 0, 1, 7, None])
            if ack == ACK_OK:
                self.acked_ok.add(chain.readable)
            device.complete(chain, ack=ack, length=self._dice.choice([1, 1, 1, 1, 1, 0, 2]))

    def _put(self, device: SteppedDevice, chains: list[Taken]) -> None:
        head = self._dice.choice([*range(10), 0xFFFF, 0x10000, 0xFFFFFFFF])
        device.put(head, self._dice.choice([1, 1, 1, 0, 0xFFFFFFFF]))

    def _show(self, device: SteppedDevice, chains: list[Taken]) -> None:
        device.show_used_index(device.words.used_index + self._dice.choice([0, 0, -1, 1, 9, 32768]))


@given(
    count=st.integers(1, 30),
    event_idx=st.booleans(),
    dice=st.integers(0, 1 << 32).map(random.Random),
)
def test_whatever_a_device_does_nothing_is_applied_that_it_did_not_ack(
    count: int, event_idx: bool, dice: random.Random
) -> None:
    commands = vlans(count)
    wild = _Wild(dice)
    device = SteppedDevice(8, event_idx=event_idx)
    replayed = run(replay_on(device, commands, wild, seconds=10.0))
    failed = [*replayed.rejected, *replayed.unanswered]
    assert len(set(failed)) == len(failed)
    assert set(failed) <= set(range(count))
    applied = {command.encode() for at, command in enumerate(commands) if at not in failed}
    assert applied <= wild.acked_ok
    assert bool(replayed.fault) == (replayed.outcome is Outcome.BROKEN)
    assert (replayed.next_index is None) == (
        replayed.outcome in (Outcome.BROKEN, Outcome.INCOMPLETE)
    )


# --- feeding and doorbells ---


async def test_with_event_idx_the_next_bank_is_published_while_one_is_in_flight() -> None:
    in_flight: list[int] = []

    def step(device: SteppedDevice) -> None:
        in_flight.append(len(device.take()))
        complete_one(device)

    replayed = await replay_on(SteppedDevice(16, event_idx=True), vlans(40), step)
    assert replayed.outcome is Outcome.RESTORED
    # Two banks of 4: until the last of them is out, there is always a whole one in hand.
    assert min(in_flight[: 40 - 8]) > 4
    assert max(in_flight) == 8


async def test_without_event_idx_a_batch_goes_ring_by_ring() -> None:
    in_flight: list[int] = []

    def step(device: SteppedDevice) -> None:
        in_flight.append(len(device.take()))
        complete_one(device)

    await replay_on(SteppedDevice(16, event_idx=False), vlans(16), step)
    assert in_flight == [8, 7, 6, 5, 4, 3, 2, 1] * 2


def _deaf(device: SteppedDevice) -> None:
    """Does all there is, and asks never to hear the doorbell."""
    device.put_used_flags(1)
    device.put_avail_event(device.words.available_index - 2)
    complete_all(device)


@with_and_without_event_idx
async def test_a_device_that_wants_no_doorbell_hears_only_the_first(event_idx: bool) -> None:
    device = SteppedDevice(8, event_idx=event_idx)
    device.put_used_flags(1)
    device.put_avail_event(1000)
    replayed = await replay_on(device, vlans(40), _deaf)
    assert replayed.outcome is Outcome.RESTORED
    # What stands there before the device has run is nobody's word, so the first is always rung.
    assert replayed.doorbells == device.kicks == 1


def _eager(device: SteppedDevice) -> None:
    """Does all there is, and asks to hear of whatever comes next."""
    device.put_used_flags(0)
    device.put_avail_event(device.words.available_index)
    complete_all(device)


@with_and_without_event_idx
async def test_a_device_that_wants_every_doorbell_hears_one_for_each_publication(
    event_idx: bool,
) -> None:
    device = SteppedDevice(8, event_idx=event_idx)
    replayed = await replay_on(device, vlans(40), _eager)
    assert replayed.doorbells == device.kicks == 10


# --- waiting ---


async def test_without_event_idx_a_sleeper_has_lowered_its_flag() -> None:
    flags: list[int] = []

    def step(device: SteppedDevice) -> None:
        flags.append(device.words.available_flags)
        complete_all(device)

    await replay_on(SteppedDevice(8, event_idx=False), vlans(8), step)
    assert flags == [0, 0]


@pytest.mark.parametrize("start_index", [0, 65533])
async def test_with_event_idx_a_sleeper_has_asked_for_the_oldest_bank_s_last_command(
    start_index: int,
) -> None:
    wanted: list[list[int]] = []

    def step(device: SteppedDevice) -> None:
        event = device.words.used_event
        steps = range(start_index, start_index + 16)
        wanted.append([n for n, at in enumerate(steps) if wants_event(event, at + 1, at)])
        complete_all(device)

    device = SteppedDevice(8, event_idx=True, start_index=start_index)
    await replay_on(device, vlans(8), step)
    # Two banks of 2 are out at a time, and all that is out comes back at once.
    assert wanted == [[1], [5]]


@with_and_without_event_idx
async def test_while_nobody_sleeps_no_interrupt_is_asked_for(event_idx: bool) -> None:
    seen: list[bool] = []

    def on_kick(device: SteppedDevice) -> None:
        words = device.words
        unwanted = not wants_event(words.used_event, words.available_index, words.used_index)
        seen.append(unwanted if event_idx else words.available_flags == 1)
        _eager(device)

    replayed = await replay_on(SteppedDevice(8, event_idx=event_idx), vlans(40), nothing, on_kick)
    assert replayed.outcome is Outcome.RESTORED
    assert seen == [True] * replayed.doorbells


@with_and_without_event_idx
async def test_after_a_sleep_no_interrupt_is_asked_for_again(event_idx: bool) -> None:
    seen: list[bool] = []

    def on_kick(device: SteppedDevice) -> None:
        words = device.words
        unwanted = not wants_event(words.used_event, words.available_index, words.used_index)
        seen.append(unwanted if event_idx else words.available_flags == 1)
        if len(seen) % 2 == 0:  # every other time it is slow, and the replay goes to sleep
            _eager(device)

    await replay_on(SteppedDevice(8, event_idx=event_idx), vlans(40), _eager, on_kick)
    assert seen == [True] * 10


@with_and_without_event_idx
async def test_nobody_sleeps_where_the_device_has_answered_already(event_idx: bool) -> None:
    device = SteppedDevice(8, event_idx=event_idx)
    program = encode(vlans(100), device.geometry, event_idx=event_idx)
    with stepped(device, nothing, on_kick=_eager) as queue:
        replayed = await replay(program, queue, deadline=DEADLINE, poll_ns=0)
        assert queue.waits == 0
    assert replayed.outcome is Outcome.RESTORED


async def test_others_get_their_turn_while_a_device_always_answers_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay_module, "_MAX_WITHOUT_YIELD_NS", 0)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    # A hundred banks, of which a few go by between two looks at the clock.
    await replay_on(SteppedDevice(8, event_idx=False), vlans(400), nothing, _eager)
    task.cancel()
    assert turns >= 10


def _after(waits: int, then: Step) -> Callable[[SteppedDevice], None]:
    """Does nothing for so many waits."""
    left = iter(range(waits))

    def step(device: SteppedDevice) -> None:
        if next(left, None) is None:
            then(device)

    return step


async def test_a_sleeper_looks_by_itself_at_most_50_ms_apart() -> None:
    device = SteppedDevice(8, event_idx=False)
    program = encode(vlans(4), device.geometry, event_idx=False)
    naps: list[float] = []
    with stepped(device, _after(20, complete_all)) as queue:
        loop = asyncio.get_running_loop()
        called = queue.called

        async def measured(seconds: float) -> None:
            started = loop.time()
            await called(seconds)
            naps.append(loop.time() - started)

        queue.called = measured  # type: ignore[method-assign]
        replayed = await replay(program, queue, deadline=DEADLINE, poll_ns=0)
    assert replayed.outcome is Outcome.RESTORED
    assert naps[0] == pytest.approx(0.001)
    assert naps[1:] == pytest.approx([min(2 * nap, 0.05) for nap in naps[:-1]])
