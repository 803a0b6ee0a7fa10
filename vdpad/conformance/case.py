"""A case of the suite: what must hold, by which clause, and how that is seen.

A case's check looks at a fresh device and tells what does not hold, as sentences; none is a pass.
What comes of that is the level's business: what the specification demands of a device (MUST) makes
it faulty, anything else (SHOULD) is a note. SHOULD also stands where the specification only says
what no driver may send: what a device does with that is open, and refusing it is the wise answer.
A device that breaks the rules of the ring fails whatever case that happens in.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from vdpad.conformance.bench import Bench
from vdpad.virtio.features import FeatureSet

Check = Callable[[Bench], Awaitable[Sequence[str]]]
"""Tells what does not hold. Raises bench.NotApplicable where this device cannot be asked."""


class Level(StrEnum):
    """How much the specification wants it."""

    MUST = "MUST"
    SHOULD = "SHOULD"


class Verdict(StrEnum):
    """What a case came to."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    """A MUST does not hold."""
    NOTE = "note"
    """A SHOULD does not hold."""
    NOT_APPLICABLE = "not-applicable"
    """The device cannot be asked: it lacks a feature, or something else that is told."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the suite's table."""

    id: str
    """For people and programs: it stays what it is from one version to the next."""
    title: str
    """What holds of a device that passes."""
    clause: str
    """Of virtio 1.4; below 5.1.6.5, the control virtqueue, by title."""
    level: Level
    check: Check
    needs: FeatureSet = frozenset()
    """Features without which it is not applicable."""


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """What a case came to on one device."""

    case: Case
    verdict: Verdict
    seen: tuple[str, ...] = ()
    """What does not hold, or why it is not applicable."""
