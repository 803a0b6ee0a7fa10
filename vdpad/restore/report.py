"""The report: what a replay came to, with names, as the API sends it (docs/api.md, "Results")."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Protocol

from vdpad.restore.replay import Outcome, Replayed
from vdpad.state import wording
from vdpad.virtio.commands import ACK_ERR
from vdpad.virtio.packed_ring import PACKED_INDEX, WRAP
from vdpad.virtio.raw_command import AnyCommand

# Stops a device that refuses everything from making replies that no datagram takes.
MAX_LINES = 64


class Commands(Protocol):
    """A program's commands, in their order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> AnyCommand: ...


@dataclass(frozen=True, slots=True)
class Line:
    """A command that was not applied."""

    index: int
    """In the order of sending, from 0."""
    command: str
    arguments: str
    ack: int | None
    """1, or None where none came."""


@dataclass(frozen=True, slots=True)
class RingIndices:
    """Where the ring stands when it is handed back."""

    next_available: int
    next_used: int
    available_wrap: int | None = None
    """Of a packed ring, as the next: its wrap counters. None of a split one."""
    used_wrap: int | None = None

    @classmethod
    def of(cls, index: int) -> "RingIndices":
        """An idle ring's.

        Args:
            index: as ControlQueue has it.
        """
        if not index & PACKED_INDEX:
            return cls(index, index)
        offset, wrap = index & ~PACKED_INDEX & ~WRAP, int(bool(index & WRAP))
        return cls(offset, offset, wrap, wrap)

    @property
    def index(self) -> int:
        """The same as ControlQueue has it."""
        if self.available_wrap is None:
            return self.next_available
        return PACKED_INDEX | self.available_wrap * WRAP | self.next_available

    def to_json(self) -> dict[str, int]:
        """Plain values: wrap counters only where there are any."""
        plain = {"next_available": self.next_available, "next_used": self.next_used}
        if self.available_wrap is not None and self.used_wrap is not None:
            plain |= {"available_wrap": self.available_wrap, "used_wrap": self.used_wrap}
        return plain


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a restore. The API's shape, field by field; notes only where there are any."""

    migration: str
    outcome: Outcome
    commands: int
    applied: int
    rejected: tuple[Line, ...]
    unanswered: tuple[Line, ...]
    rejected_total: int
    unanswered_total: int
    doorbells: int
    widened: tuple[str, ...]
    prepare_us: int
    commit_us: int
    ring: RingIndices | None
    device_must_reset: bool
    notes: tuple[str, ...] = ()
    """What a device should not do and what changes nothing, as sentences."""

    def to_json(self) -> dict[str, object]:
        """Plain values for a reply."""
        # Not asdict of the whole: it copies every field, and the guest waits for the reply.
        plain = {name: getattr(self, name) for name in _FIELDS}
        plain["rejected"] = tuple(map(asdict, self.rejected))
        plain["unanswered"] = tuple(map(asdict, self.unanswered))
        plain["ring"] = self.ring and self.ring.to_json()
        if not self.notes:
            del plain["notes"]
        return plain


_FIELDS = tuple(each.name for each in fields(Report))


def report(
    migration: str,
    commands: Commands,
    replayed: Replayed,
    *,
    widened: tuple[str, ...],
    prepare_us: int,
) -> Report:
    """Names what became of each command."""
    index = replayed.next_index
    not_applied = len(replayed.rejected) + len(replayed.unanswered)
    return Report(
        migration=migration,
        outcome=replayed.outcome,
        commands=len(commands),
        applied=len(commands) - not_applied,
        rejected=_lines(commands, replayed.rejected, ACK_ERR),
        unanswered=_lines(commands, replayed.unanswered, None),
        rejected_total=len(replayed.rejected),
        unanswered_total=len(replayed.unanswered),
        doorbells=replayed.doorbells,
        widened=widened,
        prepare_us=prepare_us,
        commit_us=replayed.elapsed_ns // 1000,
        ring=None if index is None else RingIndices.of(index),
        device_must_reset=index is None,
        notes=length_notes(replayed.wrong_lengths, len(commands)),
    )


def joined(first: Report, second: Report) -> Report:
    """The report of two replays as one: the second's commands come behind the first's."""
    behind = first.commands
    return replace(
        second,
        commands=behind + second.commands,
        applied=first.applied + second.applied,
        rejected=_joined(first.rejected, second.rejected, behind),
        unanswered=_joined(first.unanswered, second.unanswered, behind),
        rejected_total=first.rejected_total + second.rejected_total,
        unanswered_total=first.unanswered_total + second.unanswered_total,
        doorbells=first.doorbells + second.doorbells,
        widened=(*first.widened, *second.widened),
        prepare_us=first.prepare_us + second.prepare_us,
        commit_us=first.commit_us + second.commit_us,
        notes=(*first.notes, *second.notes),
    )


def _joined(first: tuple[Line, ...], second: tuple[Line, ...], behind: int) -> tuple[Line, ...]:
    moved = (replace(each, index=each.index + behind) for each in second)
    return (*first, *moved)[:MAX_LINES]


def length_notes(wrong: Iterable[tuple[int, int]], commands: int) -> tuple[str, ...]:
    """What there is to say of used lengths; at most one sentence.

    Args:
        wrong: as Replayed has them.
        commands: how many were sent.
    """
    counts = dict(wrong)
    if not counts:
        return ()
    lengths = wording.some([str(length) for length in counts])
    return (
        f"{sum(counts.values())} of {wording.count(commands, 'command')} came back with a used "
        f"length of {lengths}, and an ack is 1 byte; what counts is the ack itself",
    )


def _lines(commands: Commands, indices: Iterable[int], ack: int | None) -> tuple[Line, ...]:
    return tuple(
        Line(index, commands[index].NAME, commands[index].arguments(), ack)
        for index in list(indices)[:MAX_LINES]
    )
