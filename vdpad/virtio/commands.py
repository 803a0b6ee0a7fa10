"""The commands of the virtio-net control virtqueue: one class each, encode and decode side by side.

A command is {u8 class, u8 command, data} in device-readable memory, answered by one device-written
ack byte. All integers are little-endian. `encode` gives the whole readable part; `decode` takes
what stands behind the first two bytes and is strict: the length must be exactly that of the data.
Reserved words are written as zeros and passed over when they are read, as a device does: Linux 6.12
without RSS has its queue pairs in those of MQ_HASH_CONFIG. Whether a value makes sense to a device
is not decided here, but in state and plan.

Source: virtio 1.4, 5.1.6.5 "Control Virtqueue", whose parts are cited by title; Linux
include/uapi/linux/virtio_net.h.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, final

from vdpad.errors import VdpadError
from vdpad.virtio.bits import bits_of, mask_of
from vdpad.virtio.config import GUEST_OFFLOADS, HASH_TYPES, TUNNEL_TYPES
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.mac import format_mac

# virtio 1.4, 5.1.6.5: the ack byte.
ACK_OK = 0
ACK_ERR = 1
ACK_NONE = 0xFF
"""Written there beforehand: no device answers so, while a stale 0 would read as OK."""

_MAC_LENGTH = 6
_HEADER = struct.Struct("<BB")
_SWITCH = struct.Struct("<BBB")
_WORD = struct.Struct("<BBH")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_COALESCING = struct.Struct("<II")
_QUEUE_COALESCING = struct.Struct("<H2xII")
_RSS_HEAD = struct.Struct("<IHH")
_RSS_TAIL = struct.Struct("<HB")
_HASH_HEAD = struct.Struct("<I8xB")
_KEY_PADDING = 1


class DecodeError(VdpadError, ValueError):
    """Bytes that are no command, or not the command that they say they are."""


def _expect(what: str, expected: int, data: bytes) -> None:
    if len(data) != expected:
        raise DecodeError(f"{what}: expected {expected} bytes of data, got {len(data)}")


def _pull_key(what: str, at: int, length: int, data: bytes) -> bytes:
    """The key that ends a command, from `at` on.

    Linux 6.12.117 sends a byte behind it, the padding of the structure that it has all this in, and
    QEMU's device takes that.
    """
    end = at + length
    if len(data) != end + _KEY_PADDING:
        _expect(what, end, data)
    return data[at:end]


@dataclass(frozen=True, slots=True)
class Command:
    """What all commands have. Frozen, and equal only to the same command with the same values."""

    NAME: ClassVar[str]
    """The specification's name without VIRTIO_NET_CTRL_."""
    CODE: ClassVar[tuple[int, int]]
    """Class and command."""
    FEATURE: ClassVar[Feature]
    """The feature that permits it."""

    @classmethod
    def lacks(cls, features: FeatureSet) -> Feature | None:
        """The feature for want of which a guest with these cannot send it; None for none."""
        return next((each for each in (cls.FEATURE, Feature.CTRL_VQ) if each not in features), None)

    def encode(self) -> bytes:
        """The device-readable part."""
        raise NotImplementedError

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The command from what follows its two header bytes.

        Raises:
            DecodeError: the data is not this command's.
        """
        raise NotImplementedError

    def arguments(self) -> str:
        """The values for a report line, such as "vid=42"; a table is told by its length."""
        return ""


@dataclass(frozen=True, slots=True)
class RxMode(Command):
    """Class 0: one receive mode on or off ("Packet Receive Filtering")."""

    FEATURE = Feature.CTRL_RX
    MODE: ClassVar[str]
    """The mode as a state names it."""
    on: bool

    def encode(self) -> bytes:
        return _SWITCH.pack(*self.CODE, self.on)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        _expect(cls.NAME, 1, data)
        if data[0] > 1:
            raise DecodeError(f"{cls.NAME}: expected 0 or 1, got {data[0]}")
        return cls(bool(data[0]))

    def arguments(self) -> str:
        return f"on={int(self.on)}"


@final
@dataclass(frozen=True, slots=True)
class RxPromisc(RxMode):
    """Everything is received."""

    NAME = "RX_PROMISC"
    MODE = "promisc"
    CODE = (0, 0)


@final
@dataclass(frozen=True, slots=True)
class RxAllMulti(RxMode):
    """Every multicast packet is received."""

    NAME = "RX_ALLMULTI"
    MODE = "allmulti"
    CODE = (0, 1)


@dataclass(frozen=True, slots=True)
class _RxExtra(RxMode):
    FEATURE = Feature.CTRL_RX_EXTRA


@final
@dataclass(frozen=True, slots=True)
class RxAllUni(_RxExtra):
    """Every unicast packet is received."""

    NAME = "RX_ALLUNI"
    MODE = "alluni"
    CODE = (0, 2)


@final
@dataclass(frozen=True, slots=True)
class RxNoMulti(_RxExtra):
    """No multicast packet is received."""

    NAME = "RX_NOMULTI"
    MODE = "nomulti"
    CODE = (0, 3)


@final
@dataclass(frozen=True, slots=True)
class RxNoUni(_RxExtra):
    """No unicast packet is received."""

    NAME = "RX_NOUNI"
    MODE = "nouni"
    CODE = (0, 4)


@final
@dataclass(frozen=True, slots=True)
class RxNoBcast(_RxExtra):
    """No broadcast packet is received."""

    NAME = "RX_NOBCAST"
    MODE = "nobcast"
    CODE = (0, 5)


RX_MODES: tuple[type[RxMode], ...] = (
    RxPromisc,
    RxAllMulti,
    RxAllUni,
    RxNoMulti,
    RxNoUni,
    RxNoBcast,
)
"""All of them, in the order of their numbers."""


def _push_macs(macs: tuple[bytes, ...]) -> bytes:
    return _U32.pack(len(macs)) + b"".join(macs)


def _pull_macs(data: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    """One half of a MAC table, and where it ends."""
    if len(data) < at + _U32.size:
        raise DecodeError(f"MAC_TABLE_SET: expected a u32 count at byte {at} of {len(data)}")
    (count,) = _U32.unpack_from(data, at)
    start = at + _U32.size
    end = start + count * _MAC_LENGTH
    if end > len(data):
        raise DecodeError(
            f"MAC_TABLE_SET: {count} addresses end at byte {end}, there are {len(data)}"
        )
    return tuple(data[i : i + _MAC_LENGTH] for i in range(start, end, _MAC_LENGTH)), end


@final
@dataclass(frozen=True, slots=True)
class MacTableSet(Command):
    """The addresses that are received beside the device's own; replaces the table.

    "Setting MAC Address Filtering".
    """

    NAME = "MAC_TABLE_SET"
    CODE = (1, 0)
    FEATURE = Feature.CTRL_RX
    unicast: tuple[bytes, ...]
    multicast: tuple[bytes, ...]

    def encode(self) -> bytes:
        return _HEADER.pack(*self.CODE) + _push_macs(self.unicast) + _push_macs(self.multicast)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        unicast, middle = _pull_macs(data, 0)
        multicast, end = _pull_macs(data, middle)
        _expect(cls.NAME, end, data)
        return cls(unicast, multicast)

    def arguments(self) -> str:
        return f"unicast={len(self.unicast)} multicast={len(self.multicast)}"


@final
@dataclass(frozen=True, slots=True)
class MacAddrSet(Command):
    """The device's own address ("Setting MAC Address Filtering")."""

    NAME = "MAC_ADDR_SET"
    CODE = (1, 1)
    FEATURE = Feature.CTRL_MAC_ADDR
    mac: bytes

    def encode(self) -> bytes:
        return _HEADER.pack(*self.CODE) + self.mac

    @classmethod
    def decode(cls, data: bytes) -> Self:
        _expect(cls.NAME, _MAC_LENGTH, data)
        return cls(data)

    def arguments(self) -> str:
        return f"mac={format_mac(self.mac)}"


@dataclass(frozen=True, slots=True)
class _Vlan(Command):
    FEATURE = Feature.CTRL_VLAN
    vid: int

    def encode(self) -> bytes:
        return _WORD.pack(*self.CODE, self.vid)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        _expect(cls.NAME, _U16.size, data)
        return cls(*_U16.unpack(data))

    def arguments(self) -> str:
        return f"vid={self.vid}"


@final
@dataclass(frozen=True, slots=True)
class VlanAdd(_Vlan):
    """One VLAN id passes the filter ("VLAN Filtering")."""

    NAME = "VLAN_ADD"
    CODE = (2, 0)


@final
@dataclass(frozen=True, slots=True)
class VlanDel(_Vlan):
    """One VLAN id no longer passes ("VLAN Filtering")."""

    NAME = "VLAN_DEL"
    CODE = (2, 1)


@final
@dataclass(frozen=True, slots=True)
class AnnounceAck(Command):
    """The guest has announced itself ("Gratuitous Packet Sending").

    Part of a conversation, so never replayed.
    """

    NAME = "ANNOUNCE_ACK"
    CODE = (3, 0)
    FEATURE = Feature.GUEST_ANNOUNCE

    def encode(self) -> bytes:
        return _HEADER.pack(*self.CODE)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        _expect(cls.NAME, 0, data)
        return cls()


@final
@dataclass(frozen=True, slots=True)
class MqPairsSet(Command):
    """How many queue pairs are used: 1 … max_virtqueue_pairs. Switches RSS off.

    "Device operation in multiqueue mode".
    """

    NAME = "MQ_VQ_PAIRS_SET"
    CODE = (4, 0)
    FEATURE = Feature.MQ
    pairs: int

    def encode(self) -> bytes:
        return _WORD.pack(*self.CODE, self.pairs)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        _expect(cls.NAME, _U16.size, data)
        return cls(*_U16.unpack(data))

    def arguments(self) -> str:
        return f"pairs={self.pairs}"


@final
@dataclass(frozen=True, slots=True)
class MqRssConfig(Command):
    """Receive-side scaling: hash types, indirection table, key."""

    NAME = "MQ_RSS_CONFIG"
    CODE = (4, 1)
    FEATURE = Feature.RSS
    hash_types: frozenset[int]
    unclassified_queue: int
    indirection_table: tuple[int, ...]
    """Receive queue numbers from 0; 1 … 65536 of them. The wire has the length as a mask."""
    max_tx_queues: int
    key: bytes
    """At most 255 bytes."""

    def encode(self) -> bytes:
        length = len(self.indirection_table)
        return b"".join(
            (
                _HEADER.pack(*self.CODE),
                _RSS_HEAD.pack(mask_of(self.hash_types), length - 1, self.unclassified_queue),
                struct.pack(f"<{length}H", *self.indirection_table),
                _RSS_TAIL.pack(self.max_tx_queues, len(self.key)),
                self.key,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        if len(data) < _RSS_HEAD.size:
            _expect(cls.NAME, _RSS_HEAD.size, data)
        types, mask, unclassified = _RSS_HEAD.unpack_from(data)
        length = mask + 1
        tail = _RSS_HEAD.size + _U16.size * length
        if len(data) < tail + _RSS_TAIL.size:
            _expect(cls.NAME, tail + _RSS_TAIL.size, data)
        max_tx_queues, key_length = _RSS_TAIL.unpack_from(data, tail)
        key = _pull_key(cls.NAME, tail + _RSS_TAIL.size, key_length, data)
        table = struct.unpack_from(f"<{length}H", data, _RSS_HEAD.size)
        return cls(bits_of(types), unclassified, table, max_tx_queues, key)

    def arguments(self) -> str:
        return (
            f"hash_types={HASH_TYPES.sentence(self.hash_types)} "
            f"table={len(self.indirection_table)} unclassified_queue={self.unclassified_queue} "
            f"max_tx_queues={self.max_tx_queues} key={len(self.key)}"
        )


@final
@dataclass(frozen=True, slots=True)
class MqHashConfig(Command):
    """The hash that is reported with each packet ("Hash calculation"); switches RSS off."""

    NAME = "MQ_HASH_CONFIG"
    CODE = (4, 2)
    FEATURE = Feature.HASH_REPORT
    hash_types: frozenset[int]
    key: bytes
    """At most 255 bytes."""

    def encode(self) -> bytes:
        head = _HASH_HEAD.pack(mask_of(self.hash_types), len(self.key))
        return _HEADER.pack(*self.CODE) + head + self.key

    @classmethod
    def decode(cls, data: bytes) -> Self:
        if len(data) < _HASH_HEAD.size:
            _expect(cls.NAME, _HASH_HEAD.size, data)
        types, key_length = _HASH_HEAD.unpack_from(data)
        return cls(bits_of(types), _pull_key(cls.NAME, _HASH_HEAD.size, key_length, data))

    def arguments(self) -> str:
        return f"hash_types={HASH_TYPES.sentence(self.hash_types)} key={len(self.key)}"


@final
@dataclass(frozen=True, slots=True)
class GuestOffloadsSet(Command):
    """Which receive offloads are on; after reset all that were negotiated are.

    "Offloads State Configuration".
    """

    NAME = "GUEST_OFFLOADS_SET"
    CODE = (5, 0)
    FEATURE = Feature.CTRL_GUEST_OFFLOADS
    offloads: frozenset[int]

    def encode(self) -> bytes:
        return _HEADER.pack(*self.CODE) + _U64.pack(mask_of(self.offloads))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        _expect(cls.NAME, _U64.size, data)
        return cls(bits_of(*_U64.unpack(data)))

    def arguments(self) -> str:
        return f"offloads={GUEST_OFFLOADS.sentence(self.offloads)}"


@dataclass(frozen=True, slots=True)
class _Coalescing(Command):
    """Interrupt moderation of all queues of one direction ("Notifications Coalescing")."""

    FEATURE = Feature.NOTF_COAL
    max_packets: int
    max_usecs: int
    """Microseconds."""

    def encode(self) -> bytes:
        return _HEADER.pack(*self.CODE) + _COALESCING.pack(self.max_packets, self.max_usecs)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        _expect(cls.NAME, _COALESCING.size, data)
        return cls(*_COALESCING.unpack(data))

    def arguments(self) -> str:
        return f"max_packets={self.max_packets} max_usecs={self.max_usecs}"


@final
@dataclass(frozen=True, slots=True)
class CoalTxSet(_Coalescing):
    """Interrupt moderation of all transmit queues; overwrites each queue's own."""

    NAME = "NOTF_COAL_TX_SET"
    CODE = (6, 0)


@final
@dataclass(frozen=True, slots=True)
class CoalRxSet(_Coalescing):
    """Interrupt moderation of all receive queues; overwrites each queue's own."""

    NAME = "NOTF_COAL_RX_SET"
    CODE = (6, 1)


@dataclass(frozen=True, slots=True)
class _QueueCoalescing(Command):
    """Interrupt moderation of one queue, by a virtqueue's index ("Notifications Coalescing")."""

    FEATURE = Feature.VQ_NOTF_COAL
    queue: int
    max_packets: int
    max_usecs: int
    """Microseconds."""

    def encode(self) -> bytes:
        values = _QUEUE_COALESCING.pack(self.queue, self.max_packets, self.max_usecs)
        return _HEADER.pack(*self.CODE) + values

    @classmethod
    def decode(cls, data: bytes) -> Self:
        _expect(cls.NAME, _QUEUE_COALESCING.size, data)
        return cls(*_QUEUE_COALESCING.unpack(data))

    def arguments(self) -> str:
        return f"queue={self.queue} max_packets={self.max_packets} max_usecs={self.max_usecs}"


@final
@dataclass(frozen=True, slots=True)
class CoalVqSet(_QueueCoalescing):
    """Interrupt moderation of one queue, as of VQ_NOTF_COAL."""

    NAME = "NOTF_COAL_VQ_SET"
    CODE = (6, 2)


@final
@dataclass(frozen=True, slots=True)
class CoalVqGet(_QueueCoalescing):
    """Asks for one queue; the device writes the values behind the ack. Never replayed."""

    NAME = "NOTF_COAL_VQ_GET"
    CODE = (6, 3)


@final
@dataclass(frozen=True, slots=True)
class HashTunnelSet(Command):
    """Which encapsulations are hashed by their inner headers ("Inner Header Hash")."""

    NAME = "HASH_TUNNEL_SET"
    CODE = (7, 0)
    FEATURE = Feature.HASH_TUNNEL
    tunnel_types: frozenset[int]

    def encode(self) -> bytes:
        return _HEADER.pack(*self.CODE) + _U32.pack(mask_of(self.tunnel_types))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        _expect(cls.NAME, _U32.size, data)
        return cls(bits_of(*_U32.unpack(data)))

    def arguments(self) -> str:
        return f"tunnel_types={TUNNEL_TYPES.sentence(self.tunnel_types)}"


COMMANDS: Mapping[tuple[int, int], type[Command]] = {
    command.CODE: command
    for command in (
        RxPromisc,
        RxAllMulti,
        RxAllUni,
        RxNoMulti,
        RxNoUni,
        RxNoBcast,
        MacTableSet,
        MacAddrSet,
        VlanAdd,
        VlanDel,
        AnnounceAck,
        MqPairsSet,
        MqRssConfig,
        MqHashConfig,
        GuestOffloadsSet,
        CoalTxSet,
        CoalRxSet,
        CoalVqSet,
        CoalVqGet,
        HashTunnelSet,
    )
}
"""Every command that is known, by class and command. Class 8, statistics, carries no state."""


def decode_command(readable: bytes) -> Command:
    """The command in a chain's device-readable bytes.

    Raises:
        DecodeError: shorter than a header, an unknown class or command, or data that is not its.
    """
    if len(readable) < _HEADER.size:
        raise DecodeError(f"expected a class and a command, got {len(readable)} bytes")
    code = (readable[0], readable[1])
    command = COMMANDS.get(code)
    if command is None:
        raise DecodeError(f"no command has class {code[0]} and command {code[1]}")
    return command.decode(readable[_HEADER.size :])
