"""The daemon's own life, and its troubles beside the requests."""

import logging
from dataclasses import dataclass

from vdpad.service.events.event import Event


@dataclass(frozen=True, slots=True)
class Stopping(Event):
    """Requests are taken no more."""

    NAME = "stopping"
    MESSAGE_ID = "e2c188787c0a480a98d253b5e27d4378"
    committing: int
    """Commits that run, and end by their deadlines."""

    def sentence(self) -> str:
        return f"stopping: no new requests; {self.committing} commits run to their end"


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """The end of the daemon."""

    NAME = "stopped"
    MESSAGE_ID = "819c74070801495692b80921705380ae"

    def sentence(self) -> str:
        return "stopped"


@dataclass(frozen=True, slots=True)
class Reloaded(Event):
    """The configuration was read again."""

    NAME = "reloaded"
    MESSAGE_ID = "83150e7b95074ad6a2d980892b39a786"
    taken: tuple[str, ...]
    """Settings that hold from now on."""
    needs_restart: tuple[str, ...]
    """Settings that differ, and cannot be taken while running."""

    def sentence(self) -> str:
        taken = ", ".join(self.taken) or "nothing new"
        if not self.needs_restart:
            return f"configuration read: {taken}"
        return (
            f"configuration read: {taken}; not without a restart: {', '.join(self.needs_restart)}"
        )


@dataclass(frozen=True, slots=True)
class NotReloaded(Event):
    """The configuration could not be read again, and the one before holds."""

    NAME = "not-reloaded"
    MESSAGE_ID = "1439b0af36e84588bd7f72298249927c"
    LEVEL = logging.ERROR
    reason: str

    def sentence(self) -> str:
        return f"configuration not read, the one before holds: {self.reason}"


@dataclass(frozen=True, slots=True)
class RecordsRead(Event):
    """What earlier daemons wrote of their operations is known."""

    NAME = "records-read"
    MESSAGE_ID = "fb34d3584ff540128e68b32637f2eb07"
    records: int

    def sentence(self) -> str:
        return f"{self.records} records of earlier daemons were read"


@dataclass(frozen=True, slots=True)
class RecordLost(Event):
    """A record cannot be read or written."""

    NAME = "record-lost"
    MESSAGE_ID = "4f134e976d2946c3b660ed15748fd050"
    LEVEL = logging.ERROR
    record: str
    """The migration; where that cannot be told, the file."""
    reason: str

    def sentence(self) -> str:
        return f"the record of {self.record} was lost: {self.reason}"


@dataclass(frozen=True, slots=True)
class NoRecordsKept(Event):
    """What operations come to will not be known after this daemon."""

    NAME = "no-records-kept"
    MESSAGE_ID = "10a46b676659412c871c28e44f0b8bcc"
    LEVEL = logging.ERROR
    reason: str

    def sentence(self) -> str:
        return f"no records are kept: {self.reason}"
