"""The stages of a migration's restore: asked for by `journalctl VDPAD_MIGRATION=…`."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from vdpad.service.events.event import UNLOGGED, Event

# How many refused or unanswered commands the sentence of an event names; its fields have more.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class OfOperation(Event):
    """A stage of a migration's restore."""

    migration: str
    target: str
    """Its kind."""
    device: str
    """Its name; "" for a ring that was lent, whose device vdpad does not know."""

    def where(self) -> str:
        """The target as sentences name it: "vhost-vdpa vdpa0", "a lent ring"."""
        return f"{self.target} {self.device}" if self.device else f"a {self.target} ring"


def _commands(number: int) -> str:
    return "1 command" if number == 1 else f"{number} commands"


@dataclass(frozen=True, slots=True)
class Prepared(OfOperation):
    """A state fits its device, and its commands are encoded."""

    NAME = "prepared"
    MESSAGE_ID = "74438ecbf1484b829449ed7e10eb73fb"
    commands: int
    doorbells: int
    prepare_us: int
    widened: tuple[str, ...]
    committer: int | None = None
    """The uid that may do with it what its preparer may; None where none was named."""

    def sentence(self) -> str:
        wider = "; ".join(("", *self.widened))
        return (
            f"{self.migration}: prepared {_commands(self.commands)} for {self.where()} "
            f"in {self.prepare_us} µs{wider}"
        )


@dataclass(frozen=True, slots=True)
class Committing(OfOperation):
    """The replay is about to begin."""

    NAME = "committing"
    MESSAGE_ID = "1d86ccbde60e4e3c8996e3c559fcde00"
    commands: int
    lent: str = ""
    """What it works on, where that was lent, by the kernel's numbers."""

    def sentence(self) -> str:
        lent = self.lent and f" ({self.lent})"
        return f"{self.migration}: sending {_commands(self.commands)} to {self.where()}{lent}"


@dataclass(frozen=True, slots=True)
class Ended(OfOperation):
    """An operation has come to its end, whichever."""

    outcome: str = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class ReplayEnded(Ended):
    """A replay has come to its end, and this is what it came to."""

    commands: int
    applied: int
    rejected: int
    unanswered: int
    command: tuple[str, ...]
    """The refused ones by name with arguments, then the unanswered ones; at most 64 of each."""
    doorbells: int
    prepare_us: int
    commit_us: int
    device_must_reset: bool
    fault: str
    acks: Mapping[tuple[str, str], int] = field(metadata=UNLOGGED)
    """How many commands by their name and ack: ok, err, none."""

    def named(self, first: int, count: int) -> str:
        """Some of the commands, for people."""
        shown = ", ".join(self.command[first : first + min(count, _NAMED)])
        return f"{shown}, …" if count > _NAMED else shown


@dataclass(frozen=True, slots=True)
class Restored(ReplayEnded):
    """Every command was acked OK."""

    NAME = "restored"
    MESSAGE_ID = "82bcb1442d434ec796c64fecadaa09fd"

    def sentence(self) -> str:
        return (
            f"{self.migration}: restored, {_commands(self.commands)} on {self.where()} "
            f"in {self.commit_us} µs"
        )


@dataclass(frozen=True, slots=True)
class Rejected(ReplayEnded):
    """A replay ended, and the device had refused commands of it."""

    NAME = "rejected"
    MESSAGE_ID = "6059d7614ca34837b10e8b30e07d6856"
    LEVEL = logging.ERROR

    def sentence(self) -> str:
        return (
            f"{self.migration}: {self.where()} refused {self.rejected} of "
            f"{_commands(self.commands)}: {self.named(0, self.rejected)}"
        )


@dataclass(frozen=True, slots=True)
class Incomplete(ReplayEnded):
    """The deadline came before the device had answered."""

    NAME = "incomplete"
    MESSAGE_ID = "ac50d53a034f451fa6b5105c93d303a4"
    LEVEL = logging.ERROR

    def sentence(self) -> str:
        refused = len(self.command) - min(self.unanswered, len(self.command))
        return (
            f"{self.migration}: {self.where()} left {self.unanswered} of "
            f"{_commands(self.commands)} unanswered by the deadline: "
            f"{self.named(refused, self.unanswered)}"
        )


@dataclass(frozen=True, slots=True)
class Broken(ReplayEnded):
    """The device did what no device may."""

    NAME = "broken"
    MESSAGE_ID = "19747e37fe0f478ca519c3b9774fb122"
    LEVEL = logging.ERROR

    def sentence(self) -> str:
        return (
            f"{self.migration}: {self.where()} broke the rules of the ring after {self.applied} "
            f"of {_commands(self.commands)}: {self.fault}"
        )


@dataclass(frozen=True, slots=True)
class CommitFailed(Ended):
    """The daemon itself failed in a commit."""

    NAME = "commit-failed"
    MESSAGE_ID = "103c7338606d4cefbca3dd27f887a93c"
    LEVEL = logging.CRITICAL
    exc_info: BaseException
    outcome: str = field(default="failed", kw_only=True)

    def sentence(self) -> str:
        return f"{self.migration}: vdpad failed in the commit on {self.where()}"


@dataclass(frozen=True, slots=True)
class Cancelled(Ended):
    """There will be no commit; the device was not touched."""

    NAME = "cancelled"
    MESSAGE_ID = "7320201c8c484262b16df1dc8588cc93"
    outcome: str = field(default="cancelled", kw_only=True)

    def sentence(self) -> str:
        return f"{self.migration}: cancelled before its commit"


@dataclass(frozen=True, slots=True)
class Interrupted(Ended):
    """An earlier daemon ended in the midst of it, and said so in its records only."""

    NAME = "interrupted"
    MESSAGE_ID = "5e627f8a68ba4d1aa3c91d240c74cfc1"
    LEVEL = logging.ERROR
    stage: str
    """The last one that is known, as the API names it."""
    commands: int
    applied: int
    """Those whose acks are known to have been read; the device may have served more."""
    device_must_reset: bool
    outcome: str = field(default="interrupted", kw_only=True)

    def sentence(self) -> str:
        return (
            f"{self.migration}: interrupted, an earlier vdpad ended while it was {self.stage} on "
            f"{self.where()}; {self.applied} of {_commands(self.commands)} are known to be applied"
        )
