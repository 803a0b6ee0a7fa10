"""What a kernel with vdpa sends: messages built, and messages recorded.

Recorded from Linux 6.12.117 (Debian 12 backports) with one vdpasim_net and a device on it.
"""

import struct

FAMILY = 0x23
"""The family's number in what was recorded."""

# nlmsg types and flags: Linux include/uapi/linux/netlink.h
ERROR = 2
DONE = 3
MULTI = 0x2
CAPPED = 0x100
ACK_TLVS = 0x200

MGMTDEV_GET = bytes.fromhex(
    "440000002300020007000000b900000001010000100002007664706173696d5f6e6574000c0003000200000000000000"
    "08000f00030000000c0010002800830803000000"
)
DEV_GET = bytes.fromhex(
    "580000002300000007000000b900000003010000100002007664706173696d5f6e6574000900040073696d3000000000"
    "08000500010000000800060000000000080007000300000006000800000100000600090001000000"
)
DEV_CONFIG_GET = bytes.fromhex(
    "500000002300000007000000b9000000060100000900040073696d300000000008000500010000000c00140028008308"
    "0300000006000d00dc0500000a000a00525400000001000006000b0001000000"
)
NO_SUCH_DEVICE = bytes.fromhex(
    "500000000200000207000000b9000000edffffff2000000023000500070000000000000006010000090004006e6f7065"
    "000000001b000100766470613a20646576696365206e6f7420666f756e640000"
)
"""The error, the request's header, and the kernel's words."""
ALL = {
    "MGMTDEV_GET": MGMTDEV_GET,
    "DEV_GET": DEV_GET,
    "DEV_CONFIG_GET": DEV_CONFIG_GET,
}


def attribute(number: int, payload: bytes) -> bytes:
    """One attribute, padded as the kernel pads it."""
    return struct.pack("=HH", 4 + len(payload), number) + payload + bytes(-len(payload) % 4)


def text(number: int, value: str) -> bytes:
    """An attribute that is a string."""
    return attribute(number, value.encode() + b"\0")


def u16(number: int, value: int) -> bytes:
    """An attribute of two bytes."""
    return attribute(number, struct.pack("=H", value))


def u32(number: int, value: int) -> bytes:
    """An attribute of four bytes."""
    return attribute(number, struct.pack("=I", value))


def u64(number: int, value: int, *, padded: bool = False) -> bytes:
    """An attribute of eight bytes, with the padding before it that some architectures need."""
    return attribute(0, b"") * padded + attribute(number, struct.pack("=Q", value))


def message(attributes: bytes, *, flags: int = 0, sequence: int = 7, command: int = 6) -> bytes:
    """A reply of the family."""
    body = struct.pack("=BBH", command, 1, 0) + attributes
    return struct.pack("=IHHII", 16 + len(body), FAMILY, flags, sequence, 0xB9) + body


def error(code: int, sequence: int, words: str = "") -> bytes:
    """A refusal, or with code 0 an acknowledgement."""
    request = struct.pack("=IHHII", 20, FAMILY, 5, sequence, 0xB9) + struct.pack("=BBH", 6, 1, 0)
    body = struct.pack("=i", -code) + request + (text(1, words) if words else b"")
    flags = ACK_TLVS if words else CAPPED
    return struct.pack("=IHHII", 16 + len(body), ERROR, flags, sequence, 0xB9) + body


def done(sequence: int) -> bytes:
    """The end of a list."""
    return struct.pack("=IHHIIi", 20, DONE, MULTI, sequence, 0xB9, 0)


def with_sequence(recorded: bytes, sequence: int) -> bytes:
    """A message as the reply to another request."""
    return recorded[:8] + struct.pack("=I", sequence) + recorded[12:]


def family(sequence: int) -> bytes:
    """What the controller says of the family."""
    body = struct.pack("=BBH", 1, 2, 0) + text(2, "vdpa") + u16(1, FAMILY)
    return struct.pack("=IHHII", 16 + len(body), 16, 0, sequence, 0xB9) + body
