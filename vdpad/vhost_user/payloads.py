"""The payloads of vhost-user's messages: what each one's bytes mean.

Every payload has a pair `pull_x(payload)` and `push_x(value)`, in the machine's own byte order.
Pulling takes bytes whose size was checked (shapes.py), and looks at no value.

Source: QEMU's docs/interop/vhost-user.rst, "Message Specification".
"""

import struct
from typing import NamedTuple

# linux/vhost_types.h, struct vhost_vring_addr
VRING_LOG = 1

_U64 = struct.Struct("=Q")
_MAC = struct.Struct("=6s2x")
_VRING_STATE = struct.Struct("=II")
_VRING_ADDRESSES = struct.Struct("=IIQQQQ")
_REGION = struct.Struct("=QQQQ")
_PADDING = struct.Struct("=Q")
_REGIONS = struct.Struct("=II")
_CONFIG = struct.Struct("=III")
_STATE_TRANSFER = struct.Struct("=II")
_LOG_AREA = struct.Struct("=QQ")

U64_SIZE = _U64.size
VRING_STATE_SIZE = _VRING_STATE.size
VRING_ADDRESSES_SIZE = _VRING_ADDRESSES.size
MEMORY_REGION_SIZE = _PADDING.size + _REGION.size
CONFIG_HEADER_SIZE = _CONFIG.size
STATE_TRANSFER_SIZE = _STATE_TRANSFER.size
LOG_AREA_SIZE = _LOG_AREA.size
INFLIGHT_SIZES = (20, 24)
"""Without and with the padding that C puts behind its last two words."""

# "Memory regions description", and QEMU's VHOST_USER_MAX_CONFIG_SIZE.
MAX_TABLE_REGIONS = 8
MAX_CONFIG = 256

# "Vring descriptor index for kick, call and err"
_VRING_INDEX = 0xFF
_NO_DESCRIPTOR = 1 << 8


def pull_u64(payload: bytes) -> int:
    """A number, or a mask of bits."""
    (value,) = _U64.unpack(payload)
    return int(value)


def push_u64(value: int) -> bytes:
    """The same as bytes."""
    return _U64.pack(value)


def pull_mac(payload: bytes) -> bytes:
    """SEND_RARP: an address of 6 bytes, in what is else a number."""
    (mac,) = _MAC.unpack(payload)
    return bytes(mac)


def push_mac(mac: bytes) -> bytes:
    """The same as bytes."""
    return _MAC.pack(mac)


class VringState(NamedTuple):
    """A ring and a number: its size, its base, or whether it is enabled."""

    vring: int
    number: int


def pull_vring_state(payload: bytes) -> VringState:
    """SET_VRING_NUM, SET_VRING_BASE, GET_VRING_BASE with its reply, SET_VRING_ENABLE."""
    return VringState(*_VRING_STATE.unpack(payload))


def push_vring_state(state: VringState) -> bytes:
    """The same as bytes."""
    return _VRING_STATE.pack(*state)


class VringAddresses(NamedTuple):
    """Where a ring's parts lie, in the front end's own addresses."""

    vring: int
    flags: int
    """VRING_LOG or 0."""
    descriptors: int
    used: int
    available: int
    log: int
    """Where writes to the used ring are logged, in guest addresses."""


def pull_vring_addresses(payload: bytes) -> VringAddresses:
    """SET_VRING_ADDR."""
    return VringAddresses(*_VRING_ADDRESSES.unpack(payload))


def push_vring_addresses(addresses: VringAddresses) -> bytes:
    """The same as bytes."""
    return _VRING_ADDRESSES.pack(*addresses)


class VringDescriptor(NamedTuple):
    """Whose eventfd rides on a message."""

    vring: int
    is_attached: bool
    """Whether there is one; without, the ring is to be polled."""


def pull_vring_descriptor(payload: bytes) -> VringDescriptor:
    """SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR."""
    value = pull_u64(payload)
    return VringDescriptor(value & _VRING_INDEX, not value & _NO_DESCRIPTOR)


def push_vring_descriptor(descriptor: VringDescriptor) -> bytes:
    """The same as bytes."""
    return push_u64(descriptor.vring | (0 if descriptor.is_attached else _NO_DESCRIPTOR))


class MemoryRegion(NamedTuple):
    """A stretch of the guest's memory, as the front end describes it."""

    guest_address: int
    size: int
    """Bytes."""
    user_address: int
    """Where the front end has mapped it, in its own addresses."""
    mmap_offset: int
    """Where it begins in the file that rides on the message."""


def pull_memory_region(payload: bytes) -> MemoryRegion:
    """The payload of ADD_MEM_REG and REM_MEM_REG."""
    return MemoryRegion(*_REGION.unpack_from(payload, _PADDING.size))


def push_memory_region(region: MemoryRegion) -> bytes:
    """The same as bytes."""
    return _PADDING.pack(0) + _REGION.pack(*region)


def memory_table_size(payload: bytes) -> int:
    """How many bytes a table has that begins like this."""
    number, _ = _REGIONS.unpack_from(payload)
    return int(_REGIONS.size + number * _REGION.size)


def pull_memory_table(payload: bytes) -> list[MemoryRegion]:
    """SET_MEM_TABLE."""
    return [MemoryRegion(*fields) for fields in _REGION.iter_unpack(payload[_REGIONS.size :])]


def push_memory_table(regions: list[MemoryRegion]) -> bytes:
    """The same as bytes."""
    return _REGIONS.pack(len(regions), 0) + b"".join(_REGION.pack(*each) for each in regions)


class ConfigSpace(NamedTuple):
    """Some bytes of the device's config space."""

    offset: int
    flags: int
    """1 where a migration sets them, 0 where the guest does."""
    data: bytes


def config_size(payload: bytes) -> int:
    """How many bytes a message of the config space has that begins like this."""
    _, size, _ = _CONFIG.unpack_from(payload)
    return int(_CONFIG.size + size)


def pull_config(payload: bytes) -> ConfigSpace:
    """GET_CONFIG with its reply, SET_CONFIG."""
    offset, _, flags = _CONFIG.unpack_from(payload)
    return ConfigSpace(offset, flags, payload[_CONFIG.size :])


def push_config(config: ConfigSpace) -> bytes:
    """The same as bytes."""
    return _CONFIG.pack(config.offset, len(config.data), config.flags) + config.data


class LogArea(NamedTuple):
    """Where the dirty log lies in the file that rides on the message."""

    size: int
    """Bytes."""
    offset: int
    """Of its first byte."""


def pull_log_area(payload: bytes) -> LogArea:
    """SET_LOG_BASE."""
    return LogArea(*_LOG_AREA.unpack(payload))


def push_log_area(area: LogArea) -> bytes:
    """The same as bytes."""
    return _LOG_AREA.pack(*area)


class StateTransfer(NamedTuple):
    """Which way a device's state goes, and when."""

    direction: int
    """0: it is saved, 1: it is loaded."""
    phase: int
    """0: while all rings are stopped."""


def pull_state_transfer(payload: bytes) -> StateTransfer:
    """SET_DEVICE_STATE_FD."""
    return StateTransfer(*_STATE_TRANSFER.unpack(payload))


def push_state_transfer(transfer: StateTransfer) -> bytes:
    """The same as bytes."""
    return _STATE_TRANSFER.pack(*transfer)
