# Who says what
#
# ip -d -j link    own address, promisc, allmulti, and of which VLANs there are interfaces
# bridge -j fdb    the addresses that the kernel has given to the device, unicast and multicast
# ethtool -l -x    queue pairs; indirection table and key
# ethtool -n       hash types: of one family's flows, the ports if they are hashed, the addresses
# ethtool -k       rx-gro-hw: for virtio-net, all receive offloads but the checksum
# ethtool -Q       coalescing of a queue pair
# sysfs            the features that were negotiated, bit 0 first
#
# The kernel adds VLAN 0 to the filter of each interface that goes up, and names it nowhere.
# Sources: Linux 6.12 drivers/net/virtio_net.c, net/8021q/vlan.c.
"""What the guest's own tools say about one of its interfaces, as a state would have it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from vdpad.state.model import CoalescingValues, NetState
from vdpad.virtio.config import GuestOffload, HashType, offloads_of
from vdpad.virtio.features import Feature

from .machine import Guest

FLOWS = {
    "tcp4": (HashType.IPv4, HashType.TCPv4),
    "udp4": (HashType.IPv4, HashType.UDPv4),
    "tcp6": (HashType.IPv6, HashType.TCPv6),
    "udp6": (HashType.IPv6, HashType.UDPv6),
}


@dataclass(frozen=True)
class Said:
    """One interface. A field is None where the guest has no command for it."""

    features: frozenset[int]
    mac: bytes | None
    promisc: bool | None
    allmulti: bool | None
    unicast: frozenset[bytes] | None
    multicast: frozenset[bytes] | None
    vlans: tuple[int, ...] | None
    queue_pairs: int
    indirection_table: tuple[int, ...] | None
    key: bytes | None
    hash_types: frozenset[int] | None
    guest_offloads: frozenset[int] | None


def said_of(guest: Guest, name: str) -> Said:
    """All that the guest says about the interface of this name."""
    links = json.loads(guest.run("ip -d -j link show"))
    (link,) = (each for each in links if each["ifname"] == name)
    features = _features(guest, link["parentdev"])
    rx = Feature.CTRL_RX in features
    unicast, multicast = _addresses(guest, name)
    hashes = not features.isdisjoint({Feature.RSS, Feature.HASH_REPORT})
    offloads = {Feature.CTRL_VQ, Feature.CTRL_GUEST_OFFLOADS} <= features
    return Said(
        features=features,
        mac=_mac(link["address"]) if Feature.CTRL_MAC_ADDR in features else None,
        promisc=link["promiscuity"] > 0 if rx else None,
        allmulti=link["allmulti"] > 0 if rx else None,
        unicast=unicast if rx else None,
        multicast=multicast if rx else None,
        vlans=_vlans(links, name) if Feature.CTRL_VLAN in features else None,
        queue_pairs=_queue_pairs(guest, name),
        indirection_table=_table(guest, name) if Feature.RSS in features else None,
        key=_key(guest, name) if hashes else None,
        hash_types=_hash_types(guest, name) if hashes else None,
        guest_offloads=_offloads(guest, name, features) if offloads else None,
    )


def in_state(state: NetState) -> Said:
    """The same, out of a state."""
    rx, table, hashes = state.rx, state.mac_table, state.rss or state.hash_report
    return Said(
        features=state.features,
        mac=state.mac,
        promisc=rx.promisc if rx else None,
        allmulti=rx.allmulti if rx else None,
        unicast=frozenset(table.unicast) if table else None,
        multicast=frozenset(table.multicast) if table else None,
        vlans=state.vlans,
        queue_pairs=state.queue_pairs or 1,
        indirection_table=state.rss.indirection_table if state.rss else None,
        key=hashes.key if hashes else None,
        hash_types=hashes.hash_types if hashes else None,
        guest_offloads=state.guest_offloads,
    )


def coalescing_said(guest: Guest, name: str, pair: int) -> dict[str, CoalescingValues]:
    """When a queue pair sends interrupts, of "rx" and "tx"."""
    told = guest.run(f"ethtool -Q {name} queue_mask {1 << pair:#x} --show-coalesce")

    def value(what: str) -> int:
        return int(_found(rf"^{what}: (\d+)$", told))

    return {
        each: CoalescingValues(
            max_packets=value(f"{each}-frames"), max_usecs=value(f"{each}-usecs")
        )
        for each in ("rx", "tx")
    }


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _features(guest: Guest, device: str) -> frozenset[int]:
    bits = guest.run(f"cat /sys/bus/virtio/devices/{device}/features")
    return frozenset(bit for bit, value in enumerate(bits) if value == "1")


def _addresses(guest: Guest, name: str) -> tuple[frozenset[bytes], frozenset[bytes]]:
    entries = json.loads(guest.run(f"bridge -j fdb show dev {name}") or "[]")
    macs = frozenset(_mac(entry["mac"]) for entry in entries)
    multicast = frozenset(mac for mac in macs if mac[0] & 1)
    return macs - multicast, multicast


def _vlans(links: list[dict[str, Any]], name: str) -> tuple[int, ...]:
    kinds = (each.get("linkinfo", {}) for each in links if each.get("link") == name)
    ids = (kind["info_data"]["id"] for kind in kinds if kind.get("info_kind") == "vlan")
    return tuple(sorted({0, *ids}))


def _queue_pairs(guest: Guest, name: str) -> int:
    _, now = guest.run(f"ethtool -l {name}").split("Current hardware settings:")
    return int(_found(r"^Combined:\s+(\d+)$", now))


def _table(guest: Guest, name: str) -> tuple[int, ...]:
    rows = re.findall(r"^ *\d+: +([\d ]+)$", guest.run(f"ethtool -x {name}"), re.M)
    return tuple(int(queue) for row in rows for queue in row.split())


def _key(guest: Guest, name: str) -> bytes:
    return _mac(_found(r"^RSS hash key:\n([0-9a-f:]+)$", guest.run(f"ethtool -x {name}")))


def _hash_types(guest: Guest, name: str) -> frozenset[int]:
    said = guest.run(*(f"ethtool -n {name} rx-flow-hash {flow}" for flow in FLOWS))
    types: set[int] = set()
    for (addresses, ports), of_flow in zip(FLOWS.values(), _blocks(said), strict=True):
        types.update({addresses} if "IP SA" in of_flow else ())
        types.update({ports} if "L4 bytes" in of_flow else ())
    return frozenset(types)


def _blocks(said: str) -> list[str]:
    return said.split("flows use these fields")[1:]


def _offloads(guest: Guest, name: str, features: frozenset[int]) -> frozenset[int]:
    state = _found(r"^rx-gro-hw: (on|off)", guest.run(f"ethtool -k {name}"))
    all_of_them = offloads_of(features)
    return all_of_them if state == "on" else all_of_them & {GuestOffload.GUEST_CSUM}


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.M)
    assert match is not None, f"{pattern} is not in {text!r}"
    return match[1]
