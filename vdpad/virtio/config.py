"""virtio_net_config, and the bits that it and the CVQ commands carry.

Source: virtio 1.4, 5.1.4 "Device configuration layout"; Linux include/uapi/linux/virtio_net.h.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from vdpad.errors import VdpadError
from vdpad.virtio.bits import BitNames, bits_of, mask_of
from vdpad.virtio.features import Feature, FeatureSet


class HashType(IntEnum):
    """What a receive hash may be calculated over (virtio 1.4, 5.1.6.4.3.1)."""

    IPv4 = 0
    TCPv4 = 1
    UDPv4 = 2
    IPv6 = 3
    TCPv6 = 4
    UDPv6 = 5
    IP_EX = 6
    TCP_EX = 7
    UDP_EX = 8


class GuestOffload(IntEnum):
    """An offload of the receive side and its bit in GUEST_OFFLOADS_SET.

    Named as the features that permit them; the bit differs from the feature's where the feature's
    is past 63. Source: virtio 1.4, "Offloads State Configuration".
    """

    GUEST_CSUM = 1
    GUEST_TSO4 = 7
    GUEST_TSO6 = 8
    GUEST_ECN = 9
    GUEST_UFO = 10
    GUEST_UDP_TUNNEL_GSO = 46
    GUEST_UDP_TUNNEL_GSO_CSUM = 47
    GUEST_USO4 = 54
    GUEST_USO6 = 55
    RSC_EXT = 61


class TunnelType(IntEnum):
    """An encapsulation that HASH_TUNNEL hashes over (virtio 1.4, "Inner Header Hash")."""

    GRE_2784 = 0
    GRE_2890 = 1
    GRE_7676 = 2
    GRE_UDP = 3
    VXLAN = 4
    VXLAN_GPE = 5
    GENEVE = 6
    IPIP = 7
    NVGRE = 8


HASH_TYPES = BitNames("hash type", HashType, width=32)
GUEST_OFFLOADS = BitNames("guest offload", GuestOffload, width=64)
TUNNEL_TYPES = BitNames("tunnel type", TunnelType, width=32)

# virtio 1.4, 5.1.4.2: what a device that offers RSS or HASH_REPORT supports at the least.
MIN_RSS_KEY_SIZE = 40
MIN_RSS_TABLE_LENGTH = 128

# virtio 1.4, "Device operation in multiqueue mode": virtqueue_pairs is 1 … 0x8000.
MAX_QUEUE_PAIRS = 0x8000

# virtio 1.4, 5.1.4: the status, behind the MAC address.
_STATUS_AT = 6
_STATUS = struct.Struct("<H")

STATUS_ANNOUNCE = 1 << 1
"""VIRTIO_NET_S_ANNOUNCE: the guest is asked to make itself known."""

_LAYOUT = struct.Struct("<6sHHHIBBHII")


class ConfigTooShort(VdpadError, ValueError):
    """A config space that ends before a field that was asked for."""


@dataclass(frozen=True, slots=True)
class NetConfig:
    """virtio_net_config as a device shows it; a field whose feature is not there means nothing."""

    mac: bytes = bytes(6)
    status: int = 0
    max_virtqueue_pairs: int = 1
    mtu: int = 0
    speed: int = 0xFFFFFFFF
    """Mb/s; 0xffffffff is unknown."""
    duplex: int = 0xFF
    rss_max_key_size: int = 0
    rss_max_indirection_table_length: int = 0
    supported_hash_types: frozenset[int] = frozenset()
    supported_tunnel_types: frozenset[int] = frozenset()


def push_config(config: NetConfig) -> bytes:
    """The config space as bytes, all fields of virtio 1.4."""
    return _LAYOUT.pack(
        config.mac,
        config.status,
        config.max_virtqueue_pairs,
        config.mtu,
        config.speed,
        config.duplex,
        config.rss_max_key_size,
        config.rss_max_indirection_table_length,
        mask_of(config.supported_hash_types),
        mask_of(config.supported_tunnel_types),
    )


def with_status(space: bytes, status: int) -> bytes:
    """A config space with another status."""
    return space[:_STATUS_AT] + _STATUS.pack(status) + space[_STATUS_AT + _STATUS.size :]


def pull_config(space: bytes) -> NetConfig:
    """Reads a config space; what an older, shorter one lacks is zero.

    Raises:
        ConfigTooShort: not even the MAC address and the status are there.
    """
    if len(space) < 8:
        raise ConfigTooShort(f"expected at least 8 bytes of virtio_net_config, got {len(space)}")
    padded = space[: _LAYOUT.size].ljust(_LAYOUT.size, b"\0")
    (
        mac,
        status,
        max_virtqueue_pairs,
        mtu,
        speed,
        duplex,
        rss_max_key_size,
        rss_max_indirection_table_length,
        hash_types,
        tunnel_types,
    ) = _LAYOUT.unpack(padded)
    return NetConfig(
        mac=mac,
        status=status,
        max_virtqueue_pairs=max_virtqueue_pairs,
        mtu=mtu,
        speed=speed,
        duplex=duplex,
        rss_max_key_size=rss_max_key_size,
        rss_max_indirection_table_length=rss_max_indirection_table_length,
        supported_hash_types=bits_of(hash_types),
        supported_tunnel_types=bits_of(tunnel_types),
    )


_PERMITTED_BY = tuple((each, Feature[each.name]) for each in GuestOffload)


def offloads_of(features: FeatureSet) -> frozenset[int]:
    """The guest offloads that these features permit."""
    return frozenset(bit for bit, feature in _PERMITTED_BY if feature in features)


def cvq_index(features: FeatureSet, max_virtqueue_pairs: int) -> int:
    """Which virtqueue is the CVQ: it follows the last receive and transmit pair.

    Source: virtio 1.4, 5.1.2. Depends on the negotiated features, not on those offered.
    """
    multiqueue = Feature.MQ in features or Feature.RSS in features
    return 2 * max_virtqueue_pairs if multiqueue else 2
