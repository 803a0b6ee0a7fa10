"""What QEMU's query-rx-filter tells of a network card, as tests make it up."""

from typing import Any


def card(name: str = "nic0", **more: Any) -> dict[str, Any]:
    """A card as QEMU 10.0 tells it after a driver's start.

    Args:
        name: of the card.
        more: that is otherwise, with underscores for hyphens.
    """
    told: dict[str, Any] = {
        "name": name,
        "promiscuous": False,
        "main-mac": "52:54:00:12:34:56",
        "unicast": "normal",
        "multicast": "normal",
        "vlan": "none",
        "broadcast-allowed": False,
        "unicast-overflow": False,
        "multicast-overflow": False,
        "unicast-table": [],
        "multicast-table": [],
        "vlan-table": [],
    }
    return told | {key.replace("_", "-"): value for key, value in more.items()}
