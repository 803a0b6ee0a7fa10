"""Sample states, each with what QEMU's judges must say once it is restored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .guestless import Guestless, Options, guestless
from .lender import Json, feature_names
from .net_settings import NetSettings, RssSettings

RX_MODES = ("promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast")
"""In the API's spelling, which is also NetSettings'."""
EVERY_VLAN = frozenset(range(1, 4095))
KEY = bytes(range(1, 41))


@dataclass(frozen=True)
class Sample:
    """Parts of a state, and what they change in a freshly reset device. The rest stays."""

    parts: Json
    shown: dict[str, Any] = field(default_factory=dict)
    """Changes in query-rx-filter's answer, by RxFilter's fields."""
    streamed: dict[str, Any] = field(default_factory=dict)
    """Changes in the migration stream, by NetSettings' fields."""
    properties: str = ""
    """What the device needs for it."""

    def __or__(self, other: Sample) -> Sample:
        """Both; where they touch the same, the other one counts."""
        return Sample(
            self.parts | other.parts,
            self.shown | other.shown,
            self.streamed | other.streamed,
            other.properties or self.properties,
        )


def state_of(qemu: Guestless, parts: Json, features: tuple[str, ...] = ()) -> Json:
    """Return a state whose guest had negotiated what this device has, and these features."""
    return {"version": 1, "features": [*feature_names(qemu), *features], **parts}


def rx(**modes: bool) -> Sample:
    """Receive modes. A device comes out of reset with promisc on and the others off."""
    shown: dict[str, Any] = {}
    for mode, (field_name, on) in _SHOWN.items():
        if modes.get(mode, False):
            shown[field_name] = on
    if "promisc" in modes:
        shown["promiscuous"] = modes["promisc"]
    return Sample({"rx": dict(modes)}, shown, dict(modes))


_SHOWN = {
    "allmulti": ("multicast", "all"),
    "nomulti": ("multicast", "none"),
    "alluni": ("unicast", "all"),
    "nouni": ("unicast", "none"),
    "nobcast": ("nobcast", True),
}


def mac(address: str) -> Sample:
    """The device's own address."""
    return Sample({"mac": address}, {"main_mac": address}, {"mac": address})


def mac_table(unicast: tuple[str, ...], multicast: tuple[str, ...]) -> Sample:
    """A table that the device has room for, both halves in ascending order."""
    return Sample(
        {"mac_table": {"unicast": list(unicast), "multicast": list(multicast)}},
        {"unicast_table": unicast, "multicast_table": multicast},
        {"unicast": unicast, "multicast": multicast},
    )


def vlans(entries: list[int | list[int]], ids: frozenset[int]) -> Sample:
    """VLAN ids, as the API has them and one by one."""
    return Sample(
        {"vlans": entries},
        {"vlan": "normal", "vlan_table": tuple(sorted(ids))},
        {"vlans": ids},
    )


def queue_pairs(pairs: int) -> Sample:
    """Queue pairs in use."""
    return Sample({"queue_pairs": pairs}, streamed={"curr_queue_pairs": pairs})


def guest_offloads(mask: int, *names: str) -> Sample:
    """Receive offloads, as names and as their mask."""
    return Sample({"guest_offloads": list(names)}, streamed={"guest_offloads": mask})


def rss(hash_types: tuple[str, ...], mask: int, key: bytes = KEY) -> Sample:
    """RSS over three queues: hash types as names and as their mask, and a key."""
    table = (2, 1, 0, 2) * 32
    # QEMU takes hash types and key that are both empty for the wish to have no RSS.
    settings = RssSettings(
        redirect=True,
        populate_hash=False,
        hash_types=mask,
        indirection_table=table,
        default_queue=1,
        key=key.ljust(len(KEY), b"\0"),
    )
    return Sample(
        {
            "rss": {
                "hash_types": list(hash_types),
                "indirection_table": list(table),
                "unclassified_queue": 1,
                "max_tx_queues": 3,
                "key": key.hex(),
            }
        },
        streamed={"curr_queue_pairs": 3, "rss": settings if key or hash_types else None},
        properties="rss=on",
    )


def unicast_macs(count: int) -> tuple[str, ...]:
    """Return this many different unicast addresses, ascending."""
    return tuple(f"52:54:00:00:{index >> 8:02x}:{index & 0xFF:02x}" for index in range(count))


def multicast_macs(count: int) -> tuple[str, ...]:
    """Return this many different multicast addresses, ascending."""
    return tuple(f"33:33:00:00:{index >> 8:02x}:{index & 0xFF:02x}" for index in range(count))


RSS = rss(("IPv4", "TCPv6", "UDP_EX"), 1 << 0 | 1 << 4 | 1 << 8)
HASH_REPORT = Sample(
    {"hash_report": {"hash_types": ["IPv4", "UDPv4"], "key": KEY.hex()}},
    streamed={
        "rss": RssSettings(
            redirect=False,
            populate_hash=True,
            hash_types=1 << 0 | 1 << 2,
            indirection_table=(0,),
            default_queue=0,
            key=KEY,
        )
    },
    properties="hash=on",
)

PARTS = {
    "mac": mac("52:54:00:aa:bb:cc"),
    "every-mode-off": rx(**dict.fromkeys(RX_MODES, False)),
    "promisc-on": rx(promisc=True),
    **{f"{mode}-on": rx(**{mode: True}) for mode in RX_MODES[1:]},
    "mac-table": mac_table(unicast_macs(3), multicast_macs(5)),
    "full-mac-table": mac_table(unicast_macs(40), multicast_macs(24)),
    "vlans": vlans([4094, 1, [100, 102], 0, 4095], frozenset({0, 1, 100, 101, 102, 4094, 4095})),
    "queue-pairs": queue_pairs(3),
    "guest-offloads": guest_offloads(1 << 1 | 1 << 7, "GUEST_CSUM", "GUEST_TSO4"),
    "no-guest-offloads": guest_offloads(0),
    "rss": RSS,
    "rss-short-key": rss(("UDPv6",), 1 << 5, KEY[:16]),
    "rss-no-hash-types": rss((), 0),
    "hash-report": HASH_REPORT,
}
"""Each part of a state by itself."""

WITHOUT_HASHES = (
    mac("52:54:00:aa:bb:cc")
    | queue_pairs(3)
    | guest_offloads(1 << 1 | 1 << 8, "GUEST_CSUM", "GUEST_TSO6")
    | vlans([5, [10, 19]], frozenset({5, *range(10, 20)}))
    | mac_table(unicast_macs(7), multicast_macs(9))
    | rx(promisc=False, allmulti=False, alluni=True, nomulti=True, nouni=False, nobcast=True)
)
"""All parts but RSS and hash report, of which a device holds one."""

TOGETHER = {
    "without-hashes": WITHOUT_HASHES,
    "with-rss": WITHOUT_HASHES | RSS,
    "with-hash-report": WITHOUT_HASHES | HASH_REPORT,
}

SAMPLE = WITHOUT_HASHES | vlans([[1, 150]], frozenset(range(1, 151)))
"""A state of every kind of command, for rings of any size."""
SAMPLE_COMMANDS = 150 + 10
SAMPLE_VLANS = tuple(range(1, 151))

MANY_VLANS = vlans([[1, 4000]], frozenset(range(1, 4001)))
"""A state that takes a while."""

EVERYTHING = WITHOUT_HASHES | RSS | vlans([[1, 4094]], EVERY_VLAN)
"""About the longest state there is."""
EVERYTHING_COMMANDS = 4094 + 11
"""VLANs; MAC, queue pairs, RSS, offloads, MAC table and six modes."""

_at_reset: dict[Options, NetSettings] = {}


async def settings_at_reset(options: Options) -> NetSettings:
    """Return what such a device has before anything is restored, from a machine of its own."""
    if options not in _at_reset:
        async with guestless(options) as qemu:
            _at_reset[options] = await qemu.settings()
    return _at_reset[options]
