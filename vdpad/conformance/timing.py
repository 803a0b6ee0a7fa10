"""How long a device takes: each command alone, all one by one, and all as one batch.

A round sends the same commands as the survey, first one by one, then together, on a device that is
up; what keeps them from being sent once more is undone in between, and not timed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vdpad.conformance.bench import Bench
from vdpad.conformance.commands import undone
from vdpad.restore.replay import Outcome, Replayed
from vdpad.virtio.commands import Command

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
    alone: Spread | None
    """All of them one by one."""
    batch: Spread | None
    """All of them as one batch."""


def spread(microseconds: Sequence[float]) -> Spread:
    """The percentiles of at least one time."""
    ordered = sorted(microseconds)
    return Spread(*(ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99)))


async def timed(bench: Bench, commands: Sequence[Command], rounds: int) -> Times:
    """Times commands on a device that was just reset, until it once does not answer."""
    measured = []
    for _ in range(rounds):
        each = await _round(bench, commands)
        if each is None:
            break
        measured.append(each)
    if not commands or not measured:
        return Times(0, (), None, None)
    return Times(
        rounds=len(measured),
        commands=tuple(map(spread, zip(*(alone for alone, _ in measured), strict=True))),
        alone=spread([round(sum(alone), 3) for alone, _ in measured]),
        batch=spread([batch for _, batch in measured]),
    )


async def _round(bench: Bench, commands: Sequence[Command]) -> tuple[list[float], float] | None:
    """Each one's time alone, and the batch's, in microseconds; None where an answer is missing."""
    undo = undone(list(commands))
    alone = [await bench.replayed(each) for each in commands]
    between = await bench.replayed(*undo)
    batch = await bench.replayed(*commands)
    after = await bench.replayed(*undo)
    if any(each.outcome not in _ALL_CAME for each in (*alone, between, batch, after)):
        return None
    return [_us(each) for each in alone], _us(batch)


def _us(sent: Replayed) -> float:
    return sent.elapsed_ns / 1000
