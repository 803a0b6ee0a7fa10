"""What QEMU says of its sections, in JSON at the end of the stream.

Nothing else tells how long a device's section is. The JSON is found from the end: it holds no
control bytes, so the last one in the stream belongs to its header, a mark and a length that must
lead exactly to the end. Guest memory stands further to the front and cannot forge it. The walk
then holds each section's length against its footer.

Only lengths are kept: each object is folded into them as soon as it has been read. And the text is
read device by device, as far as QEMU's devices go, since a large machine's has megabytes, and a
tree of it would have ten times as many; of text that QEMU did not write, a hundred times.

Source: QEMU's docs/devel/migration/main.rst; the JSON as observed (tests/qemu).
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, BinaryIO

from vdpad.state.found import FormatError
from vdpad.wire.strict_json import Most, refuse_more

# A processor has about 8 KiB of it: enough for hundreds of them. Stops a file that is all text from
# being held in memory.
MAX_DESCRIPTION = 8 << 20

VIRTIO_NET = "virtio-net"
"""The type of the devices that are looked for."""

_MARK = b"\x00\x06"
_HEADER = len(_MARK) + 4
_CONTROL_BYTES = [bytes([code]) for code in range(0x20)]
# A subsection's mark, the length of its name, and its version.
_SUBSECTION_HEADER = 1 + 1 + 4

# They have some 2 KiB each. Stops text from being all of small ones.
_MAX_DEVICES = MAX_DESCRIPTION >> 10
# The longest is ARM's interrupt controller, which has 2 KiB for each processor.
_MAX_DEVICE = 5 << 18

# How QEMU begins a device, and nothing else. A string cannot hold it: there its quotes are escaped.
_DEVICE = re.compile(rb'\{\s*"name"\s*:\s*"(?:[^"\\]|\\.)*"\s*,\s*"instance_id"\s*:')

_WHERE = "the description of the devices at the stream's end"


@dataclass(frozen=True, slots=True)
class Described:
    """A section, or a part of one, as the description has it."""

    name: str
    instance: int
    kind: str
    """QEMU's name of the device's type: "virtio-net"."""
    size: int
    """Bytes of the section's body."""


@dataclass(frozen=True, slots=True)
class Description:
    """The sections that are described: all but RAM's."""

    length: int
    """Bytes of its text, with which the stream ends."""
    devices: Mapping[tuple[str, int], Described]
    """By name and instance."""


def description_at_end(stream: BinaryIO) -> Description:
    """The description with which a file ends; the file stands where it stood afterwards.

    Raises:
        FormatError: there is none, or it makes no sense.
    """
    stood = stream.tell()
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(stood, end - MAX_DESCRIPTION))
    tail = stream.read(MAX_DESCRIPTION)
    stream.seek(stood)
    return description_in(tail)


def description_in(tail: bytes) -> Description:
    """The description in a stream's last bytes.

    Raises:
        FormatError: there is none, or it makes no sense.
    """
    start = _text_at(tail)
    try:
        devices = {(each.name, each.instance): each for each in _devices(tail, start)}
    except FormatError as error:
        raise FormatError(f"{_WHERE}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"{_WHERE}: expected QEMU's JSON, got {type(error).__name__}: {str(error)[:100]}"
        ) from error
    return Description(len(tail) - start, MappingProxyType(devices))


def _text_at(tail: bytes) -> int:
    """Where the JSON begins."""
    last_control = max(map(tail.rfind, _CONTROL_BYTES))
    # It is the mark's second byte, or one of the four of the length.
    for start in range(last_control + 1, last_control + 6):
        header = start - _HEADER
        if header >= 0 and tail[header : header + len(_MARK)] == _MARK:
            length = int.from_bytes(tail[start - 4 : start], "big")
            if length == len(tail) - start:
                return start
    raise FormatError(
        "expected a description of the devices at the stream's end, got none: it is cut short, "
        "goes on behind it, or is of a machine with suppress-vmdesc, as all before 2.3 are. While "
        "its guest runs, ask QEMU itself: vdpactl capture"
    )


def _devices(tail: bytes, start: int) -> Iterator[Described]:
    """The devices in the text that begins there.

    Raises:
        FormatError, ValueError, KeyError, TypeError, AttributeError, RecursionError: it is not what
            QEMU writes, or more than that.
    """
    begins = [found.start() for found in _DEVICE.finditer(tail, start)]
    if len(begins) > _MAX_DEVICES:
        raise FormatError(f"expected at most {_MAX_DEVICES} devices, got {len(begins)}")
    before, rest = _text(tail, start, begins[0] if begins else len(tail)), ","
    for begin, end in pairwise((*begins, len(tail))):
        if rest != ",":
            raise FormatError(f"expected a comma between devices, got {rest[:40]}")
        text = _text(tail, begin, end)
        device, length = _DECODER.raw_decode(text)
        rest = text[length:].strip()
        yield device
    whole = _DECODER.decode(before + (rest if begins else ""))
    if whole["devices"]:
        raise FormatError("expected devices with a name and an instance_id")


def _text(tail: bytes, begin: int, end: int) -> str:
    size = end - begin
    if size > _MAX_DEVICE:
        raise FormatError(f"expected at most {_MAX_DEVICE} bytes of a device, got {size}")
    text = tail[begin:end]
    # QEMU takes 13 bytes for a value, 48 for an object or an array, 17 for a name.
    refuse_more(text, Most(values=size // 9 + 8, containers=size // 32 + 8, names=size // 14 + 8))
    return text.decode("ascii")


def _fold(value: dict[str, Any]) -> Any:
    """The whole as it is; a section, or a part of one, as Described; a field as its bytes."""
    if "devices" in value:
        return value
    if "size" in value and "instance_id" not in value:
        # An array of like elements is described once, with its first element's size.
        return _count(value["size"]) * _count(value.get("array_len", 1))
    size = sum(value.get("fields", ()))
    for part in value.get("subsections", ()):
        size += _SUBSECTION_HEADER + len(part.kind) + part.size
    return Described(
        name=_name(value.get("name", "")),
        # QEMU writes it signed.
        instance=_count(value.get("instance_id", 0), least=-(1 << 31)),
        kind=_name(value.get("vmsd_name", "")),
        size=size,
    )


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise FormatError(f"expected a name, got {type(value).__name__}")
    return value


def _count(value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 1 << 40:
        raise FormatError(f"expected a number of bytes, got {str(value)[:40]}")
    return value


_DECODER = json.JSONDecoder(object_hook=_fold)
