"""The replay on a packed ring: any size, any place in it, any order, and every lie of a device.

On a device that is moved by hand and that complains where the driver touches what is its own.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.batches import mixed, vlans
from tests.support.clock import run
from tests.support.devices import DEADLINE
from tests.support.marks import in_bulk, with_and_without_event_idx
from tests.support.packed_stepped import PackedSteppedDevice, UnwrittenDevice
from tests.support.stepped import (
    SteppedDevice,
    Taken,
    complete_all,
    complete_one,
    complete_some,
    nothing,
    replay_on,
    stepped,
)
from vdpad.restore.program import encode
from vdpad.restore.replay import Outcome, Replayed, replay
from vdpad.virtio.commands import ACK_ERR, ACK_OK, Command

AVAIL, USED = 1 << 7, 1 << 15
SIZES = [2, 3, 4, 5, 7, 8, *in_bulk([16, 21])]
KINDS = [PackedSteppedDevice, UnwrittenDevice]

PackedStep = Callable[[PackedSteppedDevice], None]
kinds = st.sampled_from(KINDS)
dices = st.integers(0, 1 << 32).map(random.Random)


async def _replay(
    device: PackedSteppedDevice,
    commands: tuple[Command, ...],
    on_wait: PackedStep,
    on_kick: PackedStep | None = None,
    seconds: float = DEADLINE,
) -> Replayed:
    return await replay_on(
        device, commands, _packed(on_wait), on_kick and _packed(on_kick), seconds
    )


def _packed(step: PackedStep) -> Callable[[SteppedDevice], None]:
    def on(device: SteppedDevice) -> None:
        assert isinstance(device, PackedSteppedDevice)
        step(device)

    return on


# --- every place, every order ---


@with_and_without_event_idx
@pytest.mark.parametrize("step", [complete_one, complete_all])
@pytest.mark.parametrize("size", SIZES)
async def test_from_any_position_every_command_reaches_the_device_once_and_in_order(
    size: int, step: PackedStep, event_idx: bool
) -> None:
    commands = mixed(3 * size)
    for start in range(2 * size):
        device = PackedSteppedDevice(size, event_idx=event_idx, start_index=start)
        replayed = await _replay(device, commands, step)
        assert replayed.outcome is Outcome.RESTORED
        assert device.served == [command.encode() for command in commands]
        assert replayed.next_index == device.end


@pytest.mark.parametrize("kind", KINDS)
@with_and_without_event_idx
@pytest.mark.parametrize("size", [4, 5, 16, *in_bulk([21])])
async def test_full_banks_in_order_go_one_way_without_a_wait(
    size: int, event_idx: bool, kind: type[PackedSteppedDevice]
) -> None:
    def step(device: PackedSteppedDevice) -> None:
        complete_all(device)
        device.ask_always()

    for start in range(2 * size):
        device = kind(size, event_idx=event_idx, start_index=start)
        program = encode(vlans(203), device.geometry, event_idx=event_idx)
        with stepped(device, _packed(nothing), _packed(step)) as queue:
            replayed = await replay(program, queue, deadline=DEADLINE, poll_ns=0)
            assert queue.waits == 0
        assert (replayed.outcome, replayed.wrong_lengths) == (Outcome.RESTORED, ())
        assert device.served == [command.encode() for command in vlans(203)]
        assert replayed.next_index == device.end


Return = Callable[[PackedSteppedDevice, Taken], None]
at_any_position = pytest.mark.parametrize("position", [0, 3, 4, 7, 8, 37, 100, 196, 200, 202])
at_any_place = pytest.mark.parametrize(
    ("size", "start"), [(16, 5), (21, 0), (21, 41), *in_bulk([(16, 0), (16, 31), (21, 20)])]
)


async def _straight(
    size: int, start: int, position: int, return_it: Return, *, event_idx: bool
) -> Replayed:
    """Full banks that come back at once, but one chain in its own way."""

    def step(device: PackedSteppedDevice) -> None:
        for chain in device.take():
            if len(device.served) == position:
                return_it(device, chain)
            else:
                device.complete(chain)
        device.ask_always()

    device = PackedSteppedDevice(size, event_idx=event_idx, start_index=start)
    return await _replay(device, vlans(203), complete_all, step)


@with_and_without_event_idx
@at_any_position
@at_any_place
async def test_a_refusal_among_full_banks_is_told(
    size: int, start: int, position: int, event_idx: bool
) -> None:
    def refuse(device: PackedSteppedDevice, chain: Taken) -> None:
        device.complete(chain, ack=ACK_ERR)

    replayed = await _straight(size, start, position, refuse, event_idx=event_idx)
    assert (replayed.outcome, replayed.rejected) == (Outcome.REJECTED, (position,))


@with_and_without_event_idx
@pytest.mark.parametrize("ack", [0x55, None])
@at_any_position
@at_any_place
async def test_a_strange_ack_among_full_banks_ends_it(
    size: int, start: int, position: int, ack: int | None, event_idx: bool
) -> None:
    def answer(device: PackedSteppedDevice, chain: Taken) -> None:
        device.complete(chain, ack=ack)

    replayed = await _straight(size, start, position, answer, event_idx=event_idx)
    assert replayed.outcome is Outcome.BROKEN
    assert position in replayed.unanswered


@with_and_without_event_idx
@at_any_position
@at_any_place
async def test_a_wrong_length_among_full_banks_is_counted(
    size: int, start: int, position: int, event_idx: bool
) -> None:
    def answer(device: PackedSteppedDevice, chain: Taken) -> None:
        device.complete(chain, length=2)

    replayed = await _straight(size, start, position, answer, event_idx=event_idx)
    assert (replayed.outcome, replayed.wrong_lengths) == (Outcome.RESTORED, ((2, 1),))


@given(
    kind=kinds,
    size=st.integers(2, 24),
    count=st.integers(6, 60),
    event_idx=st.booleans(),
    start=st.integers(0, 47),
    buffers=st.integers(72, 400),
    dice=dices,
)
def test_whatever_order_chains_come_back_in_each_was_sent_once_and_left_alone(
    kind: type[PackedSteppedDevice],
    size: int,
    count: int,
    event_idx: bool,
    start: int,
    buffers: int,
    dice: random.Random,
) -> None:
    # That nothing of a chain in flight is touched the device itself asserts, at each step.
    commands = mixed(count)
    device = kind(size, event_idx=event_idx, start_index=start % (2 * size), buffers=buffers)
    replayed = run(_replay(device, commands, partial(complete_some, dice=dice), seconds=3600.0))
    assert replayed.outcome is Outcome.RESTORED
    assert sorted(device.served) == sorted(command.encode() for command in commands)
    assert replayed.next_index == device.end


@given(
    kind=kinds,
    size=st.integers(2, 12),
    count=st.integers(1, 40),
    event_idx=st.booleans(),
    refused=st.frozensets(st.integers(0, 39), max_size=5),
    dice=dices,
)
def test_in_any_order_each_ack_is_told_of_its_own_command(
    kind: type[PackedSteppedDevice],
    size: int,
    count: int,
    event_idx: bool,
    refused: frozenset[int],
    dice: random.Random,
) -> None:
    commands = vlans(count)
    wire = {command.encode(): at for at, command in enumerate(commands)}

    def step(device: PackedSteppedDevice) -> None:
        chains = device.take()
        dice.shuffle(chains)
        for chain in chains[: dice.randint(0, 4)]:
            ack = ACK_ERR if wire[chain.readable] in refused else ACK_OK
            device.complete(chain, ack=ack)

    replayed = run(_replay(kind(size, event_idx=event_idx), commands, step, seconds=3600.0))
    expected = tuple(sorted(at for at in refused if at < count))
    assert replayed.rejected == expected
    assert replayed.outcome is (Outcome.REJECTED if expected else Outcome.RESTORED)
    assert replayed.unanswered == ()


@given(count=st.integers(1, 40), event_idx=st.booleans(), steps=st.integers(0, 12), dice=dices)
def test_at_the_deadline_just_those_that_were_acked_are_applied(
    count: int, event_idx: bool, steps: int, dice: random.Random
) -> None:
    commands = vlans(count)
    left = iter(range(steps))

    def step(device: PackedSteppedDevice) -> None:
        if next(left, None) is not None:
            complete_some(device, dice)

    device = PackedSteppedDevice(9, event_idx=event_idx, start_index=7)
    replayed = run(_replay(device, commands, step, seconds=10.0))
    acked = {commands.index(command) for command in commands if command.encode() in device.served}
    assert set(replayed.unanswered) == set(range(count)) - acked
    whole = len(acked) == count
    assert replayed.outcome is (Outcome.RESTORED if whole else Outcome.INCOMPLETE)
    assert (replayed.next_index is not None) == whole


# --- a device that does what no device may ---


Lie = Callable[[PackedSteppedDevice, Taken], None]


def _under(head: int) -> Lie:
    def lie(device: PackedSteppedDevice, chain: Taken) -> None:
        device.memory[chain.ack_at] = ACK_OK
        del device.in_flight[chain.head]
        device.put(head, 1)

    return lie


LIES: dict[str, tuple[Lie, str]] = {
    "an id past the end": (_under(500), "it returned descriptor 500, which is not in flight"),
    "an id that names no chain": (_under(1), "it returned descriptor 1, which is not in flight"),
    "an id used twice": (_under(0), "it returned descriptor 0, which is not in flight"),
    "no ack": (
        lambda device, chain: device.complete(chain, ack=None),
        "an ack is 0xff, neither OK nor ERR",
    ),
    "a strange ack": (
        lambda device, chain: device.complete(chain, ack=7),
        "an ack is 0x07, neither OK nor ERR",
    ),
}


@with_and_without_event_idx
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("start", [0, 7, 8, 15])
async def test_a_lie_ends_it(lie: str, start: int, event_idx: bool) -> None:
    tell, fault = LIES[lie]
    at = 5

    def step(device: PackedSteppedDevice) -> None:
        for chain in device.take():
            if len(device.served) == at:
                # The chain with id 0 came back as the first of this lap of ids.
                tell(device, chain)
                device.served.append(chain.readable)
            else:
                device.complete(chain)

    device = PackedSteppedDevice(8, event_idx=event_idx, start_index=start)
    replayed = await _replay(device, vlans(20), step)
    assert (replayed.outcome, replayed.fault) == (Outcome.BROKEN, fault)
    assert at in replayed.unanswered
    assert replayed.next_index is None


@with_and_without_event_idx
@pytest.mark.parametrize("start", [0, 7, 8, 15])
async def test_more_returned_than_was_ever_sent_ends_it(start: int, event_idx: bool) -> None:
    def step(device: PackedSteppedDevice) -> None:
        complete_all(device)
        device.put(0, 1)

    device = PackedSteppedDevice(8, event_idx=event_idx, start_index=start)
    replayed = await _replay(device, vlans(2), step)
    assert replayed.outcome is Outcome.BROKEN
    assert "ran ahead" in replayed.fault


@with_and_without_event_idx
@pytest.mark.parametrize("start", range(16))
async def test_a_chain_returned_with_the_wrong_wrap_counter_has_not_come(
    start: int, event_idx: bool
) -> None:
    def step(device: PackedSteppedDevice) -> None:
        for chain in device.take():
            if len(device.served) == 2:
                wrap = 1 - device.returning // 8 % 2
                device.memory[chain.ack_at] = ACK_OK
                device.put_marks(0, 0 if wrap else AVAIL | USED)
                device.served.append(chain.readable)
                del device.in_flight[chain.head]
                return
            if len(device.served) > 2:
                return
            device.complete(chain)

    device = PackedSteppedDevice(8, event_idx=event_idx, start_index=start)
    replayed = await _replay(device, vlans(4), step, seconds=10.0)
    assert (replayed.outcome, replayed.unanswered) == (Outcome.INCOMPLETE, (2, 3))


@pytest.mark.parametrize("length", [0, 2, 0xFFFFFFFF])
@with_and_without_event_idx
async def test_a_wrong_length_is_counted(event_idx: bool, length: int) -> None:
    def step(device: PackedSteppedDevice) -> None:
        for chain in device.take():
            device.complete(chain, length=length if len(device.served) == 3 else 1)

    device = PackedSteppedDevice(8, event_idx=event_idx)
    replayed = await _replay(device, vlans(20), step)
    assert replayed.outcome is Outcome.RESTORED
    assert replayed.wrong_lengths == ((length, 1),)


class _Wild:
    """Acks, and also writes what it likes over the descriptors."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.acked_ok: set[bytes] = set()

    def __call__(self, device: PackedSteppedDevice) -> None:
        act = self._dice.choice([self._complete, self._complete, self._put, self._mark])
        act(device)

    def _take(self, device: PackedSteppedDevice) -> None:
        # What it has written over it may find available, which is no driver's fault.
        with suppress(AssertionError):
            device.take()

    def _complete(self, device: PackedSteppedDevice) -> None:
        self._take(device)
        taken = list(device.in_flight.values())
        self._dice.shuffle(taken)
        for chain in taken[: self._dice.randint(0, 4)]:
            ack = self._dice.choice([0, 0, 0, 0, 1, 7, None])
            if ack == ACK_OK:
                self.acked_ok.add(chain.readable)
            device.complete(chain, ack=ack, length=self._dice.choice([1, 1, 1, 1, 1, 0, 2]))

    def _put(self, device: PackedSteppedDevice) -> None:
        self._take(device)
        head = self._dice.choice([*range(10), 0x7FFF, 0xFFFF])
        device.put(head, self._dice.choice([1, 1, 1, 0, 0xFFFFFFFF]))

    def _mark(self, device: PackedSteppedDevice) -> None:
        self._take(device)
        any_marks = self._dice.getrandbits(16)
        marks = self._dice.choice([0, AVAIL, USED, AVAIL | USED, 0xFFFF, any_marks])
        device.put_marks(self._dice.randint(0, 8), marks)


@given(count=st.integers(1, 30), size=st.integers(2, 9), event_idx=st.booleans(), dice=dices)
def test_whatever_a_device_does_nothing_is_applied_that_it_did_not_ack(
    count: int, size: int, event_idx: bool, dice: random.Random
) -> None:
    commands = vlans(count)
    wild = _Wild(dice)
    device = PackedSteppedDevice(size, event_idx=event_idx, start_index=dice.randrange(2 * size))
    replayed = run(_replay(device, commands, wild, seconds=10.0))
    failed = [*replayed.rejected, *replayed.unanswered]
    assert len(set(failed)) == len(failed)
    assert set(failed) <= set(range(count))
    applied = {command.encode() for at, command in enumerate(commands) if at not in failed}
    assert applied <= wild.acked_ok
    assert bool(replayed.fault) == (replayed.outcome is Outcome.BROKEN)
    assert (replayed.next_index is None) == (
        replayed.outcome in (Outcome.BROKEN, Outcome.INCOMPLETE)
    )


# --- feeding, doorbells, interrupts ---


async def test_with_event_idx_the_next_bank_is_published_while_one_is_in_flight() -> None:
    in_flight: list[int] = []

    def step(device: PackedSteppedDevice) -> None:
        in_flight.append(len(device.take()))
        complete_one(device)

    replayed = await _replay(PackedSteppedDevice(16, event_idx=True), vlans(40), step)
    assert replayed.outcome is Outcome.RESTORED
    assert min(in_flight[: 40 - 8]) > 4
    assert max(in_flight) == 8


@with_and_without_event_idx
async def test_a_batch_that_fits_is_one_doorbell(event_idx: bool) -> None:
    device = PackedSteppedDevice(64, event_idx=event_idx)
    device.ask_always()
    replayed = await _replay(device, vlans(32), complete_all)
    assert (replayed.outcome, replayed.doorbells, device.kicks) == (Outcome.RESTORED, 1, 1)


@with_and_without_event_idx
async def test_a_device_that_wants_no_doorbell_hears_only_the_first(event_idx: bool) -> None:
    device = PackedSteppedDevice(8, event_idx=event_idx)
    device.ask_never()
    replayed = await _replay(device, vlans(40), complete_all)
    assert replayed.outcome is Outcome.RESTORED
    # What stands there before the device has run is nobody's word, so the first is always rung.
    assert replayed.doorbells == device.kicks == 1


@with_and_without_event_idx
async def test_a_device_that_wants_every_doorbell_hears_one_for_each_publication(
    event_idx: bool,
) -> None:
    def step(device: PackedSteppedDevice) -> None:
        device.ask_always()
        complete_all(device)

    device = PackedSteppedDevice(8, event_idx=event_idx)
    replayed = await _replay(device, vlans(40), step)
    assert replayed.doorbells == device.kicks == 10


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("start", range(16))
async def test_with_event_idx_the_doorbell_is_rung_where_it_is_asked_for(
    start: int, size: int
) -> None:
    """As a device does that has nothing left: at what comes next. So no step is ever a wait's."""

    def step(device: PackedSteppedDevice) -> None:
        complete_all(device)
        device.ask_at(device.taken)

    device = PackedSteppedDevice(size, event_idx=True, start_index=start)
    replayed = await _replay(device, vlans(40), nothing, step)
    assert replayed.outcome is Outcome.RESTORED
    # Two banks of 2 with the first one, and then each of the others by itself.
    assert replayed.doorbells == device.kicks == 19


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("start", range(16))
async def test_with_event_idx_no_doorbell_is_rung_for_what_was_taken_already(
    start: int, size: int
) -> None:
    def step(device: PackedSteppedDevice) -> None:
        complete_all(device)
        device.ask_at(device.taken - 2)

    device = PackedSteppedDevice(size, event_idx=True, start_index=start)
    replayed = await _replay(device, vlans(40), step)
    assert (replayed.outcome, replayed.doorbells) == (Outcome.RESTORED, 1)


async def test_desc_without_event_idx_says_nothing_and_the_doorbell_is_rung() -> None:
    def step(device: PackedSteppedDevice) -> None:
        complete_all(device)
        device.ask_at(device.taken - 2)

    device = PackedSteppedDevice(8, event_idx=False)
    assert (await _replay(device, vlans(40), step)).doorbells == 10


async def test_without_event_idx_a_sleeper_has_asked_for_any_interrupt() -> None:
    wants: list[tuple[int, int]] = []

    def step(device: PackedSteppedDevice) -> None:
        wants.append(device.wants)
        complete_all(device)

    await _replay(PackedSteppedDevice(8, event_idx=False), vlans(8), step)
    assert [flags for _, flags in wants] == [0, 0]


@pytest.mark.parametrize("start", range(16))
async def test_with_event_idx_a_sleeper_has_asked_for_the_oldest_bank_s_last_command(
    start: int,
) -> None:
    wants: list[tuple[int, int]] = []

    def step(device: PackedSteppedDevice) -> None:
        wants.append(device.wants)
        complete_all(device)

    await _replay(PackedSteppedDevice(8, event_idx=True, start_index=start), vlans(8), step)
    # Two banks of 2 are out at a time, and all that is out comes back at once.
    places = [start + 2 * chain for chain in (1, 5)]
    assert wants == [(at % 8 | (1 - at // 8 % 2) << 15, 2) for at in places]


@with_and_without_event_idx
async def test_while_nobody_sleeps_no_interrupt_is_asked_for(event_idx: bool) -> None:
    seen: list[int] = []

    def on_kick(device: PackedSteppedDevice) -> None:
        seen.append(device.wants[1])
        device.ask_always()
        complete_all(device)

    device = PackedSteppedDevice(8, event_idx=event_idx)
    replayed = await _replay(device, vlans(40), nothing, on_kick)
    assert replayed.outcome is Outcome.RESTORED
    assert seen == [1] * replayed.doorbells


@with_and_without_event_idx
@pytest.mark.parametrize("start", [0, 5, 6, 7, 15])
async def test_handed_back_the_ring_asks_for_an_interrupt_at_its_next_completion(
    start: int, event_idx: bool
) -> None:
    device = PackedSteppedDevice(8, event_idx=event_idx, start_index=start)
    program = encode(vlans(3), device.geometry, event_idx=event_idx)
    with stepped(device, _packed(complete_all)) as queue:
        replayed = await replay(program, queue, deadline=DEADLINE, poll_ns=0)
        word, flags = device.wants
    assert replayed.next_index is not None
    assert (flags, word) == (2, replayed.next_index & 0xFFFF) if event_idx else flags == 0
