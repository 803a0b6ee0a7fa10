"""Records as a daemon leaves them, and a process that goes on writing them (`main`)."""

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.batches import mixed
from vdpad.daemon.records.details import Details
from vdpad.daemon.records.directory import Records
from vdpad.daemon.records.endings import Failure, Success
from vdpad.daemon.records.file import Record, StoredRecord
from vdpad.daemon.records.owners import Owners
from vdpad.restore.program import Program, encode
from vdpad.restore.replay import Outcome, Replayed
from vdpad.restore.report import Report, RingIndices, report
from vdpad.service.refusal import Kind
from vdpad.virtio.commands import ACK_OK, Command
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitGeometry, lay_out

GEOMETRY: SplitGeometry = lay_out(64, Region(0x10000, 0x20000))
COMMANDS = mixed(200)
DIGEST = "0a" * 32
OWNERS = Owners(1000, 1001)
BEGAN = datetime(2026, 11, 27, 19, 3, 39, 123456, UTC)
ENDED = datetime(2026, 11, 27, 19, 3, 40, 654321, UTC)


def encoded(commands: tuple[Command, ...] = COMMANDS) -> Program:
    """The commands for a ring of 64."""
    return encode(commands, GEOMETRY, event_idx=True)


def details(**fields: Any) -> Details:
    """Those of a prepared operation, with others for some."""
    those: dict[str, Any] = {
        "migration": "vm-1",
        "digest": DIGEST,
        "target": {"kind": "software", "name": "sim0"},
        "device": "sim0",
        "commands": len(COMMANDS),
        "doorbells": 3,
        "widened": ("wide",),
        "prepare_us": 42,
        "began": BEGAN,
        "owners": OWNERS,
    }
    return Details(**those | fields)


def create(
    records: Records, migration: str = "vm-1", commands: tuple[Command, ...] = COMMANDS
) -> Record:
    """The record of a prepared operation."""
    return records.create(details(migration=migration, commands=len(commands)), encoded(commands))


def told(outcome: Outcome = Outcome.REJECTED, rejected: tuple[int, ...] = (3,)) -> Report:
    """The report of its commit."""
    replayed = Replayed(outcome, rejected, (), 2, 1_000_000, 200)
    return report("vm-1", COMMANDS, replayed, widened=("wide",), prepare_us=42)


def success(commit_us: int = 1000, index: int = 200) -> Success:
    """A commit that went well, and left the ring with this index."""
    ring = RingIndices(index, index)
    restored = told(Outcome.RESTORED, ())
    return Success(report=replace(restored, commit_us=commit_us, ring=ring), ended=ENDED)


def failure(message: str = "refused") -> Failure:
    """A commit whose device refused a command."""
    return Failure(report=told(), failure=(Kind.REJECTED, message), ended=ENDED)


def loaded(folder: Path) -> list[StoredRecord]:
    """What the next daemon finds."""
    records = Records(folder)
    try:
        return records.load()
    finally:
        records.close()


def only(folder: Path) -> StoredRecord:
    """The same, where that is one record."""
    (found,) = loaded(folder)
    return found


def file_of(folder: Path) -> Path:
    """The file of the only record."""
    (path,) = folder.iterdir()
    return path


def main(arguments: list[str]) -> None:
    """Writes the records of eight operations, over and over."""
    records = Records(Path(arguments[0]))
    while True:
        for number in range(8):
            record = create(records, f"vm-{number}")
            record.begin()
            record.progress.acks[:] = bytes([ACK_OK]) * len(COMMANDS)
            records.settle(record, failure())


if __name__ == "__main__":
    main(sys.argv[1:])
