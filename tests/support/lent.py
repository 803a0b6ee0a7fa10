"""A software device's ring as the API's lent target."""

from collections.abc import Sequence
from typing import Any

from vdpad.virtio.packed_ring import PackedGeometry
from vdpad.virtio.rings import RingGeometry

CONFIG: dict[str, Any] = {
    "max_virtqueue_pairs": 8,
    "rss_max_key_size": 40,
    "rss_max_indirection_table_length": 128,
    "supported_hash_types": [
        *("IPv4", "TCPv4", "UDPv4", "IPv6", "TCPv6", "UDPv6"),
        *("IP_EX", "TCP_EX", "UDP_EX"),
    ],
}


def lent_target(features: Sequence[str], geometry: RingGeometry) -> dict[str, Any]:
    """The target of a device with these features."""
    return {
        "kind": "lent",
        "features": list(features),
        "config": CONFIG,
        "ring": ring_of(geometry),
    }


def ring_of(geometry: RingGeometry) -> dict[str, Any]:
    """A geometry as a target tells it."""
    parts = {name: part.iova for name, part in geometry.addresses.parts().items()}
    told = {
        "size": geometry.size,
        "memory": geometry.memory._asdict(),
        **parts,
        "buffers": geometry.buffers._asdict(),
    }
    return {"layout": "packed", **told} if isinstance(geometry, PackedGeometry) else told
