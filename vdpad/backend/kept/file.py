"""The file of what a guest has set: a state, and the commands that were acknowledged since.

    head (magic, checksum, lengths) | mark | log | body (JSON)

The head and the body never change, and the checksum is over the body. A command is *noted* by
stores into memory alone: its length and its bytes are copied behind the last one of the log, and
then the mark, a word of 64 bits, is stored, which says how much of the log holds. A process that
dies in between has noted nothing. A log that is full is a new file's state.

Whoever reads the file takes it for hostile until it is checked: it may be an older process's, or
somebody's.
"""

import json
import mmap
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from vdpad.errors import VdpadError
from vdpad.state.fields import U16
from vdpad.state.formats import native
from vdpad.state.formats.device_state import MissingPart
from vdpad.state.found import Missing
from vdpad.state.model import NetState
from vdpad.state.problems import problems_of, summary
from vdpad.state.recorder import Recorder
from vdpad.state.strict_model import StrictModel
from vdpad.virtio.commands import ACK_OK
from vdpad.virtio.features import FeatureSet

_MAGIC = b"vdpad-be"
# magic, crc32 of the body, bytes of the log's room, bytes of the body, reserved.
_HEAD = struct.Struct("<8sIIII")
_MARK = struct.Struct("=Q")
_LOG_AT = _HEAD.size + _MARK.size
_LENGTH = struct.Struct("<I")

LOG_ROOM = 1 << 16
"""Bytes: 8000 commands of a usual length. One that does not fit is in the next file's state."""

CHANGING = _LOG_AT + LOG_ROOM
"""How many bytes of a file change in place, from its beginning on."""

MAX_FILE = native.MAX_SIZE + CHANGING
"""Stops a foreign file from filling memory."""


class BadFile(VdpadError):
    """A file that is none of a back end's, or not all of one."""


class KeptBody(StrictModel):
    """What stands in the file beside the log."""

    version: Literal[1] = 1
    uid: Annotated[int, Field(ge=0, lt=1 << 32)] | None
    """The front end's: what one user's guest has set is no business of another's. None where it
    came for the next one."""
    state: NetState
    """Its features are those that the guest's driver negotiated."""
    missing: tuple[MissingPart, ...] = ()
    bases: tuple[tuple[Annotated[int, Field(ge=0, lt=1 << 16)], U16], ...] = ()
    """Where queues stood, by index, as far as was known."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was read."""

    recorder: Recorder
    """With all that the guest had set."""
    features: FeatureSet
    """Those that its driver negotiated."""
    uid: int | None
    bases: Mapping[int, int]


class Log:
    """The log of a file that is mapped. Only one process writes to it."""

    def __init__(self, memory: mmap.mmap) -> None:
        """Of a file that was just written.

        Args:
            memory: the file's beginning; closed by `close`.
        """
        self._memory = memory
        self._view = memoryview(memory)
        self._mark = self._view[_HEAD.size : _LOG_AT].cast("Q")
        self._used = 0

    def note(self, command: bytes) -> bool:
        """Adds a command that the device has acknowledged; False where there is no room."""
        at = _LOG_AT + self._used
        begin, end = at + _LENGTH.size, at + _LENGTH.size + len(command)
        if end > CHANGING:
            return False
        _LENGTH.pack_into(self._view, at, len(command))
        self._view[begin:end] = command
        self._used = end - _LOG_AT
        # Last: what it does not count is not there.
        self._mark[0] = self._used
        return True

    def close(self) -> None:
        """Lets go of the file, and changes nothing in it."""
        self._mark.release()
        self._view.release()
        self._memory.close()


def encode_file(
    state: NetState,
    missing: Iterable[Missing],
    uid: int | None,
    bases: Mapping[int, int],
) -> bytes:
    """A file's bytes, with nothing in its log."""
    body = {
        "version": 1,
        "uid": uid,
        "state": native.plain(state),
        "missing": [asdict(each) for each in missing],
        "bases": sorted(bases.items()),
    }
    text = json.dumps(body, separators=(",", ":")).encode()
    head = _HEAD.pack(_MAGIC, zlib.crc32(text), LOG_ROOM, len(text), 0)
    return b"".join((head, _MARK.pack(0), bytes(LOG_ROOM), text))


def decode_file(whole: bytes) -> Kept:
    """What stands in a file.

    Raises:
        BadFile: it is none, or not all of one.
    """
    if len(whole) < CHANGING:
        raise BadFile(f"expected at least {CHANGING} bytes, got {len(whole)}")
    magic, checksum, room, body_size, reserved = _HEAD.unpack_from(whole)
    if magic != _MAGIC:
        raise BadFile("expected a back end's file, got another kind")
    if (room, reserved, len(whole)) != (LOG_ROOM, 0, CHANGING + body_size):
        raise BadFile(f"expected {CHANGING + body_size} bytes, got {len(whole)}")
    text = whole[CHANGING:]
    if zlib.crc32(text) != checksum:
        raise BadFile("its checksum is wrong")
    try:
        body = KeptBody.model_validate_json(text)
    except ValidationError as error:
        raise BadFile(f"its body: {summary(problems_of(error))}") from error
    recorder = Recorder.of(body.state, (Missing(each.part, each.why) for each in body.missing))
    for command in _commands(whole):
        recorder.fold(command, ACK_OK)
    return Kept(recorder, body.state.features, body.uid, dict(body.bases))


def _commands(whole: bytes) -> Iterator[bytes]:
    """Those of the log; the checksum does not cover what changes in place."""
    (used,) = _MARK.unpack_from(whole, _HEAD.size)
    if used > LOG_ROOM:
        raise BadFile(f"expected a log of at most {LOG_ROOM} bytes, got {used}")
    at, end = _LOG_AT, _LOG_AT + used
    while at < end:
        if end - at < _LENGTH.size:
            raise BadFile("its log ends within a length")
        (length,) = _LENGTH.unpack_from(whole, at)
        at += _LENGTH.size
        if length > end - at:
            raise BadFile(f"its log has {end - at} bytes left for a command of {length}")
        yield whole[at : at + length]
        at += length
