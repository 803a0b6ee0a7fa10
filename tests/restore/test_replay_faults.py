"""The replay on a device that refuses, falls silent or breaks: each command is told as it was."""

import asyncio
from collections.abc import Iterable

import pytest

from tests.support.batches import mixed, settings_after, vlans
from tests.support.devices import Sent, config, memory_of, read_words, running, send
from tests.support.marks import in_bulk, with_and_without_event_idx
from vdpad.queues.lent_indices import Indices
from vdpad.queues.software.misbehaviour import Fault, Misbehaviour, Order
from vdpad.restore.replay import Outcome
from vdpad.restore.report import report

# A ring of 8 takes 4 commands at a time; with event_idx in two banks of 2, without in one of 4.
RING_SIZE = 8
AT_A_TIME = RING_SIZE // 2
COUNT = 12
SHORTER, LONG = 1100, 4100

in_every_order = pytest.mark.parametrize("order", Order)


def _report(sent: Sent) -> dict[str, object]:
    written = report(
        "vm-1", sent.program.commands, sent.replayed, widened=(), prepare_us=0
    ).to_json()
    del written["commit_us"], written["doorbells"]
    return written


# --- refused ---


@with_and_without_event_idx
@in_every_order
@pytest.mark.parametrize("refused", range(COUNT))
async def test_a_refused_command_is_told_and_all_others_are_applied(
    refused: int, order: Order, event_idx: bool
) -> None:
    commands = vlans(COUNT)
    configured = config(event_idx=event_idx, faults={refused: Fault.ERR}, order=order)
    async with running(configured) as device:
        sent = await send(device, commands)
        expected = settings_after(configured, commands, without={refused})
        assert device.net.settings() == expected
    assert _report(sent) == {
        "migration": "vm-1",
        "outcome": "rejected",
        "commands": COUNT,
        "applied": COUNT - 1,
        "rejected": (
            {"index": refused, "command": "VLAN_ADD", "arguments": f"vid={refused}", "ack": 1},
        ),
        "unanswered": (),
        "rejected_total": 1,
        "unanswered_total": 0,
        "widened": (),
        "prepare_us": 0,
        "ring": {"next_available": COUNT, "next_used": COUNT},
        "device_must_reset": False,
    }


@with_and_without_event_idx
@pytest.mark.parametrize("refused", [0, LONG // 2, LONG - 1])
@pytest.mark.parametrize("order", [Order.AS_SENT, Order.SHUFFLED])
async def test_one_refused_command_among_thousands_is_found(
    refused: int, order: Order, event_idx: bool
) -> None:
    commands = mixed(LONG)
    configured = config(ring_size=64, event_idx=event_idx, faults={refused: Fault.ERR}, order=order)
    async with running(configured) as device:
        sent = await send(device, commands)
        expected = settings_after(configured, commands, without={refused})
        assert device.net.settings() == expected
    assert sent.replayed.outcome is Outcome.REJECTED
    assert (sent.replayed.rejected, sent.replayed.unanswered) == ((refused,), ())
    told = report("vm-1", commands, sent.replayed, widened=(), prepare_us=0)
    assert told.applied == LONG - 1
    assert [(line.index, line.command, line.arguments) for line in told.rejected] == [
        (refused, commands[refused].NAME, commands[refused].arguments())
    ]


@with_and_without_event_idx
@in_every_order
async def test_a_device_may_refuse_everything(order: Order, event_idx: bool) -> None:
    faults = dict.fromkeys(range(100), Fault.ERR)
    async with running(config(event_idx=event_idx, faults=faults, order=order)) as device:
        sent = await send(device, vlans(100))
    assert sent.replayed.outcome is Outcome.REJECTED
    assert sent.replayed.rejected == tuple(range(100))
    assert sent.replayed.next_index == 100


@with_and_without_event_idx
async def test_a_device_s_own_refusals_are_told_as_well(event_idx: bool) -> None:
    commands = (*vlans(3), *vlans(2))  # an id that is there is refused
    async with running(config(event_idx=event_idx)) as device:
        sent = await send(device, commands)
    assert (sent.replayed.outcome, sent.replayed.rejected) == (Outcome.REJECTED, (3, 4))


# --- silent ---


@with_and_without_event_idx
@in_every_order
@pytest.mark.parametrize("silent_from", range(COUNT))
async def test_from_where_a_device_falls_silent_all_is_unanswered_and_the_rest_applied(
    silent_from: int, order: Order, event_idx: bool
) -> None:
    commands = vlans(COUNT)
    faults = {silent_from: Fault.SILENCE}
    async with running(config(event_idx=event_idx, faults=faults, order=order)) as device:
        sent = await send(device, commands, seconds=0.5)
        assert device.net.settings() == settings_after(device.config, commands[:silent_from])
    told = _report(sent)
    assert told["outcome"] == "incomplete"
    assert told["applied"] == silent_from
    assert sent.replayed.unanswered == tuple(range(silent_from, COUNT))
    assert told["unanswered_total"] == COUNT - silent_from
    assert told["rejected"] == ()
    assert (told["ring"], told["device_must_reset"]) == (None, True)


@with_and_without_event_idx
@pytest.mark.parametrize("silent_from", [0, LONG // 2, LONG - 1])
async def test_a_device_that_falls_silent_among_thousands_is_told_from_there(
    silent_from: int, event_idx: bool
) -> None:
    faults = {silent_from: Fault.SILENCE}
    async with running(config(ring_size=64, event_idx=event_idx, faults=faults)) as device:
        sent = await send(device, mixed(LONG), seconds=0.5)
    assert sent.replayed.outcome is Outcome.INCOMPLETE
    assert sent.replayed.unanswered == tuple(range(silent_from, LONG))


@with_and_without_event_idx
async def test_what_was_refused_before_the_silence_is_told_as_refused(event_idx: bool) -> None:
    faults = {0: Fault.ERR, 5: Fault.ERR, 6: Fault.SILENCE}
    async with running(config(event_idx=event_idx, faults=faults)) as device:
        sent = await send(device, vlans(COUNT), seconds=0.5)
    assert sent.replayed.outcome is Outcome.INCOMPLETE
    assert sent.replayed.rejected == (0, 5)
    assert sent.replayed.unanswered == tuple(range(6, COUNT))


@with_and_without_event_idx
async def test_at_the_deadline_of_a_slow_device_what_it_has_done_is_applied(
    event_idx: bool,
) -> None:
    # It takes what the ring holds, 4 commands, a second each: at 6 seconds it has returned 4.
    async with running(config(event_idx=event_idx, seconds_a_command=1.0)) as device:
        sent = await send(device, vlans(COUNT), seconds=6.0)
    assert sent.replayed.outcome is Outcome.INCOMPLETE
    assert sent.applied == {0, 1, 2, 3}
    assert sent.replayed.next_index is None


@with_and_without_event_idx
async def test_a_deadline_that_has_passed_claims_nothing(event_idx: bool) -> None:
    async with running(config(event_idx=event_idx)) as device:
        sent = await send(device, vlans(COUNT), seconds=-1.0)
    assert sent.replayed.outcome is Outcome.INCOMPLETE
    assert sent.applied == set()


# --- with a length that no ack has ---


@with_and_without_event_idx
@in_every_order
@pytest.mark.parametrize("start_index", [0, 65530])
@pytest.mark.parametrize("at", range(COUNT))
async def test_a_wrong_length_is_noted_and_the_command_is_answered(
    at: int, start_index: int, order: Order, event_idx: bool
) -> None:
    commands = vlans(COUNT)
    configured = config(
        event_idx=event_idx,
        start_index=start_index,
        faults={at: Fault.WRONG_LENGTH},
        order=order,
    )
    async with running(configured) as device:
        sent = await send(device, commands)
        assert device.net.settings() == settings_after(configured, commands)
    told = _report(sent)
    assert (told["outcome"], told["applied"]) == ("restored", COUNT)
    assert told["notes"] == (
        "1 of 12 commands came back with a used length of 2, and an ack is 1 byte; what counts is "
        "the ack itself",
    )


@with_and_without_event_idx
@pytest.mark.parametrize("order", [Order.AS_SENT, Order.SHUFFLED])
async def test_a_refusal_with_a_wrong_length_is_a_refusal(order: Order, event_idx: bool) -> None:
    # VLAN 0 is there already when the second one comes.
    commands = (*vlans(3), *vlans(1), *vlans(6)[3:])
    faults = dict.fromkeys(range(len(commands)), Fault.WRONG_LENGTH)
    async with running(config(event_idx=event_idx, faults=faults, order=order)) as device:
        sent = await send(device, commands)
    assert (sent.replayed.outcome, sent.replayed.rejected) == (Outcome.REJECTED, (3,))
    assert sent.replayed.wrong_lengths == ((2, len(commands)),)


@with_and_without_event_idx
@pytest.mark.parametrize("positions", [[1], [LONG // 2, LONG - 1], range(LONG)])
async def test_wrong_lengths_among_thousands(positions: Iterable[int], event_idx: bool) -> None:
    commands = mixed(LONG)
    faults = _faults(positions, Fault.WRONG_LENGTH)
    async with running(config(ring_size=64, event_idx=event_idx, faults=faults)) as device:
        sent = await send(device, commands)
        assert device.net.settings() == settings_after(device.config, commands)
    assert sent.replayed.outcome is Outcome.RESTORED
    assert sent.replayed.wrong_lengths == ((2, len(faults)),)


# --- broken ---

BREAKING = [fault for fault in Fault if fault not in (Fault.ERR, Fault.SILENCE, Fault.WRONG_LENGTH)]
FIRST, MIDDLE, LAST = 0, 6, COUNT - 1

TEXTS = {
    Fault.ID_OUT_OF_RANGE: f"it returned descriptor {RING_SIZE}, which is not in flight",
    Fault.ID_NOT_IN_FLIGHT: "it returned descriptor {odd}, which is not in flight",
    Fault.ID_TWICE: "it returned descriptor {before}, which is not in flight",
    Fault.RUN_AHEAD: "the device ran ahead: {ahead} chains returned, 4 in flight",
    Fault.STALE_ACK: "an ack is 0xff, neither OK nor ERR",
    Fault.STRANGE_ACK: "an ack is 0x07, neither OK nor ERR",
}


def _text(fault: Fault, at: int) -> str:
    head = 2 * (at % AT_A_TIME)
    before = 2 * ((at - 1) % AT_A_TIME)
    ahead = AT_A_TIME + RING_SIZE
    return TEXTS[fault].format(odd=head + 1, before=before, ahead=ahead)


def _believable(fault: Fault, at: int, bank: int) -> set[int]:
    """The commands that are known to have been applied, where the one at `at` came back faulty.

    All before it; of a whole bank also those behind it whose acks are there; but nothing of what
    came with a used index that lies.
    """
    if fault is Fault.RUN_AHEAD:
        return set(range(at // AT_A_TIME * AT_A_TIME))
    if fault in (Fault.STALE_ACK, Fault.STRANGE_ACK):
        return set(range((at // bank + 1) * bank)) - {at}
    return set(range(at))


CASES = [
    (fault, at)
    for fault in BREAKING
    for at in (FIRST, MIDDLE, LAST)
    # Before the first there is none whose id it could be returned under.
    if (fault, at) != (Fault.ID_TWICE, FIRST)
]


@with_and_without_event_idx
@pytest.mark.parametrize(("fault", "at"), CASES)
async def test_a_broken_device_is_told_and_sent_nothing_more(
    fault: Fault, at: int, event_idx: bool
) -> None:
    async with running(config(event_idx=event_idx, faults={at: fault})) as device:
        sent = await send(device, vlans(COUNT))
        left = sent.words.available_index
        await asyncio.sleep(10.0)
        assert read_words(memory_of(device), device.geometry).available_index == left
    assert sent.replayed.outcome is Outcome.BROKEN
    assert sent.replayed.fault == _text(fault, at)
    assert sent.applied == _believable(fault, at, bank=2 if event_idx else 4)
    assert sent.replayed.rejected == ()
    # What was out when the fault came is all that was ever published.
    assert left == (at // AT_A_TIME + 1) * AT_A_TIME
    told = _report(sent)
    assert (told["ring"], told["device_must_reset"]) == (None, True)


@with_and_without_event_idx
@pytest.mark.parametrize("order", [Order.REVERSED, Order.SHUFFLED])
@pytest.mark.parametrize(("fault", "at"), CASES)
async def test_of_a_broken_device_that_is_out_of_order_the_faulty_command_is_not_applied(
    fault: Fault, at: int, order: Order, event_idx: bool
) -> None:
    configured = config(event_idx=event_idx, faults={at: fault}, order=order)
    async with running(configured) as device:
        sent = await send(device, vlans(COUNT))
        done = device.net.settings()["vlans"]
    assert sent.replayed.outcome is Outcome.BROKEN
    assert sent.replayed.fault
    assert at in sent.replayed.unanswered
    assert sent.applied <= set(done)
    assert set(range(at // AT_A_TIME * AT_A_TIME)) <= sent.applied


@with_and_without_event_idx
async def test_an_id_from_before_that_is_in_flight_again_is_not_taken_for_another(
    event_idx: bool,
) -> None:
    # The last command of one ring's worth and of the next have the same descriptors, so that the
    # device's lie about the first of the next is only seen when the last comes back as well.
    faults = {AT_A_TIME: Fault.ID_TWICE}
    async with running(config(event_idx=event_idx, faults=faults)) as device:
        sent = await send(device, vlans(COUNT))
    assert sent.replayed.outcome is Outcome.BROKEN
    assert AT_A_TIME in sent.replayed.unanswered
    assert set(range(AT_A_TIME)) <= sent.applied


@with_and_without_event_idx
@pytest.mark.parametrize("fault", BREAKING)
@pytest.mark.parametrize(
    ("at", "count"),
    [
        *((at, SHORTER) for at in (1, SHORTER // 2, SHORTER - 1)),
        *in_bulk((at, LONG) for at in (1, LONG // 2, LONG - 1)),
    ],
)
async def test_a_fault_in_a_long_batch_stops_the_replay_there(
    at: int, count: int, fault: Fault, event_idx: bool
) -> None:
    configured = config(ring_size=64, event_idx=event_idx, faults={at: fault})
    async with running(configured) as device:
        sent = await send(device, mixed(count))
    assert sent.replayed.outcome is Outcome.BROKEN
    assert at in sent.replayed.unanswered
    assert set(range(at // 32 * 32)) <= sent.applied <= set(range(at // 32 * 32 + 32))


@with_and_without_event_idx
async def test_what_was_refused_before_a_fault_is_told_as_refused(event_idx: bool) -> None:
    faults = {1: Fault.ERR, 4: Fault.ERR, 6: Fault.STRANGE_ACK}
    async with running(config(event_idx=event_idx, faults=faults)) as device:
        sent = await send(device, vlans(COUNT))
    assert sent.replayed.outcome is Outcome.BROKEN
    assert sent.replayed.rejected == (1, 4)


@with_and_without_event_idx
@pytest.mark.parametrize("start_index", [65528, 65535])
@pytest.mark.parametrize("fault", BREAKING)
async def test_a_fault_is_seen_where_the_indices_wrap(
    fault: Fault, start_index: int, event_idx: bool
) -> None:
    configured = config(event_idx=event_idx, start_index=start_index, faults={10: fault})
    async with running(configured) as device:
        sent = await send(device, vlans(COUNT))
    assert sent.replayed.outcome is Outcome.BROKEN
    assert sent.applied == _believable(fault, 10, bank=2 if event_idx else 4)


def _faults(positions: Iterable[int], fault: Fault) -> dict[int, Fault]:
    return dict.fromkeys(positions, fault)


@with_and_without_event_idx
async def test_after_a_reset_a_broken_device_takes_a_replay_again(event_idx: bool) -> None:
    faults = _faults(range(3), Fault.STALE_ACK)
    async with running(config(event_idx=event_idx, faults=faults)) as device:
        assert (await send(device, vlans(COUNT))).replayed.outcome is Outcome.BROKEN
        device.reset(Misbehaviour())
        sent = await send(device, vlans(COUNT), indices=Indices(0, 0))
        assert device.net.settings()["vlans"] == list(range(COUNT))
    assert sent.replayed.outcome is Outcome.RESTORED
