"""How far an operation has come, as its record says it; and the ways in which it can end.

An ending is all that is known of an operation beside its details. It is made where the operation
ends (operations/), or from a record that an earlier daemon left (recalled.py).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import ClassVar

from vdpad.restore.report import Report
from vdpad.service.refusal import Kind


class Stage(IntEnum):
    """How far an operation has come."""

    PREPARED = 1
    COMMITTING = 2
    RESTORED = 3
    FAILED = 4
    CANCELLED = 5
    STOPPED = 6
    """Cancelled by the daemon's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyEnding:
    """What every ending has, and most of them leave out."""

    stage: ClassVar[Stage]
    """The record's last."""
    renewable: ClassVar[bool] = False
    """Nothing was sent, and it was no caller who ended it: the same may be prepared again."""
    report: Report | None = None
    failure: tuple[Kind, str] | None = None
    """What callers of a failed commit are told, beside the report."""
    ended: datetime | None = None
    """By the wall clock, of an operation that was interrupted when that was found; None where an
    older vdpad wrote it down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Success(AnyEnding):
    """Every command was acked OK."""

    stage = Stage.RESTORED
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure(AnyEnding):
    """A commit that came to no good end; without a report where the daemon itself failed."""

    stage = Stage.FAILED
    failure: tuple[Kind, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption(AnyEnding):
    """The daemon died before the commit."""

    stage = Stage.FAILED
    renewable = True
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation(AnyEnding):
    """A caller cancelled it before its commit."""

    stage = Stage.CANCELLED


@dataclass(frozen=True, slots=True, kw_only=True)
class Shutdown(AnyEnding):
    """The daemon stopped before the commit."""

    stage = Stage.STOPPED
    renewable = True


Ending = Success | Failure | Interruption | Cancellation | Shutdown
