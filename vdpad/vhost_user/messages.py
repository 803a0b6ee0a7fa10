"""The messages of vhost-user: their header, and their numbers.

A message is a header {request, flags, size} and a payload, in the machine's own byte order. What
the payloads' bytes mean is in payloads.py, and which of them a request has in shapes.py.

Source: QEMU's docs/interop/vhost-user.rst, "Header", "Front-end message types", "Back-end message
types" and "Protocol features".
"""

import struct
from enum import IntEnum
from typing import NamedTuple

HEADER_SIZE = 12

# "Header"
VERSION = 1
VERSION_MASK = 3
REPLY = 1 << 2
NEED_REPLY = 1 << 3

# "Communication" and "Migration": bits of GET_FEATURES that are the protocol's and not the guest's.
LOG_ALL = 26
PROTOCOL_FEATURES = 30

_HEADER = struct.Struct("=III")


class FrontEndRequest(IntEnum):
    """What a front end asks for."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    GET_CONFIG = 24
    SET_CONFIG = 25
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    RESET_DEVICE = 34
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40
    SET_DEVICE_STATE_FD = 42
    CHECK_DEVICE_STATE = 43


class BackEndRequest(IntEnum):
    """What a back end asks for, on the channel of its own."""

    CONFIG_CHANGE_MSG = 2


class ProtocolFeature(IntEnum):
    """A protocol feature and its bit number."""

    MQ = 0
    LOG_SHMFD = 1
    RARP = 2
    REPLY_ACK = 3
    NET_MTU = 4
    BACKEND_REQ = 5
    CONFIG = 9
    BACKEND_SEND_FD = 10
    INFLIGHT_SHMFD = 12
    RESET_DEVICE = 13
    CONFIGURE_MEM_SLOTS = 15
    STATUS = 16
    DEVICE_STATE = 19


def request_name(number: int) -> str:
    """What a request is called, for messages."""
    try:
        return FrontEndRequest(number).name
    except ValueError:
        return f"request {number}"


# --- the header ---


class Header(NamedTuple):
    """What every message begins with."""

    request: int
    """A FrontEndRequest or BackEndRequest where it is a known one."""
    flags: int
    size: int
    """Bytes of the payload."""


def pull_header(data: bytes) -> Header:
    """The first HEADER_SIZE bytes of a message."""
    return Header(*_HEADER.unpack(data))


def push_header(header: Header) -> bytes:
    """The same as bytes."""
    return _HEADER.pack(*header)
