"""What a device answered to a command of each kind that carries state, alone and in a batch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vdpad.restore.replay import Outcome, Replayed
from vdpad.restore.report import length_notes
from vdpad.virtio.commands import ACK_ERR, ACK_OK, Command
from vdpad.virtio.raw_command import AnyCommand


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """What came of one command; the times are in microseconds."""

    command: Command
    alone: int | None
    """Its ack; None where none came."""
    alone_us: float
    in_batch: int | None


@dataclass(frozen=True, slots=True)
class Survey:
    """Each command alone, and all of them as one batch behind a reset."""

    answers: tuple[CommandOutcome, ...]
    batch_us: float
    batch_doorbells: int
    faults: tuple[str, ...]
    """How the device broke the rules of the ring meanwhile."""
    notes: tuple[str, ...]
    """What a restore takes no offence at."""


def acks_of(sent: Replayed, count: int) -> list[int | None]:
    """The ack of each of so many commands; None where none came."""
    return [
        None if at in sent.unanswered else ACK_ERR if at in sent.rejected else ACK_OK
        for at in range(count)
    ]


def surveyed(commands: Sequence[Command], alone: Sequence[Replayed], batch: Replayed) -> Survey:
    """What came of commands that were sent one by one, and then together."""
    sent = (*alone, batch)
    in_batch = acks_of(batch, len(commands))
    return Survey(
        answers=tuple(
            CommandOutcome(command, acks_of(each, 1)[0], each.elapsed_ns / 1000, ack)
            for command, each, ack in zip(commands, alone, in_batch, strict=True)
        ),
        batch_us=batch.elapsed_ns / 1000,
        batch_doorbells=batch.doorbells,
        faults=tuple(dict.fromkeys(each.fault for each in sent if each.outcome is Outcome.BROKEN)),
        notes=notes_on_lengths(sent, 2 * len(commands)),
    )


def notes_on_lengths(sent: Sequence[Replayed], commands: int) -> tuple[str, ...]:
    """What there is to say of used lengths, of so many commands in all."""
    wrong: Counter[int] = Counter()
    for each in sent:
        wrong.update(dict(each.wrong_lengths))
    return length_notes(sorted(wrong.items()), commands)


def word(ack: int | None) -> str:
    """An ack in a sentence."""
    return "not answered" if ack is None else "refused" if ack == ACK_ERR else "acknowledged"


def named(command: AnyCommand) -> str:
    """A command in a sentence."""
    return f"{command.NAME} {command.arguments()}".strip()


def not_taken(answer: CommandOutcome, seconds: float) -> str | None:
    """What is wrong where a command that the features allow was not acked OK; None where it was.

    Args:
        answer: to it.
        seconds: how long it was waited for.
    """
    name = named(answer.command)
    if answer.alone is None or answer.in_batch is None:
        return f"{name}: not answered within {seconds:g} s"
    if answer.alone == answer.in_batch == ACK_ERR:
        return f"{name}: refused, though the device offers {answer.command.FEATURE.name}"
    return None


def unlike(answer: CommandOutcome) -> str | None:
    """What is wrong where a command was answered otherwise in a batch than alone."""
    if None in (answer.alone, answer.in_batch) or answer.alone == answer.in_batch:
        return None
    return (
        f"{named(answer.command)}: {word(answer.alone)} alone, {word(answer.in_batch)} in the batch"
    )
