"""Which format bytes are in, by how they begin, and what is in them.

Nothing but the first bytes decides, so that a pipe is read like a file, once and forward, and no
format tries another's bytes. What is not ours but well known is told by name, with what to do.
"""

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from vdpad.state.formats import native, peek
from vdpad.state.found import FormatError, Found

__all__ = [
    "CAPTURE",
    "COMMAND_LOG",
    "DEVICE_PARTS",
    "DEVICE_STATE",
    "NATIVE",
    "QEMU_STREAM",
    "Reading",
    "read",
]

NATIVE = "native"
QEMU_STREAM = "qemu-stream"
DEVICE_PARTS = "device-parts"
DEVICE_STATE = "device-state"
CAPTURE = "capture"
COMMAND_LOG = "command-log"

_QEMU_MAGIC = b"QEVM"
_LOG_MAGIC = b"VDPADLOG"
_JSON_SPACE = b" \t\r\n"
# By its first member: a back end's device state, of whatever version, or what it captured. A state
# has neither.
_FIRST = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"(format|state)"[ \t\r\n]*:')

# virtio 1.4, 2.12.1: struct virtio_dev_part_hdr, {le16 part_type, u8 flags, u8 reserved} and more.
_PART = struct.Struct("<HBB")
_PART_TYPES = frozenset({*range(0x100, 0x106), 0x200})

# libvirt, src/qemu/qemu_saveimage.h: {magic, u32 version, u32 data_len, u32 was_running,
# u32 format, …}, 92 bytes in all; then data_len bytes of XML; then the stream.
_LIBVIRT_MAGICS = (b"LibvirtQemudSave", b"LibvirtQemudPart")
_LIBVIRT_HEAD = struct.Struct("<16s4I")
_LIBVIRT_HEADER = 92
_LIBVIRT_RAW, _LIBVIRT_SPARSE = 0, 6
_LIBVIRT_COMPRESSED = {1: "gzip", 2: "bzip2", 3: "xz", 4: "lzop", 5: "zstd"}

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x89LZO\0\r\n\x1a\n": "lzop",
    b"\x28\xb5\x2f\xfd": "zstd",
}
# Unicode's byte order marks, which JSON has not (RFC 8259, 8.1), and some editors and shells write.
_MARKED = {
    b"\xef\xbb\xbf": "tail -c +4",
    b"\xff\xfe": "iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "iconv -f UTF-16 -t UTF-8",
}
_HEAD = _LIBVIRT_HEAD.size
_SHOWN = 16

_KNOWN = (
    "a state, a back end's device state or its capture in JSON, a QEMU migration stream (which "
    "begins with QEVM), a command log (VDPADLOG), or virtio device parts"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file or a pipe holds."""

    format: str
    """NATIVE, QEMU_STREAM, DEVICE_PARTS, DEVICE_STATE, CAPTURE or COMMAND_LOG."""
    devices: tuple[Found, ...]
    """One but for QEMU streams, which hold as many virtio-net devices as their machine has."""
    about: tuple[tuple[str, str], ...] = ()
    """What else there is to know of it: ("machine", "pc-q35-7.2")."""


def read(stream: BinaryIO) -> Reading:
    """Reads a state from its first byte on, as far as its format takes it.

    Raises:
        FormatError: it is in none of the formats, or not as its format has it.
        OSError: as the stream raises it.
    """
    head = peek.first(stream, _HEAD)
    reader = _reader_of(head)
    if stream.seekable():
        # A file stays one: readers may look at its end first.
        stream.seek(-len(head), io.SEEK_CUR)
        return reader(stream)
    return reader(peek.put_back(head, stream))


def _reader_of(head: bytes) -> Callable[[BinaryIO], Reading]:
    if head.startswith(_QEMU_MAGIC):
        return _qemu_stream
    if _is_sparse_image(head):
        return _sparse_image
    if head.startswith(_LOG_MAGIC):
        return _command_log
    # Space alone may go on as JSON: its own reader says what is wrong.
    if head and head.lstrip(_JSON_SPACE)[:1] in (b"{", b""):
        return _json
    if _is_part(head):
        return _device_parts
    raise FormatError(_what_else(head))


def _json(stream: BinaryIO) -> Reading:
    data = stream.read(native.MAX_SIZE + 1)
    first = _FIRST.match(data)
    if first is None:
        return Reading(NATIVE, (native.decode(data),))
    from vdpad.state.formats import device_state

    data += stream.read(device_state.MAX_SIZE + 1 - len(data))
    if first[1] == b"state":
        return Reading(CAPTURE, (device_state.found_in_capture(data),))
    return Reading(DEVICE_STATE, (device_state.found_in(data),))


def _device_parts(stream: BinaryIO) -> Reading:
    # Each reader is loaded by those who have something for it.
    from vdpad.state.formats import device_parts
    from vdpad.virtio.device_parts import MAX_BYTES

    return Reading(DEVICE_PARTS, (device_parts.decode(stream.read(MAX_BYTES + 1)),))


def _command_log(stream: BinaryIO) -> Reading:
    from vdpad.state.formats import command_log

    return Reading(COMMAND_LOG, (command_log.decode(stream.read(command_log.MAX_SIZE + 1)),))


def _qemu_stream(stream: BinaryIO, at: int = 0) -> Reading:
    from vdpad.state.formats.qemu import read_stream

    found = read_stream(stream, at)
    # One without a name is of a machine that gives none.
    return Reading(QEMU_STREAM, found.devices, (("machine", found.machine or "before 2.4"),))


def _is_sparse_image(head: bytes) -> bool:
    if len(head) < _LIBVIRT_HEAD.size:
        return False
    *_, form = _LIBVIRT_HEAD.unpack_from(head)
    return head.startswith(_LIBVIRT_MAGICS[0]) and form == _LIBVIRT_SPARSE


def _sparse_image(stream: BinaryIO) -> Reading:
    """libvirt's sparse image: a stream in which places count from the image's first byte.

    So it is read where it stands, and cannot be cut out.
    """
    from vdpad.state.formats.qemu.source import Source

    source = Source(stream, where="libvirt's header")
    head = source.take(_LIBVIRT_HEAD.size, "the header")
    _, _, data_length, _, _ = _LIBVIRT_HEAD.unpack(head)
    source.skip(_LIBVIRT_HEADER - len(head) + data_length, "the header and the domain's XML")
    return _qemu_stream(stream, source.at)


def _is_part(head: bytes) -> bool:
    if len(head) < _PART.size:
        return False
    kind, flags, reserved = _PART.unpack_from(head)
    return kind in _PART_TYPES and flags in (0, 1) and reserved == 0


# --- what is not ours ---


def _what_else(head: bytes) -> str:
    """What these bytes are, if anybody knows, and what to do."""
    if not head:
        return f"expected {_KNOWN}; it is empty"
    if head.startswith(_LIBVIRT_MAGICS):
        return _libvirt(head)
    for magic, program in _COMPRESSED.items():
        if head.startswith(magic):
            return f"it is compressed; decompress it first: {program} -dc FILE | vdpactl decode -"
    begins = f"expected {_KNOWN}; it begins with {_shown(head)}"
    for mark, command in _MARKED.items():
        if head.startswith(mark):
            return (
                f"{begins}, of which {mark.hex(' ')} is a byte order mark, that no JSON has; "
                f"take it away: {command} FILE | vdpactl decode -"
            )
    return begins


def _libvirt(head: bytes) -> str:
    image = "it is an image of libvirt's (virsh save)"
    if len(head) < _LIBVIRT_HEAD.size:
        return f"{image}, and ends within its header"
    if head.startswith(_LIBVIRT_MAGICS[1]):
        return f"{image} that was never finished"
    _, _, data_length, _, form = _LIBVIRT_HEAD.unpack_from(head)
    steps = [f"tail -c +{_LIBVIRT_HEADER + data_length + 1} FILE"]
    if form in _LIBVIRT_COMPRESSED:
        steps.append(f"{_LIBVIRT_COMPRESSED[form]} -dc")
    elif form != _LIBVIRT_RAW:
        return f"{image} in a format that is not known, {form}; virsh save --image-format raw"
    return f"{image}; QEMU's stream is behind its header: {' | '.join(steps)} | vdpactl decode -"


def _shown(head: bytes) -> str:
    """The first bytes as text where they are text, else in hexadecimal digits."""
    shown = head[:_SHOWN]
    if shown.isascii() and shown.decode().isprintable():
        return repr(shown.decode())
    return shown.hex(" ")
