"""The ring itself: what comes back, how, and what becomes of it when it is full and when it wraps.

All of this is seen with one command that may be sent as often as one likes; what it does is no
matter, as long as it is answered alike each time.
"""

import asyncio
from collections.abc import Callable, Sequence

from vdpad.conformance.answers import unlike, word
from vdpad.conformance.bench import Bench, NotApplicable
from vdpad.conformance.case import Case, Check, Level
from vdpad.conformance.commands import filler
from vdpad.conformance.odd_chains import Returned
from vdpad.conformance.odd_layout import OddChain
from vdpad.virtio.commands import ACK_ERR, ACK_NONE, ACK_OK
from vdpad.virtio.raw_command import AnyCommand

_TOGETHER = 8
"""Commands that are looked at together, unless the ring is smaller."""
_ROUNDS = 3
_INDICES = 1 << 16
# So few that a device in firmware, with milliseconds a command, answers all of them in time.
_AT_A_TIME = 256
# How long the index may take to wrap, in seconds.
_TO_WRAP = 60.0
_TO_INTERRUPT = 2.0
# So that a device hears a doorbell by itself, and not with the next one.
_A_WHILE = 0.05

_USED_RING = '2.7.8 "The Virtqueue Used Ring"'
_ACK = '5.1.6.5 "Control Virtqueue"'


def _seen(look: Callable[[Returned], Sequence[str]]) -> Check:
    """A look at some commands that were sent together."""

    async def check(bench: Bench) -> Sequence[str]:
        return look(await _some(bench))

    return check


async def _some(bench: Bench, *, interrupted: bool = False) -> Returned:
    count = min(_TOGETHER, bench.up.geometry.size // 2)
    chain = OddChain((_filler(bench).encode(),))
    seconds = min(_TO_INTERRUPT, bench.seconds) if interrupted else None
    return await bench.exchanged(*[chain] * count, interrupted=interrupted, seconds=seconds)


def _filler(bench: Bench) -> AnyCommand:
    return filler(bench.up.features, bench.up.config)


def _all_come_back(returned: Returned) -> Sequence[str]:
    sent, back = len(returned.heads), min(returned.moved, len(returned.heads))
    return [f"{back} of {sent} commands came back in time"] * (back < sent)


def _ids_are_heads(returned: Returned) -> Sequence[str]:
    strange = sorted({head for head, _ in returned.elements} - set(returned.heads))
    return [f"came back under the id {each}, which heads no chain" for each in strange]


def _each_comes_back_once(returned: Returned) -> Sequence[str]:
    heads = [head for head, _ in returned.elements]
    twice = sorted({each for each in heads if heads.count(each) > 1})
    return [f"chain {each} came back {heads.count(each)} times" for each in twice]


def _index_stays_behind(returned: Returned) -> Sequence[str]:
    sent = len(returned.heads)
    said = f"the used index went on by {returned.moved}, of {sent} commands that were sent"
    return [said] * (returned.moved > sent)


def _lengths_are_acks(returned: Returned) -> Sequence[str]:
    wrong = sorted({length for _, length in returned.elements if length != 1})
    return [f"came back with a used length of {each}, and an ack is 1 byte" for each in wrong]


def _in_order(returned: Returned) -> Sequence[str]:
    sent = [head for head in returned.heads if head in dict(returned.elements)]
    if [head for head, _ in returned.elements if head in sent] == sent:
        return ()
    return ["commands came back in another order than that in which they were sent"]


def _acks_are_written(returned: Returned) -> Sequence[str]:
    missing = returned.acks().count(ACK_NONE)
    return [f"{missing} of {len(returned.heads)} came back with no ack written"] * (missing > 0)


def _acks_are_known(returned: Returned) -> Sequence[str]:
    known = {ACK_OK, ACK_ERR, ACK_NONE, None}
    return [f"an ack of {each}" for each in sorted(set(returned.acks()) - known, key=str)]


async def _interrupts(bench: Bench) -> Sequence[str]:
    returned = await _some(bench, interrupted=True)
    if not returned.is_late:
        return ()
    back = "came back, and" if returned.is_whole else "did not all come back, and"
    return [f"the commands {back} no interrupt told of it"]


async def _fills_up(bench: Bench) -> Sequence[str]:
    count = bench.up.geometry.size // 2
    return await _alike(bench, [count] * 2)


async def _wraps(bench: Bench) -> Sequence[str]:
    # Numbers that do not divide a ring's size, so that batches lie across its end.
    size = bench.up.geometry.size
    return await _alike(bench, [max(1, size // 2 - 1), 1] * _ROUNDS)


async def _index_wraps(bench: Bench) -> Sequence[str]:
    now = asyncio.get_running_loop().time
    began, sent = now(), 0
    while sent <= _INDICES:
        found = await _alike(bench, [_AT_A_TIME])
        if found:
            return [f"after {sent} commands: {each}" for each in found]
        sent += _AT_A_TIME
        if now() - began > _TO_WRAP:
            raise NotApplicable(
                f"{sent} commands took {now() - began:.0f} s, and the index wraps at {_INDICES}"
            )
    return ()


async def _alike(bench: Bench, batches: Sequence[int]) -> Sequence[str]:
    """Whether each of so many commands, batch by batch, is answered as the first is."""
    command = _filler(bench)
    expected = await bench.ack(command)
    for count in batches:
        acks = await bench.acks(*[command] * count)
        other = [each for each in acks if each != expected]
        if expected is None or other:
            first = word(other[0] if other else None)
            return [f"{len(other) or count} of {count}: {first}; the first was {word(expected)}"]
    return ()


async def _idle_doorbell(bench: Bench) -> Sequence[str]:
    queue = bench.queue()
    try:
        queue.kick()
        await queue.called(_A_WHILE)
    finally:
        queue.close()
    return await _alike(bench, [1])


async def _alike_in_batch(bench: Bench) -> Sequence[str]:
    assert bench.surveyed is not None
    return [each for each in map(unlike, bench.surveyed.answers) if each is not None]


def _case(id_: str, title: str, clause: str, check: Check, level: Level = Level.MUST) -> Case:
    return Case(id_, title, clause, level, check)


CASES: tuple[Case, ...] = (
    _case("used.all", "every command comes back", _USED_RING, _seen(_all_come_back)),
    _case("used.id", "each comes back by its own id", _USED_RING, _seen(_ids_are_heads)),
    _case("used.once", "each comes back once", _USED_RING, _seen(_each_comes_back_once)),
    _case(
        "used.index",
        "the used index never runs ahead of what was sent",
        _USED_RING,
        _seen(_index_stays_behind),
    ),
    _case(
        "used.length",
        "the used length is what was written: an ack",
        _USED_RING,
        _seen(_lengths_are_acks),
        Level.SHOULD,
    ),
    _case(
        "used.order",
        "commands come back in the order in which they were sent",
        '2.7.9 "In-order use of descriptors"',
        _seen(_in_order),
        Level.SHOULD,
    ),
    _case("ack.written", "every ack is written", _ACK, _seen(_acks_are_written)),
    _case("ack.known", "an ack is OK or ERR", _ACK, _seen(_acks_are_known)),
    _case(
        "interrupt",
        "an interrupt that was asked for comes",
        '2.7.7 "Used Buffer Notification Suppression"',
        _interrupts,
    ),
    _case(
        "doorbell.idle",
        "a doorbell with nothing behind it does nothing",
        '2.7.13 "Supplying Buffers to The Device"',
        _idle_doorbell,
    ),
    _case("ring.full", "a ring that is full is served, and again", "2.7", _fills_up),
    _case("ring.wrap", "batches may lie across the ring's end", "2.7", _wraps),
    _case(
        "ring.index-wrap",
        "the indices go on from 65535 to 0",
        '2.7.6 "The Virtqueue Available Ring"',
        _index_wraps,
    ),
    _case(
        "batch.alike",
        "commands are answered in a batch as they are alone",
        "5.1.6.5",
        _alike_in_batch,
    ),
)
