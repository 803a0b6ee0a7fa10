"""How long a device takes: each command alone and among its like, all one by one and as one batch.

A round sends the same commands as the survey, first one by one, then together, and then each in a
batch of its like, on a device that is up; what keeps them from being sent once more is undone in
between, and not timed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vdpad.conformance.bench import Bench
from vdpad.conformance.commands import alike, undone
from vdpad.restore.replay import Outcome, Replayed
from vdpad.virtio.commands import Command

# How many of its like a command is timed among; a slow device answers so many in time.
_ALIKE = 8
_ALL_CAME = (Outcome.RESTORED, Outcome.REJECTED)


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of times in microseconds, each a time that was measured (nearest rank)."""

    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class Times:
    """What a device took in some rounds."""

    rounds: int
    """How many were whole; the others count for nothing."""
    commands: tuple[Spread, ...]
    """Each alone, in the order of sending; empty where no round was whole."""
    in_batches: tuple[Spread, ...]
    """Each in a batch of its like, by the batch's time for one; likewise."""
    alone: Spread | None
    """All of them one by one."""
    batch: Spread | None
    """All of them as one batch."""


def spread(microseconds: Sequence[float]) -> Spread:
    """The percentiles of at least one time."""
    ordered = sorted(microseconds)
    return Spread(*(ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99)))


class _Round(NamedTuple):
    """What one took, in microseconds."""

    alone: list[float]
    in_batches: list[float]
    batch: float


async def timed(bench: Bench, commands: Sequence[Command], rounds: int) -> Times:
    """Times commands on a device that was just reset, until it once does not answer."""
    measured: list[_Round] = []
    for _ in range(rounds):
        each = await _round(bench, commands)
        if each is None:
            break
        measured.append(each)
    if not commands or not measured:
        return Times(0, (), (), None, None)
    return Times(
        rounds=len(measured),
        commands=_spreads([each.alone for each in measured]),
        in_batches=_spreads([each.in_batches for each in measured]),
        alone=spread([round(sum(each.alone), 3) for each in measured]),
        batch=spread([each.batch for each in measured]),
    )


def _spreads(rounds: Sequence[Sequence[float]]) -> tuple[Spread, ...]:
    """Those of each command, of all rounds."""
    return tuple(map(spread, zip(*rounds, strict=True)))


async def _round(bench: Bench, commands: Sequence[Command]) -> _Round | None:
    """One round; None where an answer is missing."""
    undo = undone(commands)
    like = [alike(each, _ALIKE) for each in commands]
    alone = [await bench.replayed(each) for each in commands]
    untimed = [await bench.replayed(*undo)]
    batch = await bench.replayed(*commands)
    untimed.append(await bench.replayed(*undo))
    in_batches = [await bench.replayed(*each) for each in like]
    untimed.append(await bench.replayed(*undone([each for batch in like for each in batch])))
    if any(each.outcome not in _ALL_CAME for each in (*alone, batch, *in_batches, *untimed)):
        return None
    return _Round(
        [_us(each) for each in alone],
        [round(_us(each) / _ALIKE, 3) for each in in_batches],
        _us(batch),
    )


def _us(sent: Replayed) -> float:
    return sent.elapsed_ns / 1000
