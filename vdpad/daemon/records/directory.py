"""Records: what each operation came to, where it outlives this process, though not a reboot.

One small file an operation (file.py), in a directory of our own (service/own_directory.py). A
reboot clears it, with the devices that it tells of.

A file's mark and acks change in place, through a shared mapping: a commit that begins, goes on and
ends well costs stores into memory and no system call, as the guest is stopped meanwhile. The mark's
stages:

    PREPARED ──▶ COMMITTING ──▶ RESTORED
       └──▶ CANCELLED, STOPPED           (FAILED is only ever written with a new file)

COMMITTING is stored before the first command is published, and RESTORED after the last ack was
read, each end in one store with its time. So a file that says PREPARED is of an operation that sent
nothing; one that says COMMITTING is of one that was interrupted, and its acks say how far that had
come.

Only `Records` makes and removes files. What cannot be written is told and lives in this process's
memory: a record never fails an operation.
"""

import contextlib
import hashlib
import mmap
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from vdpad.daemon.events.daemon import RecordLost
from vdpad.daemon.records.aside import Aside
from vdpad.daemon.records.details import Details
from vdpad.daemon.records.endings import Ending, Stage
from vdpad.daemon.records.file import (
    ACKS_AT,
    MAX_RECORD,
    BadRecord,
    Body,
    Record,
    StoredRecord,
    decode_record,
    encode_record,
    in_memory,
)
from vdpad.daemon.records.memory import kept_memory
from vdpad.daemon.records.recalled import ending, interrupted
from vdpad.errors import VdpadError, why
from vdpad.queues.control_queue import Lent
from vdpad.restore.program import Program
from vdpad.service.events.announcing import Announce, log_event
from vdpad.service.own_directory import NoDirectory, NoFile, read_file, take_directory, write_file

_NAME = re.compile(r"[0-9a-f]{32}\.operation")
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.new")


class NoRecords(VdpadError):
    """The directory cannot be used."""


class Records:
    """The directory of records, one file for each migration, and the only one who writes there."""

    def __init__(self, directory: Path | None, announce: Announce = log_event) -> None:
        """Takes the directory, and makes it where it is missing.

        Args:
            directory: ours alone; None keeps nothing.
            announce: whom to tell of records that are lost.

        Raises:
            NoRecords: it cannot be used.
        """
        self._announce = announce
        self._next = 0
        try:
            self._directory = None if directory is None else take_directory(directory, "records")
        except NoDirectory as error:
            raise NoRecords(str(error)) from error
        self._aside = None if self._directory is None else Aside(self._directory)

    def close(self) -> None:
        """Leaves the directory to the next process."""
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    # --- what was ---

    def load(self) -> list[StoredRecord]:
        """All records, oldest first; what cannot be read is told, and set aside (aside.py)."""
        if self._directory is None:
            return []
        self._bring_back(self._directory)
        found = sorted(self._read_all(self._directory), key=lambda each: each.body.sequence)
        if found:
            self._next = found[-1].body.sequence + 1
        return found

    def _bring_back(self, directory: int) -> None:
        """Has what was set aside, and can be read by now, among the records again."""
        assert self._aside is not None
        records = set(os.listdir(directory))
        for name, record in self._aside:
            if record in records:
                continue
            with contextlib.suppress(BadRecord, OSError):
                found = _read(name, record, directory)
                ending(found)
                interrupted(found)
                self._aside.bring_back(name)

    def _read_all(self, directory: int) -> Iterator[StoredRecord]:
        for name in os.listdir(directory):
            if _UNFINISHED.fullmatch(name):
                self._remove(name)
            if not _NAME.fullmatch(name):
                continue
            try:
                yield _read(name, name, directory)
            except (BadRecord, OSError) as error:
                self._set_aside(name, name, error)
        assert self._aside is not None
        self._aside.trim()

    def memory(self, name: str, size: int) -> memoryview | None:
        """Memory that the next process finds as this one leaves it; zeros at first.

        Args:
            name: of its file, which no other memory has.
            size: in bytes. Of another size it begins with zeros again.

        Returns:
            None where it cannot be had.
        """
        if self._directory is None:
            return None
        try:
            return kept_memory(name, self._directory, size)
        except OSError as error:
            self._announce(RecordLost(name, why(error)))
            # Whoever has one again is not to find what was before this process.
            self._remove(name)
            return None

    def set_aside(self, migration: str, error: BadRecord) -> None:
        """Tells of a record that makes no sense to us, and sets it aside."""
        self._set_aside(_name(migration), migration, error)

    def _set_aside(self, name: str, told_as: str, error: BadRecord | OSError) -> None:
        assert self._aside is not None
        became = self._aside.take(name)
        self._announce(RecordLost(told_as, f"{why(error)}; {became}"))

    # --- what is ---

    def create(self, details: Details, program: Program) -> Record:
        """The record of an operation that was prepared; it takes the place of an earlier one.

        Args:
            details: of the operation.
            program: what will be sent.
        """
        body = self._body(details, most_in_flight=program.most_in_flight)
        return Record(body, self._begun(body, program) or in_memory(body))

    def settle(self, record: Record, ending: Ending) -> None:
        """Writes down how an operation ended, in as few bytes as that takes, and closes its record.

        Args:
            record: open, or closed already.
            ending: how it ended.
        """
        record.close()
        self.rewrite(record.body, ending, record.lent)

    def write(self, details: Details, ending: Ending) -> None:
        """The same for an operation that had no record by its end."""
        self.rewrite(self._body(details), ending)

    def rewrite(self, body: Body, ending: Ending, lent: Lent | None = None) -> None:
        """The same for an operation of an earlier daemon, by what its commit was lent."""
        if self._directory is None:
            return
        self._drop_aside(body.migration)
        body = body.model_copy(update={"report": ending.report, "failure": ending.failure})
        whole = encode_record(body, ending.stage, ended=ending.ended, lent=lent)
        try:
            _write(_name(body.migration), self._directory, whole)
        except OSError as error:
            self._announce(RecordLost(body.migration, why(error)))

    def forget(self, migration: str) -> None:
        """Removes the record of a migration, where there is one."""
        self._remove(_name(migration))
        self._drop_aside(migration)

    def _body(self, details: Details, most_in_flight: int = 0) -> Body:
        """What a record says beside its commands; each has a higher sequence than those before."""
        body = Body(sequence=self._next, most_in_flight=most_in_flight, **vars(details))
        self._next += 1
        return body

    def _begun(self, body: Body, program: Program) -> mmap.mmap | None:
        """Puts a file in its place, and maps what of it may change; None where that can't be."""
        if self._directory is None:
            return None
        self._drop_aside(body.migration)
        name = _name(body.migration)
        whole = encode_record(body, Stage.PREPARED, program)
        try:
            return _write(name, self._directory, whole, changing=ACKS_AT + body.commands)
        except OSError as error:
            self._announce(RecordLost(body.migration, why(error)))
            # What an earlier attempt left there would be taken for this one.
            self._remove(name)
            return None

    def _drop_aside(self, migration: str) -> None:
        if self._aside is not None:
            self._aside.drop(_name(migration))

    def _remove(self, name: str) -> None:
        if self._directory is not None:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._directory)


def records_directory(configured: Path | None, environment: Mapping[str, str]) -> Path | None:
    """Where records are kept: as configured, else in systemd's RuntimeDirectory=, else nowhere."""
    runtime = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if configured is not None or not runtime:
        return configured
    return Path(runtime, "operations")


# --- the directory ---


def _name(migration: str) -> str:
    return hashlib.sha256(migration.encode()).hexdigest()[:32] + ".operation"


def _write(name: str, directory: int, whole: bytes, *, changing: int = 0) -> mmap.mmap | None:
    """Puts a file in its place at once, and maps so many bytes of its beginning."""
    return write_file(name, directory, whole, MAX_RECORD, changing=changing)


def _read(name: str, record: str, directory: int) -> StoredRecord:
    """A record by its file.

    Args:
        name: that it has.
        record: that a record of its migration has.
        directory: open.

    Raises:
        BadRecord: it is none.
        OSError: it cannot be read.
    """
    try:
        whole = read_file(name, directory, MAX_RECORD)
    except NoFile as error:
        raise BadRecord(str(error)) from error
    found = decode_record(whole)
    if record != _name(found.body.migration):
        raise BadRecord(f"expected another migration, got {found.body.migration}")
    return found
