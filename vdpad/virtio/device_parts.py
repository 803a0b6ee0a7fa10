"""Device parts on the wire: `struct virtio_dev_part`, one behind the other.

    le16 type, u8 flags, u8 reserved, u8 selector[8], le32 length, u8 value[length]

VIRTIO_ADMIN_CMD_DEV_PARTS_GET answers them so, without a count or a header of their own. What is
read here has the sizes of its type, zeros where the specification has them, and no part twice; a
type that is not known is taken as it comes, as its sender may have a later specification. What the
values mean is not decided here.

Sources: virtio 1.4, "Device parts" (device-parts.tex) and the network device's "Device parts"
(device-types/net/description.tex).
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from vdpad.errors import VdpadError
from vdpad.virtio.commands import COMMANDS

# Stops memory and time from being the sender's choice. The largest settings are 0.4 MiB, and each
# virtqueue has 72 bytes in two parts, so that there is room for 20 000 of them.
MAX_BYTES = 2 << 20
# Two for each of so many virtqueues, and the others. Stops the shortest ones from being 131 072.
MAX_PARTS = 1 << 16
# The largest RSS command has 131 338 bytes, and 256 KiB are 43 690 MAC addresses. Stops one table
# from becoming a million objects.
MAX_SETTING_BYTES = 256 << 10

_HEADER = struct.Struct("<HBB8sI")

# The only flag, and where the types end.
_OPTIONAL = 1 << 0
_FIRST_RESERVED = 0x600


class PartError(VdpadError, ValueError):
    """Bytes that are no device parts: at which byte, in which part, and why."""


class PartType(IntEnum):
    """The parts that every device has, and those of the network device from 0x200 on.

    Named as the specification names them without VIRTIO_DEV_PART_ or VIRTIO_NET_DEV_PART_.
    """

    DEV_FEATURES = 0x100
    DRV_FEATURES = 0x101
    PCI_COMMON_CFG = 0x102
    DEVICE_STATUS = 0x103
    VQ_CFG = 0x104
    VQ_NOTIFY_CFG = 0x105
    CVQ_CFG_PART = 0x200
    """What a command of the CVQ set; the selector begins with the command's class and number."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a part of a known type looks like."""

    selector_size: int
    """How many bytes of the selector mean something; the others are zero."""
    lengths: range | tuple[int, ...]
    """Those that the value can have, in bytes."""
    expected: str
    """The same for people."""


_FEATURE_WORDS = _Shape(0, range(8, MAX_BYTES, 8), "8 bytes for each 64 features")
_SHAPES: Mapping[int, _Shape] = {
    PartType.DEV_FEATURES: _FEATURE_WORDS,
    PartType.DRV_FEATURES: _FEATURE_WORDS,
    PartType.PCI_COMMON_CFG: _Shape(4, (1, 2, 4, 8), "1, 2, 4 or 8 bytes"),
    PartType.DEVICE_STATUS: _Shape(0, (1,), "1 byte"),
    PartType.VQ_CFG: _Shape(2, (32,), "32 bytes"),
    PartType.VQ_NOTIFY_CFG: _Shape(2, (8,), "8 bytes"),
    PartType.CVQ_CFG_PART: _Shape(
        2, range(MAX_SETTING_BYTES + 1), f"at most {MAX_SETTING_BYTES} bytes"
    ),
}


@dataclass(frozen=True, slots=True)
class DevicePart:
    """A part as its header has it, its value unread."""

    at: int
    """The byte at which its header begins."""
    type: int
    flags: int
    reserved: int
    selector: bytes
    length: int
    value: bytes

    @property
    def optional(self) -> bool:
        """Whether the device works without it, though perhaps slower."""
        return bool(self.flags & _OPTIONAL)

    @property
    def code(self) -> tuple[int, int]:
        """Class and command of a CVQ_CFG_PART."""
        return self.selector[0], self.selector[1]

    @property
    def name(self) -> str:
        """What it is called in messages."""
        if self.type not in _SHAPES:
            return f"part {self.type:#x}"
        if self.type != PartType.CVQ_CFG_PART:
            return PartType(self.type).name
        command = COMMANDS.get(self.code)
        return f"CVQ_CFG_PART {command.NAME if command else '{}.{}'.format(*self.code)}"

    def error(self, fault: str) -> PartError:
        """The error that says where this is wrong."""
        return PartError(f"byte {self.at}, {self.name}: {fault}")


def push_part(part_type: PartType, selector: bytes, value: bytes) -> bytes:
    """A part as bytes; a shorter selector is filled up with zeros."""
    return _HEADER.pack(part_type, 0, 0, selector, len(value)) + value


def pull_parts(data: bytes) -> Iterator[DevicePart]:
    """The parts in their order; none of a known type is there twice.

    Raises:
        PartError: they are no device parts, or more than MAX_BYTES or MAX_PARTS.
    """
    if len(data) > MAX_BYTES:
        raise PartError(f"expected at most {MAX_BYTES} bytes of device parts, got {len(data)}")
    seen: set[tuple[int, bytes]] = set()
    at = count = 0
    while at < len(data):
        part = _pull_part(data, at)
        count += 1
        if count > MAX_PARTS:
            raise part.error(f"expected at most {MAX_PARTS} device parts, got more")
        if part.type in _SHAPES:
            key = part.type, part.selector
            if key in seen:
                raise part.error("expected one part with this selector, got a second")
            seen.add(key)
        yield part
        at += _HEADER.size + part.length


def _pull_part(data: bytes, at: int) -> DevicePart:
    start = at + _HEADER.size
    if start > len(data):
        raise PartError(
            f"byte {at}: expected a part's header of {_HEADER.size} bytes, got {len(data) - at}"
        )
    part_type, flags, reserved, selector, length = _HEADER.unpack_from(data, at)
    value = data[start : start + length]
    part = DevicePart(at, part_type, flags, reserved, selector, length, value)
    for fault in _faults(part):
        raise part.error(fault)
    return part


def _faults(part: DevicePart) -> Iterator[str]:
    """What is wrong with a part's header, and whether its value is all there."""
    if part.type >= _FIRST_RESERVED:
        yield f"expected a type below {_FIRST_RESERVED:#x}, as those from there on are reserved"
    if part.flags & ~_OPTIONAL:
        yield f"expected flags 0 or 1, got {part.flags:#x}"
    if part.reserved:
        yield f"expected a reserved byte of 0, got {part.reserved:#x}"
    if shape := _SHAPES.get(part.type):
        if any(part.selector[shape.selector_size :]):
            yield (
                f"expected a selector with zeros from its byte {shape.selector_size} on, "
                f"got {part.selector.hex()}"
            )
        if part.length not in shape.lengths:
            yield f"expected a value of {shape.expected}, got a length of {part.length}"
    if part.length > len(part.value):
        yield f"expected a value of {part.length} bytes, got {len(part.value)}"
