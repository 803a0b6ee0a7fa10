# What a virtio-net section holds
#
# QEMU writes the device as one run of bytes in layers, outermost first: the PCI function, the
# virtio-pci transport, the virtio device and its queues, the network card, and then subsections:
# the card's own (RSS) before virtio's (the high feature bits among them). Nothing separates the
# layers; each length follows from what came before. A PCIe function, which is one behind a root
# port, has the larger configuration space; its capability says so.
#
# One part announces itself nowhere: the queue pairs are written only if the *host side* gave more
# than one. Both readings are tried, and the right one is that behind which a subsection opens.
"""The settings of a virtio-net device, from its section of a migration stream."""

from __future__ import annotations

from dataclasses import dataclass

from .cursor import Cursor, StreamError

PCI_VERSION = 2
PCI_CONFIG_BYTES = 256
PCIE_CONFIG_BYTES = 4096
PCI_IRQ_BYTES = 16
PCI_CAPABILITIES = 0x34
CAPABILITY_PCIE = 0x10
CAPABILITY_MSIX = 0x11
MSIX_ENTRIES_MASK = 0x7FF

SUBSECTION = 0x05
RSS_NAME = "virtio-net-device/rss"
HIGH_FEATURES_NAME = "virtio/128bit_features"
FEATURES_NAME = "virtio/64bit_features"
ENDIAN_NAME = "virtio/device_endian"
CTRL_GUEST_OFFLOADS = 1 << 2

VLAN_BYTES = 512
RSS_KEY_BYTES = 40


@dataclass(frozen=True)
class RssSettings:
    """What MQ_RSS_CONFIG or MQ_HASH_CONFIG has set."""

    redirect: bool
    """Packets are spread over the queues: True after RSS_CONFIG, False after HASH_CONFIG."""
    populate_hash: bool
    """The hash is reported in the packet's header: whether HASH_REPORT is negotiated."""
    hash_types: int
    indirection_table: tuple[int, ...]
    default_queue: int
    """Where unclassified packets go."""
    key: bytes
    """Always 40 bytes: QEMU keeps no key length."""


@dataclass(frozen=True)
class NetSettings:
    """A virtio-net device's settings as QEMU holds them. Addresses are like 52:54:00:12:34:56."""

    mac: str
    promisc: bool
    allmulti: bool
    alluni: bool
    nomulti: bool
    nouni: bool
    nobcast: bool
    unicast: tuple[str, ...]
    """Sorted, as are the multicast ones."""
    multicast: tuple[str, ...]
    uni_overflow: bool
    multi_overflow: bool
    vlans: frozenset[int]
    """All of 0 to 4095 where CTRL_VLAN is not negotiated."""
    max_queue_pairs: int
    """1 where the host side has a single pair, as is the next."""
    curr_queue_pairs: int
    guest_offloads: int | None
    """None where CTRL_GUEST_OFFLOADS is not negotiated."""
    rss: RssSettings | None
    """None where neither RSS nor hash reports are on."""
    features: int
    """The negotiated features' mask, 128 bits."""


@dataclass(frozen=True)
class _Card:
    """The network card's layer, up to where its length is certain."""

    mac: bytes
    promisc: bool
    allmulti: bool
    macs: tuple[bytes, ...]
    vlans: bytes
    multi_overflow: bool
    uni_overflow: bool
    alluni: bool
    nomulti: bool
    nouni: bool
    nobcast: bool


@dataclass(frozen=True)
class _Tail:
    """What follows the card's layer."""

    max_queue_pairs: int
    curr_queue_pairs: int
    guest_offloads: int | None
    rss: RssSettings | None
    features: int


def net_settings(section: bytes) -> NetSettings:
    """Read a virtio-net-over-PCI section. Raises StreamError where it isn't one."""
    cursor = Cursor(section)
    msix = _pci_function(cursor)
    features = _virtio(cursor, msix)
    card = _card(cursor)
    tail = _tail(section, cursor.at, features)
    first_multicast = _first_multicast(card.macs)
    return NetSettings(
        mac=card.mac.hex(":"),
        promisc=card.promisc,
        allmulti=card.allmulti,
        alluni=card.alluni,
        nomulti=card.nomulti,
        nouni=card.nouni,
        nobcast=card.nobcast,
        unicast=_addresses(card.macs[:first_multicast]),
        multicast=_addresses(card.macs[first_multicast:]),
        uni_overflow=card.uni_overflow,
        multi_overflow=card.multi_overflow,
        vlans=_vlan_ids(card.vlans),
        max_queue_pairs=tail.max_queue_pairs,
        curr_queue_pairs=tail.curr_queue_pairs,
        guest_offloads=tail.guest_offloads,
        rss=tail.rss,
        features=tail.features,
    )


def _pci_function(cursor: Cursor) -> bool:
    """Skip the PCI layer; return whether the function has MSI-X."""
    cursor.expect("the PCI version", PCI_VERSION, cursor.u32())
    config = cursor.take(PCI_CONFIG_BYTES)
    capabilities = pci_capabilities(config)
    if CAPABILITY_PCIE in capabilities:
        cursor.take(PCIE_CONFIG_BYTES - PCI_CONFIG_BYTES)
    cursor.take(PCI_IRQ_BYTES)
    msix = capabilities.get(CAPABILITY_MSIX)
    if msix is not None:
        entries = 1 + (int.from_bytes(config[msix + 2 : msix + 4], "little") & MSIX_ENTRIES_MASK)
        cursor.take(16 * entries + (entries + 7) // 8)
        cursor.u16()
    return msix is not None


def pci_capabilities(config: bytes) -> dict[int, int]:
    """Return the offsets of the function's capabilities by their id, the last of each."""
    found: dict[int, int] = {}
    at = config[PCI_CAPABILITIES]
    for _ in range(PCI_CONFIG_BYTES // 4):
        if at == 0 or at > PCI_CONFIG_BYTES - 4:
            return found
        found[config[at]] = at
        at = config[at + 1]
    raise StreamError("the PCI capabilities are a circle")


def _virtio(cursor: Cursor, msix: bool) -> int:
    """Skip the virtio layer; return the low 32 feature bits."""
    cursor.take(1 + 1 + 2)
    features = cursor.u32()
    # The configuration bytes here are stale: the card's own layer has the address.
    cursor.take(cursor.u32())
    for _ in range(cursor.u32()):
        cursor.take(4 + 8 + 2 + (2 if msix else 0))
    return features


def _card(cursor: Cursor) -> _Card:
    mac = cursor.take(6)
    cursor.take(4 + 4 + 2)
    promisc, allmulti = cursor.flag(), cursor.flag()
    macs = tuple(cursor.take(6) for _ in range(cursor.u32()))
    vlans = cursor.take(VLAN_BYTES)
    cursor.u32()
    multi_overflow, uni_overflow = cursor.flag(), cursor.flag()
    alluni, nomulti, nouni, nobcast = (cursor.flag() for _ in range(4))
    cursor.u8()
    return _Card(
        mac=mac,
        promisc=promisc,
        allmulti=allmulti,
        macs=macs,
        vlans=vlans,
        multi_overflow=multi_overflow,
        uni_overflow=uni_overflow,
        alluni=alluni,
        nomulti=nomulti,
        nouni=nouni,
        nobcast=nobcast,
    )


def _tail(section: bytes, at: int, features: int) -> _Tail:
    for with_pairs in (True, False):
        try:
            return _read_tail(Cursor(section, at), features, with_pairs)
        except StreamError:
            continue
    raise StreamError(f"no subsection follows the card at {at}, with queue pairs or without")


def _read_tail(cursor: Cursor, features: int, with_pairs: bool) -> _Tail:
    most, current = _queue_pairs(cursor) if with_pairs else (1, 1)
    offloads = cursor.u64() if features & CTRL_GUEST_OFFLOADS else None
    name, version = _subsection(cursor)
    rss, high = None, 0
    if name == RSS_NAME:
        rss = _rss(cursor, version)
        name, _ = _subsection(cursor)
    if name == ENDIAN_NAME:
        cursor.u8()
        name, _ = _subsection(cursor)
    if name == HIGH_FEATURES_NAME:
        high = cursor.u64()
        name, _ = _subsection(cursor)
    if name == FEATURES_NAME:
        features = cursor.u64()
    return _Tail(most, current, offloads, rss, high << 64 | features)


def _queue_pairs(cursor: Cursor) -> tuple[int, int]:
    most, current = cursor.u16(), cursor.u16()
    if not 1 <= current <= most:
        raise StreamError(f"{current} of {most} queue pairs before {cursor.at}")
    cursor.take(4 * (current - 1))
    return most, current


def _subsection(cursor: Cursor) -> tuple[str, int]:
    """Read a subsection's header and return its name and version."""
    cursor.expect("a subsection's mark", SUBSECTION, cursor.u8())
    name = cursor.name()
    if not name.startswith("virtio"):
        raise StreamError(f"a subsection named {name!r} before {cursor.at}")
    return name, cursor.u32()


def _rss(cursor: Cursor, version: int) -> RssSettings:
    cursor.expect("RSS being enabled", 1, cursor.u8())
    redirect, populate_hash = cursor.flag(), cursor.flag()
    hash_types = cursor.u32()
    if version > 1:
        cursor.u32()  # the types that the device supports
    length, default_queue = cursor.u16(), cursor.u16()
    key = cursor.take(RSS_KEY_BYTES)
    table = tuple(cursor.u16() for _ in range(length))
    return RssSettings(redirect, populate_hash, hash_types, table, default_queue, key)


def _first_multicast(macs: tuple[bytes, ...]) -> int:
    return next((index for index, mac in enumerate(macs) if mac[0] & 1), len(macs))


def _addresses(macs: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(sorted(mac.hex(":") for mac in macs))


def _vlan_ids(bitmap: bytes) -> frozenset[int]:
    """Read the table, an array of the host's 32-bit words; on a little-endian host, of bytes."""
    return frozenset(vid for vid in range(8 * VLAN_BYTES) if bitmap[vid >> 3] >> (vid & 7) & 1)
