"""A virtio-net device's section, from its layers to a state.

What is made of them, where QEMU keeps it otherwise than a state has it:

- a part whose feature was not negotiated is left out, and every part where there is no control
  queue: what stands there is QEMU's own, such as all VLANs, or promiscuous mode, of a device whose
  guest could not ask for anything else;
- the MAC table is split at its first multicast address, however long it is; QEMU itself, loading a
  stream with more than 64, forgets them all without switching a mode on;
- RSS that is switched on is `rss` where it spreads packets and `hash_report` where it does not; its
  transmit queues are the queue pairs in use, which MQ_RSS_CONFIG sets.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from vdpad.state.formats import device_state
from vdpad.state.formats.qemu.net import (
    BACKEND,
    VLAN_TABLE,
    NetFilter,
    NetTail,
    pull_filter,
    pull_tail_either_way,
)
from vdpad.state.formats.qemu.pci import skip_pci
from vdpad.state.formats.qemu.source import Source
from vdpad.state.formats.qemu.virtio import DRIVER_OK, VirtioHead, pull_head
from vdpad.state.found import FormatError, Found, Missing, found_of
from vdpad.state.mac_lists import mac_lists
from vdpad.state.problems import Problem
from vdpad.virtio.bits import bits_of
from vdpad.virtio.features import Feature, FeatureSet, commanded

_PCI_NAME = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:")
_ALL_VLANS = b"\xff" * VLAN_TABLE
# Machines whose hosts are little-endian, which the VLAN table's words are then.
_LITTLE_ENDIAN = ("pc", "q35", "microvm", "virt", "xenfv", "isapc")


def is_little_endian(machine: str, sections: Iterable[str]) -> bool:
    """Whether a stream is known to be of a little-endian host.

    Args:
        machine: its type; empty where it gives none, as before 2.4.
        sections: their names. Of machines before 2.4 those of x86 have an APIC, and no others.
    """
    return machine.startswith(_LITTLE_ENDIAN) if machine else "apic" in sections


def device_name(section: str, instance: int) -> str:
    """How people know the device of a virtio-net section.

    Args:
        section: its name, "0000:00:03.0/virtio-net".
        instance: tells sections of one name apart.
    """
    return section.removesuffix("/virtio-net") + (f"#{instance}" if instance else "")


def unreadable(device: str, why: str) -> Found:
    """A device of which nothing can be told but why."""
    return Found(device, None, (Problem("", "unreadable", why),))


def found_in_section(
    body: bytes, at: int, name: str, instance: int, *, little_endian: bool
) -> Found:
    """The device in a virtio-net section; one that can't be read to its last byte is a problem.

    Args:
        body: the section's.
        at: its offset in the stream.
        name: the section's.
        instance: tells sections of one name apart.
        little_endian: whether the host is known to be.
    """
    device = device_name(name, instance)
    if not _PCI_NAME.match(name):
        text = "expected virtio-net over PCI; what other transports write is not known"
        return Found(device, None, (Problem("", "unsupported", text),))
    where = f"the virtio-net section of {device}"
    source = Source.over(body, at, where)
    try:
        msix = skip_pci(source)
        head = pull_head(source, msix=msix)
        receive = pull_filter(source)
        tail = pull_tail_either_way(body[source.at - at :], source.at, where, head.low_features)
    except FormatError as error:
        return unreadable(device, str(error))
    found = _found(device, head, receive, tail)
    if Feature.CTRL_VLAN in commanded(tail.virtio.features) and not little_endian:
        return _of_unknown_byte_order(found)
    return found


def _found(device: str, head: VirtioHead, receive: NetFilter, tail: NetTail) -> Found:
    settable = commanded(tail.virtio.features)
    lists = mac_lists(*_halves(receive.macs))
    parts: dict[str, Any] = {"features": tail.virtio.features}
    if Feature.CTRL_MAC_ADDR in settable:
        parts["mac"] = receive.mac
    if Feature.CTRL_RX in settable:
        parts["rx"] = _rx(receive, settable)
        parts["mac_table"] = {
            "unicast": lists.unicast,
            "multicast": lists.multicast,
            "unicast_overflow": receive.unicast_overflow,
            "multicast_overflow": receive.multicast_overflow,
        }
    if Feature.CTRL_VLAN in settable:
        parts["vlans"] = _vlans(receive.vlans)
    parts.update(_hashing(tail, settable))
    if tail.guest_offloads is not None and Feature.CTRL_GUEST_OFFLOADS in settable:
        parts["guest_offloads"] = bits_of(tail.guest_offloads)
    found = found_of(
        parts,
        device=device,
        missing=_missing(settable),
        notes=(*lists.notes, *_notes(head, receive, tail)),
        about=_about(head, receive, tail),
    )
    return found if tail.backend is None else _with_back_end(found, tail.backend)


def _with_back_end(found: Found, data: bytes) -> Found:
    """With what a vhost-user back end has added: what QEMU itself does not know.

    The settings are QEMU's, which answers the guest's commands itself where it writes such a
    section; where queues stood, the back end tells.
    """
    try:
        document = device_state.decode(data)
    except FormatError as error:
        is_ours = device_state.begins_one(data)
        why = f"cannot be read: {error}" if is_ours else "they were passed by"
        told = (
            f"subsection {BACKEND!r} has {len(data)} bytes of the vhost-user back end's own; {why}"
        )
        return replace(found, notes=(*found.notes, told))
    return replace(
        found,
        missing=(*found.missing, *device_state.missing_of(document.missing)),
        about=(*found.about, *device_state.about(document)),
        rings=tuple(device_state.bases_of(document.rings).items()),
    )


def _halves(macs: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    first_multicast = next((at for at, mac in enumerate(macs) if mac[0] & 1), len(macs))
    return macs[:first_multicast], macs[first_multicast:]


def _rx(receive: NetFilter, features: FeatureSet) -> dict[str, bool]:
    rx = {"promisc": receive.promisc, "allmulti": receive.allmulti}
    if Feature.CTRL_RX_EXTRA in features:
        rx |= {
            "alluni": receive.alluni,
            "nomulti": receive.nomulti,
            "nouni": receive.nouni,
            "nobcast": receive.nobcast,
        }
    return rx


def _vlans(table: bytes) -> tuple[int, ...]:
    mask = int.from_bytes(table, "little")
    return tuple(vid for vid in range(8 * len(table)) if mask >> vid & 1)


def _hashing(tail: NetTail, settable: FeatureSet) -> dict[str, Any]:
    """What of RSS is on, and the queue pairs: RSS tells them better where it spreads further."""
    pairs, rss = tail.queue_pairs, tail.rss
    told: dict[str, Any] = {"queue_pairs": pairs} if Feature.MQ in settable else {}
    if rss is None:
        return told
    hashed = {"hash_types": bits_of(rss.hash_types), "key": rss.key}
    if not rss.redirect:
        return told | ({"hash_report": hashed} if Feature.HASH_REPORT in settable else {})
    if Feature.RSS not in settable:
        # QEMU 7.2 keeps it on over a reset.
        return told
    if max(*rss.indirection_table, rss.default_queue, 0) >= pairs:
        told.pop("queue_pairs", None)
    told["rss"] = {
        **hashed,
        "indirection_table": rss.indirection_table,
        "unclassified_queue": rss.default_queue,
        "max_tx_queues": pairs,
    }
    return told


def _missing(features: FeatureSet) -> Iterator[Missing]:
    for feature, parts in (
        (Feature.HASH_TUNNEL, ("hash_tunnel",)),
        (Feature.NOTF_COAL, ("coalescing.rx", "coalescing.tx")),
        (Feature.VQ_NOTF_COAL, ("coalescing.queues",)),
    ):
        if feature in features:
            for part in parts:
                yield Missing(part, "QEMU's stream does not have it")


def _notes(head: VirtioHead, receive: NetFilter, tail: NetTail) -> Iterator[str]:
    if not head.status & DRIVER_OK:
        yield "no driver of the guest's runs the device"
    if tail.virtio.broken:
        yield "QEMU has stopped the device for something that its driver did"
    if Feature.CTRL_VLAN in commanded(tail.virtio.features) and receive.vlans == _ALL_VLANS:
        yield "every VLAN is in the table, as some QEMUs, 10.0.2 for one, have it after a reset"
    if tail.rss is not None and not tail.rss.key[-1]:
        yield "QEMU keeps no length of the key: a shorter one is filled up with zeros to 40 bytes"
    if tail.virtio.unread:
        yield f"subsection {tail.virtio.unread!r} is not known; it was not read, nor what follows"


def _about(head: VirtioHead, receive: NetFilter, tail: NetTail) -> Iterator[tuple[str, str]]:
    yield "driver", "running" if head.status & DRIVER_OK else "not running"
    yield "link", "up" if receive.link_up else "down"
    if receive.announcing:
        yield "announcement", "asked of the guest, and not acknowledged"
    yield "most pairs", str(tail.max_queue_pairs)
    sizes = " ".join(map(str, head.ring_sizes))
    yield "ring sizes", sizes


def _of_unknown_byte_order(found: Found) -> Found:
    text = "the table is in the byte order of the host, which this machine does not tell"
    problem = Problem("vlans", "unsupported", text)
    return replace(found, state=None, problems=(*found.problems, problem))
