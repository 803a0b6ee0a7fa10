"""Which format bytes are in, by how they begin, and what is in them.

Nothing but the first bytes decides, so that a pipe is read like a file, once and forward, and no
format tries another's bytes. What is not ours but well known is told by name, with what to do.
"""

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from vdpad.state.formats import native
from vdpad.state.found import FormatError, Found

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["DEVICE_PARTS", "NATIVE", "QEMU_STREAM", "Reading", "read"]

NATIVE = "native"
QEMU_STREAM = "qemu-stream"
DEVICE_PARTS = "device-parts"

_QEMU_MAGIC = b"QEVM"
_JSON_SPACE = b" \t\r\n"

# virtio 1.4, 2.12.1: struct virtio_dev_part_hdr, {le16 part_type, u8 flags, u8 reserved} and more.
_PART = struct.Struct("<HBB")
_PART_TYPES = frozenset({*range(0x100, 0x106), 0x200})

# libvirt, src/qemu/qemu_saveimage.h: {magic, u32 version, u32 data_len, u32 was_running,
# u32 compressed, …}, 92 bytes in all; then data_len bytes of XML; then the stream.
_LIBVIRT_MAGICS = (b"LibvirtQemudSave", b"LibvirtQemudPart")
_LIBVIRT_HEAD = struct.Struct("<16s4I")
_LIBVIRT_HEADER = 92
_LIBVIRT_COMPRESSED = {1: "gzip", 2: "bzip2", 3: "xz", 4: "lzop", 5: "zstd"}

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x89LZO\0\r\n\x1a\n": "lzop",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_HEAD = _LIBVIRT_HEAD.size
_SHOWN = 16
# Streams are walked in small steps.
_BUFFER = 256 * 1024

_KNOWN = "a state in JSON, a QEMU migration stream (which begins with QEVM), or virtio device parts"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file or a pipe holds."""

    format: str
    """NATIVE, QEMU_STREAM or DEVICE_PARTS."""
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
    head = _first(stream, _HEAD)
    reader = _reader_of(head)
    if stream.seekable():
        # A file stays one: readers may look at its end first.
        stream.seek(-len(head), io.SEEK_CUR)
        return reader(stream)
    return reader(io.BufferedReader(_PutBack(head, stream), _BUFFER))


def _reader_of(head: bytes) -> Callable[[BinaryIO], Reading]:
    if head.startswith(_QEMU_MAGIC):
        return _qemu_stream
    # Space alone may go on as JSON: its own reader says what is wrong.
    if head and head.lstrip(_JSON_SPACE)[:1] in (b"{", b""):
        return _native
    if _is_part(head):
        return _device_parts
    raise FormatError(_what_else(head))


def _native(stream: BinaryIO) -> Reading:
    return Reading(NATIVE, (native.decode(stream.read(native.MAX_SIZE + 1)),))


def _device_parts(stream: BinaryIO) -> Reading:
    # Each reader is loaded by those who have something for it.
    from vdpad.state.formats import device_parts
    from vdpad.virtio.device_parts import MOST_BYTES

    return Reading(DEVICE_PARTS, (device_parts.decode(stream.read(MOST_BYTES + 1)),))


def _qemu_stream(stream: BinaryIO) -> Reading:
    from vdpad.state.formats.qemu import read_stream

    found = read_stream(stream)
    return Reading(QEMU_STREAM, found.devices, (("machine", found.machine),))


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
    return f"expected {_KNOWN}; it begins with {_shown(head)}"


def _libvirt(head: bytes) -> str:
    image = "it is an image of libvirt's (virsh save)"
    if len(head) < _LIBVIRT_HEAD.size:
        return f"{image}, and ends within its header"
    if head.startswith(_LIBVIRT_MAGICS[1]):
        return f"{image} that was never finished"
    _, _, data_length, _, compressed = _LIBVIRT_HEAD.unpack_from(head)
    steps = [f"tail -c +{_LIBVIRT_HEADER + data_length + 1} FILE", *_decompressed(compressed)]
    return f"{image}; QEMU's stream is behind its header: {' | '.join(steps)} | vdpactl decode -"


def _decompressed(compressed: int) -> Iterator[str]:
    if compressed:
        yield f"{_LIBVIRT_COMPRESSED.get(compressed, 'DECOMPRESS')} -dc"


def _shown(head: bytes) -> str:
    """The first bytes as text where they are text, else in hexadecimal digits."""
    shown = head[:_SHOWN]
    if shown.isascii() and shown.decode().isprintable():
        return repr(shown.decode())
    return shown.hex(" ")


# --- reading without losing what was looked at ---


def _first(stream: BinaryIO, count: int) -> bytes:
    """The first so many bytes, or all where there are fewer; a pipe may give them in bits."""
    got = b""
    while len(got) < count and (more := stream.read(count - len(got))):
        got += more
    return got


class _PutBack(io.RawIOBase):
    """A stream whose first bytes have been read already. The stream stays open when this closes."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        room = memoryview(buffer).cast("B")
        if self._head:
            chunk, self._head = self._head[: len(room)], self._head[len(room) :]
        else:
            chunk = self._stream.read(len(room))
        room[: len(chunk)] = chunk
        return len(chunk)
