"""A record's file: what stands in it, and what of that changes in place.

    head (magic, checksum, lengths) | mark | acks | body (JSON) | commands as they are encoded

The head, the body and the commands never change, and the checksum is over the last two. The mark is
words of 64 bits: the stage, the two of a replay's Progress, what a restore came to, and what the
commit was lent; the acks are Progress's. `Record` writes both, by stores into memory. The stage's
word also holds when the operation ended, in microseconds since the epoch above the stage's eight
bits, so that one store says both; 0 is no time, as in the records of a vdpad that told none. Those
of a vdpad that had no words for what was lent have another magic. Once the operation has ended, a
file has a report in its body and neither acks nor commands.
"""

import mmap
import struct
import zlib
from array import array
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Annotated

from pydantic import Field, ValidationError

from vdpad.daemon.records.details import Details
from vdpad.daemon.records.endings import Cancellation, Shutdown, Stage, Success
from vdpad.errors import VdpadError
from vdpad.queues.control_queue import Lent
from vdpad.restore.program import Program
from vdpad.restore.progress import WORDS, Progress
from vdpad.restore.report import Report
from vdpad.service.refusal import Kind
from vdpad.state.problems import problems_of, summary
from vdpad.virtio.commands import ACK_NONE
from vdpad.virtio.packed_ring import PACKED_INDEX

VERSION = 1
_MAGIC = b"vdpad-o2"
_OLDER_MAGIC = b"vdpad-op"

# magic, crc32 of body and commands, commands, bytes of the body, bytes of the commands.
_HEAD = struct.Struct("<8sIIII")
# Of the mark: the stage, what the replay writes (Progress), what a restore came to, what was lent.
_STAGE, _PROGRESS, _COMMIT_US, _NEXT_INDEX, _LENT = 0, 1, 1 + WORDS, 2 + WORDS, 3 + WORDS
_MARK = struct.Struct(f"={_LENT + 4}Q")
_OLDER_MARK = struct.Struct(f"={_LENT}Q")
_NOTHING_YET = (0,) * (2 + WORDS)
_NOTHING_LENT = (0,) * 4
# Of the stage's word: what the stage takes, in bits; the time is above it.
_STAGE_BITS = 8
_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)
_MARKS = {_MAGIC: _MARK, _OLDER_MAGIC: _OLDER_MARK}
ACKS_AT = _HEAD.size + _MARK.size

# Above what a datagram's state encodes to, with a target, a report and the acks beside it. Stops a
# foreign file from filling memory.
MAX_RECORD = 1 << 20


class BadRecord(VdpadError):
    """A file that is no record, or not all of one."""


class Body(Details):
    """What a record says in JSON: the details, and what only records need."""

    version: Annotated[int, Field(ge=VERSION, le=VERSION)] = VERSION
    sequence: Annotated[int, Field(ge=0)]
    """Of the records of a directory; the oldest is the lowest."""
    lengths: tuple[tuple[int, int], ...] = ()
    """Of the commands behind the body, in runs: how many, and how many bytes each has."""
    most_in_flight: Annotated[int, Field(ge=0)] = 0
    """How many commands the device may have at a time."""
    report: Report | None = None
    failure: tuple[Kind, str] | None = None


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record of an earlier daemon."""

    body: Body
    stage: Stage
    ended: datetime | None
    """None where it has not, or is not told."""
    progress: Progress
    """A copy; empty where the operation had ended."""
    commands: bytes
    lent: Lent | None
    """What its commit was lent; None where it was lent nothing, or an older vdpad wrote it."""
    commit_us: int
    """The rest is for a restore that went well."""
    next_index: int


class Record:
    """The record of one operation that has not ended, as its operation writes it."""

    def __init__(self, body: Body, memory: mmap.mmap | bytearray) -> None:
        """
        Args:
            body: as it stands in the file.
            memory: the file's beginning as far as it changes, or what stands for it.
        """
        self.body = body
        self.lent: Lent | None = None
        """What its commit was lent."""
        self._memory = memory
        self._view = memoryview(memory)
        self._mark = self._view[_HEAD.size : ACKS_AT].cast("Q")
        self.progress = Progress(
            self._mark[_PROGRESS:_COMMIT_US], self._view[ACKS_AT : ACKS_AT + body.commands]
        )

    def begin(self, lent: Lent | None = None) -> None:
        """The commit begins, by what it is lent; nothing has been published yet."""
        self.lent = lent
        if lent is not None:
            for at, word in enumerate(_words(lent), _LENT):
                self._mark[at] = word
        self._mark[_STAGE] = Stage.COMMITTING

    def end(self, ending: Success | Cancellation | Shutdown) -> None:
        """It has ended so. What else its report says can be told from the acks."""
        report = ending.report
        if report is not None and report.ring is not None:
            self._mark[_COMMIT_US] = report.commit_us
            self._mark[_NEXT_INDEX] = report.ring.index
        self._mark[_STAGE] = _stage_word(ending.stage, ending.ended)

    def close(self) -> None:
        """Lets go of the file, and changes nothing in it. May be called again."""
        self.progress.close()
        self._mark.release()
        self._view.release()
        if isinstance(self._memory, mmap.mmap):
            self._memory.close()


def in_memory(body: Body) -> bytearray:
    """What stands for a file where there is none."""
    return bytearray(ACKS_AT) + bytes([ACK_NONE]) * body.commands


def encode_record(
    body: Body,
    stage: Stage,
    program: Program | None = None,
    ended: datetime | None = None,
    lent: Lent | None = None,
) -> bytes:
    """A record's bytes; with a program while that may still be sent."""
    acks, commands = b"", b""
    if program is not None:
        runs = tuple((sum(1 for _ in run), size) for size, run in groupby(program.lengths))
        body = body.model_copy(update={"lengths": runs})
        acks, commands = bytes([ACK_NONE]) * body.commands, program.encoded
    text = body.model_dump_json().encode()
    checksum = zlib.crc32(commands, zlib.crc32(text))
    head = _HEAD.pack(_MAGIC, checksum, len(acks), len(text), len(commands))
    mark = _MARK.pack(_stage_word(stage, ended), *_NOTHING_YET, *_words(lent))
    return b"".join((head, mark, acks, text, commands))


def decode_record(whole: bytes) -> StoredRecord:
    """A record from the bytes of its file.

    Raises:
        BadRecord: they are none, or not all of one.
    """
    if len(whole) < ACKS_AT:
        raise BadRecord(f"expected at least {ACKS_AT} bytes, got {len(whole)}")
    magic, checksum, acks, body_size, commands_size = _HEAD.unpack_from(whole)
    mark = _MARKS.get(magic)
    if mark is None:
        raise BadRecord("expected a record, got another kind of file")
    acks_at = _HEAD.size + mark.size
    body_at = acks_at + acks
    commands_at = body_at + body_size
    if len(whole) != commands_at + commands_size:
        raise BadRecord(f"expected {commands_at + commands_size} bytes, got {len(whole)}")
    if zlib.crc32(whole[body_at:]) != checksum:
        raise BadRecord("its checksum is wrong")
    try:
        body = Body.model_validate_json(whole[body_at:commands_at])
    except ValidationError as error:
        raise BadRecord(f"its body: {summary(problems_of(error))}") from error
    marked = mark.unpack_from(whole, _HEAD.size)
    word, *words, commit_us, next_index = marked[:_LENT]
    stage, ended = _stage_of(word)
    progress = Progress.unshared(acks)
    progress.words[:] = array("Q", words)
    progress.acks[:] = whole[acks_at:body_at]
    _check_commands(body, stage, acks, commands_size)
    _check_mark(stage, words, acks)
    if next_index & ~PACKED_INDEX > 0xFFFF or commit_us >= 1 << 53:
        raise BadRecord("its restore makes no sense")
    return StoredRecord(
        body,
        Stage(stage),
        ended,
        progress,
        whole[commands_at:],
        _lent(*marked[_LENT:]),
        commit_us,
        next_index,
    )


def _words(lent: Lent | None) -> tuple[int, ...]:
    if lent is None:
        return _NOTHING_LENT
    return lent.device, lent.inode, lent.kick, lent.call


def _lent(device: int = 0, inode: int = 0, kick: int = 0, call: int = 0) -> Lent | None:
    return Lent(device, inode, kick, call) if inode else None


def _stage_word(stage: Stage, ended: datetime | None) -> int:
    microseconds = 0 if ended is None else (ended - _EPOCH) // _MICROSECOND
    return microseconds << _STAGE_BITS | stage


def _stage_of(word: int) -> tuple[int, datetime | None]:
    """A stage, which may be none, and when it ended; no time is too far for a datetime."""
    microseconds = word >> _STAGE_BITS
    ended = _EPOCH + microseconds * _MICROSECOND if microseconds else None
    return word & (1 << _STAGE_BITS) - 1, ended


def _check_mark(stage: int, words: list[int], acks: int) -> None:
    """Refuses what cannot be; the checksum does not cover what changes in place."""
    if stage not in list(Stage):
        raise BadRecord(f"expected a stage from 1 to {max(Stage)}, got {stage}")
    if max(words) > acks:
        raise BadRecord(f"expected {acks} commands at the most, got {max(words)}")


def _check_commands(body: Body, stage: int, acks: int, commands_size: int) -> None:
    ended = stage not in (Stage.PREPARED, Stage.COMMITTING) and not acks
    if not (ended or acks == body.commands):
        raise BadRecord(f"expected {body.commands} acks, got {acks}")
    if any(count < 1 or size < 1 for count, size in body.lengths):
        raise BadRecord("its commands make no sense")
    lengths = [] if ended else body.lengths
    count = sum(count for count, _ in lengths)
    size = sum(count * size for count, size in lengths)
    if (count, size) != (acks, commands_size):
        raise BadRecord("its commands are not as long as it says")
