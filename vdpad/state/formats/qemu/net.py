"""The network device's layer: its settings as QEMU keeps them.

Two parts of it do not say that they are there. The guest offloads are where CTRL_GUEST_OFFLOADS was
negotiated. The queue pairs are where the *host* gave more than one, which nothing before tells: so
both readings are tried up to the section's last byte, and exactly one may reach it.

Source: QEMU's hw/net/virtio-net.c as observed.
"""

from dataclasses import dataclass

from vdpad.state.formats.qemu.source import Source
from vdpad.state.formats.qemu.virtio import VirtioTail, pull_subsection, pull_tail
from vdpad.state.found import FormatError

_MAC = 6
VLAN_TABLE = 512
# virtio_net_config.status (virtio 1.4, 5.1.4).
_LINK_UP, _ANNOUNCE = 1, 2
_RSS = "virtio-net-device/rss"
BACKEND = "virtio-net-device/backend"
"""The subsection with a vhost-user back end's own state, of QEMU 10 on."""
_RSS_VERSIONS = (1, 2)
_RSS_KEY = 40
_CTRL_GUEST_OFFLOADS = 1 << 2


@dataclass(frozen=True, slots=True)
class NetFilter:
    """The receive filter, and what stands around it."""

    mac: bytes
    link_up: bool
    announcing: bool
    """The device has asked the guest to announce itself, and the guest has not done so yet."""
    promisc: bool
    allmulti: bool
    macs: tuple[bytes, ...]
    """Unicast addresses, and from the first with the group bit on multicast ones."""
    vlans: bytes
    """A bit for each id, in 32-bit words of the host's byte order."""
    multicast_overflow: bool
    unicast_overflow: bool
    alluni: bool
    nomulti: bool
    nouni: bool
    nobcast: bool


@dataclass(frozen=True, slots=True)
class RssData:
    """What MQ_RSS_CONFIG or MQ_HASH_CONFIG has set, where it is switched on."""

    redirect: bool
    """Packets are spread over queues: MQ_RSS_CONFIG."""
    hash_types: int
    indirection_table: tuple[int, ...]
    default_queue: int
    key: bytes
    """Always 40 bytes: QEMU keeps no length."""


@dataclass(frozen=True, slots=True)
class NetTail:
    """What follows the filter."""

    max_queue_pairs: int
    """Those that the host gave."""
    queue_pairs: int
    """Those in use."""
    guest_offloads: int | None
    """A mask; None where CTRL_GUEST_OFFLOADS was not negotiated."""
    rss: RssData | None
    backend: bytes | None
    """A vhost-user back end's own state; None where it has none in the stream."""
    virtio: VirtioTail


def pull_filter(source: Source) -> NetFilter:
    """Reads up to where the reading gets ambiguous.

    Raises:
        FormatError: it makes no sense, or ends too early.
    """
    mac = source.take(_MAC, "the MAC address")
    source.take(4 + 4, "what waits to be sent, and the buffers' kind")
    link = source.u16("the link's status")
    promisc, allmulti = source.flag("promisc"), source.flag("allmulti")
    macs = _pull_macs(source)
    vlans = source.take(VLAN_TABLE, "the VLAN table")
    source.u32("the packets' header")
    flags = [source.flag(name) for name in _FLAGS]
    source.u8("the UFO flag")
    announcing = bool(link & _ANNOUNCE)
    return NetFilter(mac, bool(link & _LINK_UP), announcing, promisc, allmulti, macs, vlans, *flags)


_FLAGS = ("multi_overflow", "uni_overflow", "alluni", "nomulti", "nouni", "nobcast")


def _pull_macs(source: Source) -> tuple[bytes, ...]:
    count = source.u32("the number of addresses")
    # Not bounded by QEMU's own 64: the section's length does that.
    table = source.take(count * _MAC, "the MAC table")
    return tuple(table[at : at + _MAC] for at in range(0, len(table), _MAC))


def pull_tail_either_way(section: bytes, at: int, where: str, low_features: int) -> NetTail:
    """Reads from behind the filter to the section's end, with queue pairs or without.

    Args:
        section: from behind the filter on.
        at: its offset in the stream.
        where: what is being read, for people.
        low_features: the mask of the negotiated features 0 to 31.

    Raises:
        FormatError: neither reading ends where the section does, which the one that came further
            tells, or both do.
    """
    readings: list[NetTail] = []
    faults: list[tuple[int, FormatError]] = []
    for with_pairs in (True, False):
        source = Source.over(section, at, where)
        try:
            readings.append(_pull_tail(source, with_pairs, low_features, at + len(section)))
        except FormatError as error:
            faults.append((source.at, error))
    if len(readings) == 1:
        return readings[0]
    if faults:
        raise _of_the_furthest(faults)
    raise FormatError(
        f"at byte {at}, in {where}: expected queue pairs or none, got what can be read as both"
    )


def _of_the_furthest(faults: list[tuple[int, FormatError]]) -> FormatError:
    """What ended the reading that came further, which is most likely the right one."""
    return max(faults, key=lambda fault: fault[0])[1]


def _pull_tail(source: Source, with_pairs: bool, low_features: int, end: int) -> NetTail:
    most, pairs = _pull_pairs(source) if with_pairs else (1, 1)
    offloads = None
    if low_features & _CTRL_GUEST_OFFLOADS:
        offloads = source.u64("the guest offloads")
    rss, backend = None, None
    name, version = _next_subsection(source, end)
    while name in (_RSS, BACKEND):
        if name == _RSS:
            rss = _pull_rss(source, version)
        else:
            backend = _pull_backend(source)
        name, version = _next_subsection(source, end)
    virtio = pull_tail(source, name, low_features, end)
    return NetTail(most, pairs, offloads, rss, backend, virtio)


def _next_subsection(source: Source, end: int) -> tuple[str, int]:
    """The next one's name and version; no name where the section ends."""
    return pull_subsection(source) if source.at < end else ("", 0)


def _pull_pairs(source: Source) -> tuple[int, int]:
    most, pairs = source.u16("the queue pairs"), source.u16("the queue pairs in use")
    if most < 2 or not 1 <= pairs <= most:
        raise source.wrong("queue pairs, 2 or more", f"{pairs} of {most}", source.at - 4)
    source.take(4 * (pairs - 1), "what waits to be sent")
    return most, pairs


def _pull_backend(source: Source) -> bytes:
    """Reads the back end's state: chunks, each behind its length, until one of no bytes.

    The section's own length bounds it.
    """
    chunks = []
    while length := source.u32("the length of the back end's state"):
        chunks.append(source.take(length, "the back end's state"))
    return b"".join(chunks)


def _pull_rss(source: Source, version: int) -> RssData:
    if version not in _RSS_VERSIONS:
        raise source.wrong("RSS data of version 1 or 2", str(version), source.at - 4)
    source.expect("RSS being switched on", 1, source.u8("whether RSS is on"), 1)
    redirect, _ = source.flag("redirect"), source.flag("populate_hash")
    hash_types = source.u32("the hash types")
    if version == 2:
        source.u32("the supported hash types")
    length, default_queue = source.u16("the table's length"), source.u16("the default queue")
    key = source.take(_RSS_KEY, "the key")
    table = source.take(2 * length, "the indirection table")
    entries = (int.from_bytes(table[i : i + 2], "big") for i in range(0, len(table), 2))
    return RssData(redirect, hash_types, tuple(entries), default_queue, key)
