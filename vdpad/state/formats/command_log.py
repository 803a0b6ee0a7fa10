"""A command log: what a guest told its device, written down by its VMM, to be folded later.

    header:   u8 magic[8], le32 version, le32 0, le64 features[2]
    a record: le32 length, u8 kind, u8 ack, le16 0, u8 bytes[length]

    kind      bytes                                                         ack
    COMMAND   all device-readable bytes of a chain, from the class on       as the device wrote it
    RESET     le64 features[2]: the device was reset, these were negotiated 0
    STATE     what the device holds, in JSON as the API has it              0

It is for VMMs that have no Python: each writes a header at FEATURES_OK and a record with one write
as the device gives a command back, and nothing of it asks for knowledge of commands. Reading is
folding, by the recorder, in the order of the records. STATE stands behind the header or nowhere: a
log on a destination begins with what was restored there, and one that has become long is written
anew with what it came to (`encode`). Its features are the header's.

A log has no end of its own, since its VMM may go on: one that is cut between two records is what
the log was then. One that is cut within a record is refused.

Whoever reads it takes it for hostile: its size is held against a bound first, and each length
against what its kind may have, before anything behind it is looked at.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

from vdpad.state.formats import native
from vdpad.state.found import FormatError, Found
from vdpad.state.model import NetState
from vdpad.state.observed import MAX_COMMAND
from vdpad.state.problems import summary
from vdpad.state.recorder import Recorder
from vdpad.virtio.bits import bits_of, mask_of
from vdpad.virtio.commands import ACK_OK
from vdpad.virtio.features import FEATURES, FeatureSet

__all__ = ["MAX_SIZE", "decode", "encode", "push_command", "push_header", "push_reset"]

MAGIC = b"VDPADLOG"
_VERSION = 1

MAX_SIZE = 2 * 1024 * 1024
"""In bytes: 170 000 VLANs that come and go. Stops a file or a pipe without an end from filling
memory, and a guest's endless commands from making the reading of its log endless."""

# One byte of a command that is longer than any that is decoded is kept beyond, and tells so.
_MAX_KEPT = MAX_COMMAND + 1

_HEAD = struct.Struct(f"<{len(MAGIC)}sII")
_RECORD = struct.Struct("<IBBH")
_FEATURES = FEATURES.width // 8
_HEADER = _HEAD.size + _FEATURES


class _Kind(IntEnum):
    COMMAND = 1
    RESET = 2
    STATE = 3


_LENGTHS = {
    _Kind.COMMAND: range(_MAX_KEPT + 1),
    _Kind.RESET: range(_FEATURES, _FEATURES + 1),
    _Kind.STATE: range(MAX_SIZE + 1),
}


@dataclass(frozen=True, slots=True)
class _Record:
    at: int
    """The byte at which it begins."""
    kind: _Kind
    ack: int
    data: bytes

    def error(self, fault: str) -> FormatError:
        """The error that says where this is wrong."""
        return FormatError(f"byte {self.at}, {self.kind.name}: {fault}")


# --- writing ---


def push_header(features: Iterable[int]) -> bytes:
    """How a log begins.

    Args:
        features: the bit numbers that guest and device negotiated, of 0 … 127.
    """
    return _HEAD.pack(MAGIC, _VERSION, 0) + _push_features(features)


def push_command(readable: bytes, ack: int) -> bytes:
    """The record of a command that the device has given back.

    Args:
        readable: all device-readable bytes of the chain, from the class on. Of a command that is
            too long to be decoded only the beginning is kept.
        ack: the byte that the device wrote.
    """
    return _push_record(_Kind.COMMAND, readable[:_MAX_KEPT], ack)


def push_reset(features: Iterable[int]) -> bytes:
    """The record of a reset, behind which these features were negotiated."""
    return _push_record(_Kind.RESET, _push_features(features))


def encode(state: NetState) -> bytes:
    """A log that begins with this state, and to which commands can be added."""
    return push_header(state.features) + _push_record(_Kind.STATE, native.encode(state))


def _push_record(kind: _Kind, data: bytes, ack: int = 0) -> bytes:
    return _RECORD.pack(len(data), kind, ack, 0) + data


def _push_features(features: Iterable[int]) -> bytes:
    return mask_of(features).to_bytes(_FEATURES, "little")


# --- reading ---


def decode(data: bytes) -> Found:
    """What the commands of a log have set.

    Raises:
        FormatError: it is no log, of another version, longer than MAX_SIZE, or cut within a record.
    """
    features = _pull_header(data)
    recorder = Recorder(features)
    counts: Counter[str] = Counter()
    for record in _pull_records(data):
        match record.kind:
            case _Kind.COMMAND:
                recorder.fold(record.data, record.ack)
                counts["acknowledged" if record.ack == ACK_OK else "refused"] += 1
            case _Kind.RESET:
                recorder.reset(_pull_features(record.data))
                counts["resets"] += 1
            case _Kind.STATE:
                recorder = Recorder.of(_pull_state(record, features))
    return replace(recorder.found(), about=_about(counts))


def _pull_header(data: bytes) -> FeatureSet:
    if len(data) > MAX_SIZE:
        raise FormatError(
            f"expected a command log of at most {MAX_SIZE} bytes, got more; have its VMM begin a "
            "new one with the state (vdpactl convert --to command-log) before it is so long"
        )
    if not data.startswith(MAGIC):
        raise FormatError(f"expected a command log, which begins with {MAGIC.decode()}")
    if len(data) < _HEADER:
        raise FormatError(f"expected a header of {_HEADER} bytes, got {len(data)}")
    _, version, reserved = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise FormatError(
            f"expected a command log of version {_VERSION}, got version {version}; read it with "
            "the vdpad for which it was written"
        )
    if reserved:
        raise FormatError(f"expected 0 behind the version, got {reserved:#x}")
    return _pull_features(data[_HEAD.size : _HEADER])


def _pull_records(data: bytes) -> Iterator[_Record]:
    at = _HEADER
    while at < len(data):
        if len(data) - at < _RECORD.size:
            raise FormatError(f"byte {at}: expected a record, got {len(data) - at} bytes of one")
        record = _pull_record(data, at)
        yield record
        at += _RECORD.size + len(record.data)


def _pull_record(data: bytes, at: int) -> _Record:
    length, number, ack, reserved = _RECORD.unpack_from(data, at)
    try:
        kind = _Kind(number)
    except ValueError:
        known = ", ".join(f"{each} ({each.name})" for each in _Kind)
        raise FormatError(f"byte {at}: expected a record of kind {known}, got {number}") from None
    begins = at + _RECORD.size
    record = _Record(at, kind, ack, data[begins : begins + min(length, _LENGTHS[kind].stop)])
    if length not in _LENGTHS[kind]:
        raise record.error(f"expected {_told(_LENGTHS[kind])} bytes, got {length}")
    if len(record.data) < length:
        raise record.error(f"expected {length} bytes, got {len(record.data)} to the end")
    if reserved or (ack and kind is not _Kind.COMMAND):
        raise record.error("expected zeros where the format has nothing, got others")
    if kind is _Kind.STATE and at != _HEADER:
        raise record.error("expected a state behind the header or nowhere; begin a new log")
    return record


def _told(lengths: range) -> str:
    return str(lengths[-1]) if len(lengths) == 1 else f"at most {lengths[-1]}"


def _pull_features(data: bytes) -> FeatureSet:
    return bits_of(int.from_bytes(data, "little"))


def _pull_state(record: _Record, features: FeatureSet) -> NetState:
    try:
        found = native.decode(record.data)
    except FormatError as error:
        raise record.error(str(error)) from None
    if found.state is None:
        raise record.error(f"expected a state, got one that is wrong: {summary(found.problems)}")
    if found.state.features != features:
        raise record.error("expected a state with the header's features, got others")
    return found.state


def _about(counts: Counter[str]) -> tuple[tuple[str, str], ...]:
    commands = f"{counts['acknowledged']} acknowledged, {counts['refused']} refused"
    return (("commands", commands), ("resets", str(counts["resets"])))
