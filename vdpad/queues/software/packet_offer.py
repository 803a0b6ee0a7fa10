"""What software devices with data queues offer, and what their config space says."""

from vdpad.queues.software.device import ALL_FEATURES
from vdpad.virtio.config import (
    MIN_RSS_KEY_SIZE,
    MIN_RSS_TABLE_LENGTH,
    HashType,
    NetConfig,
    TunnelType,
)
from vdpad.virtio.features import Feature, FeatureSet

PACKET_FEATURES: FeatureSet = ALL_FEATURES - {
    Feature.ANY_LAYOUT,
    Feature.CSUM,
    Feature.DEVICE_STATS,
    Feature.GUEST_HDRLEN,
    Feature.HOST_ECN,
    Feature.HOST_TSO4,
    Feature.HOST_TSO6,
    Feature.HOST_UFO,
    Feature.HOST_USO,
    Feature.GUEST_UDP_TUNNEL_GSO,
    Feature.GUEST_UDP_TUNNEL_GSO_CSUM,
    Feature.HOST_UDP_TUNNEL_GSO,
    Feature.HOST_UDP_TUNNEL_GSO_CSUM,
    Feature.NOTIF_CONFIG_DATA,
    Feature.RING_RESET,
    Feature.RSC_EXT,
    Feature.STANDBY,
} | {Feature.IN_ORDER}
"""Features. No offload of sending; nor GUEST_HDRLEN, which Linux 6.12 sets as one more offload
among those that the specification lists (5.1.6.5.6), and with it could not switch receive offloads
off."""

_LINK_UP = 1  # virtio 1.4, 5.1.4: VIRTIO_NET_S_LINK_UP

PACKET_CONFIG = NetConfig(
    mac=bytes.fromhex("525400000001"),
    status=_LINK_UP,
    max_virtqueue_pairs=4,
    mtu=1500,
    rss_max_key_size=MIN_RSS_KEY_SIZE,
    rss_max_indirection_table_length=MIN_RSS_TABLE_LENGTH,
    supported_hash_types=frozenset(HashType),
    supported_tunnel_types=frozenset(TunnelType),
)
"""The config space, with a link that is up."""
