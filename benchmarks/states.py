"""The states that are measured."""

from typing import Any

_FEATURES = [
    *("CSUM", "GUEST_CSUM", "CTRL_GUEST_OFFLOADS", "MAC", "GUEST_TSO4", "GUEST_TSO6", "STATUS"),
    *("CTRL_VQ", "CTRL_RX", "CTRL_VLAN", "CTRL_RX_EXTRA", "MQ", "CTRL_MAC_ADDR", "RSS"),
]


_RX_MODES = ("promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast")


def usual() -> dict[str, Any]:
    """What an ordinary guest has: 12 commands."""
    return {
        "version": 1,
        "features": _FEATURES,
        "mac": "52:54:00:12:34:56",
        "rx": dict.fromkeys(("promisc", "allmulti", "alluni", "nomulti", "nouni"), False),
        "mac_table": {"unicast": [], "multicast": ["01:00:5e:00:00:01", "33:33:00:00:00:01"]},
        "vlans": [0, 42],
        "queue_pairs": 4,
        "rss": {
            "hash_types": ["IPv4", "TCPv4"],
            "indirection_table": [0, 1, 2, 3] * 32,
            "unclassified_queue": 0,
            "max_tx_queues": 4,
            "key": "6d5a56da255b0ec2" * 5,
        },
        "guest_offloads": ["GUEST_CSUM", "GUEST_TSO4"],
    }


def full() -> dict[str, Any]:
    """The same with every VLAN and full MAC tables: about 4100 commands."""
    return usual() | {
        "vlans": [[1, 4094]],
        "mac_table": {
            "unicast": [f"52:54:00:00:01:{i:02x}" for i in range(32)],
            "multicast": [f"01:00:5e:00:01:{i:02x}" for i in range(32)],
        },
        "rx": dict.fromkeys(
            ("promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast"), False
        ),
    }
