"""A ring as the API's lent target."""

from typing import Any

from vdpad.virtio.features import FEATURES, FeatureSet
from vdpad.virtio.split_ring import RingGeometry


def lent_target(features: FeatureSet, pairs: int, geometry: RingGeometry) -> dict[str, Any]:
    """The target of a device with the least RSS limits that the specification allows."""
    return {
        "kind": "lent",
        "features": FEATURES.names(features),
        "config": {
            "max_virtqueue_pairs": pairs,
            "rss_max_key_size": 40,
            "rss_max_indirection_table_length": 128,
            "supported_hash_types": ["IPv4", "TCPv4", "UDPv4", "IPv6", "TCPv6", "UDPv6"],
        },
        "ring": {
            "size": geometry.size,
            "memory": geometry.memory._asdict(),
            "descriptors": geometry.descriptors,
            "available": geometry.available,
            "used": geometry.used,
            "buffers": geometry.buffers._asdict(),
        },
    }
