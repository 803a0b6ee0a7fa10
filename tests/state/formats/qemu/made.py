"""Migration streams put together by hand, for what a real QEMU will not write on demand.

Written from what QEMU's streams were seen to hold, and not from vdpad's reader. That real streams
look like this is for tests/qemu and the recorded streams to show.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

EOF, START, PART, END, FULL = 0, 1, 2, 3, 4
SUBSECTION, DESCRIPTION, CONFIGURATION, COMMAND, FOOTER = 5, 6, 7, 8, 0x7E
PAGE = 4096
CHUNK_END = struct.pack(">Q", 0x10)
OLD_HEADER = b"QEVM" + struct.pack(">I", 3)
"""What the stream of a machine before 2.4 opens with, all of it."""
MAC = bytes.fromhex("525400123456")
NO_VLANS = bytes(512)
KEY = bytes(range(1, 41))


def named(name: str) -> bytes:
    """A length byte and a name."""
    return bytes([len(name)]) + name.encode()


def subsection(name: str, body: bytes, version: int = 1) -> bytes:
    """A subsection with its header."""
    return bytes([SUBSECTION]) + named(name) + struct.pack(">I", version) + body


# --- memory ---


def blocks(**lengths: int) -> bytes:
    """The chunk that lists the blocks of memory."""
    total = sum(lengths.values())
    entries = (named(name) + struct.pack(">Q", length) for name, length in lengths.items())
    return struct.pack(">Q", total | 0x04) + b"".join(entries)


def page(fill: bytes = b"\xa5", block: str | None = "pc.ram", address: int = 0) -> bytes:
    """A chunk with a page; block None is "the same block as before"."""
    flags = 0x08 | (0x20 if block is None else 0)
    name = b"" if block is None else named(block)
    return struct.pack(">Q", address | flags) + name + (fill * PAGE)[:PAGE]


def zero_page(block: str | None = None) -> bytes:
    """A chunk for a page of zeros."""
    flags = 0x02 | (0x20 if block is None else 0)
    return struct.pack(">Q", flags) + (b"" if block is None else named(block)) + b"\0"


# --- sections ---


@dataclass(frozen=True)
class Section:
    """A device's section."""

    name: str
    body: bytes
    kind: str = ""
    instance: int = 0

    def described(self) -> dict[str, Any]:
        """As the description at the end has it."""
        own = {"name": "virtio", "type": "virtio", "size": len(self.body)}
        return {
            "name": self.name,
            "instance_id": self.instance,
            "vmsd_name": self.kind,
            "version": 11,
            "fields": [own],
        }


def opening(mark: int, number: int, name: str, instance: int = 0, version: int = 4) -> bytes:
    """What a START or FULL section opens with."""
    return struct.pack(">BI", mark, number) + named(name) + struct.pack(">II", instance, version)


def footer(number: int) -> bytes:
    """What every section ends with."""
    return struct.pack(">BI", FOOTER, number)


def ram_sections(*parts: bytes, footers: bool = True) -> bytes:
    """RAM's sections, each part with an end chunk; the first one starts, the last one ends."""
    end = CHUNK_END + (footer(2) if footers else b"")
    made = opening(START, 2, "ram") + parts[0] + end
    for at, part in enumerate(parts[1:], 2):
        mark = END if at == len(parts) else PART
        made += struct.pack(">BI", mark, 2) + part + end
    return made


def full(section: Section, number: int, *, footers: bool = True) -> bytes:
    """A device's section with its opening and footer."""
    start = opening(FULL, number, section.name, section.instance, 11)
    return start + section.body + (footer(number) if footers else b"")


def header(machine: str = "pc-q35-10.0", *configuration: bytes) -> bytes:
    """What a stream opens with; configuration: subsections."""
    named_machine = struct.pack(">BI", CONFIGURATION, len(machine)) + machine.encode()
    return OLD_HEADER + named_machine + b"".join(configuration)


def description(devices: Iterable[dict[str, Any]]) -> bytes:
    """The end mark and the description."""
    text = json.dumps({"page_size": PAGE, "devices": list(devices)}).encode()
    return bytes([EOF, DESCRIPTION]) + struct.pack(">I", len(text)) + text


def stream(
    *sections: Section,
    machine: str = "pc-q35-10.0",
    configuration: Sequence[bytes] = (),
    ram: bytes | None = None,
) -> bytes:
    """A whole stream."""
    memory = ram_sections(blocks(**{"pc.ram": PAGE}), page(), b"") if ram is None else ram
    made = header(machine, *configuration) + memory
    for number, section in enumerate(sections, 10):
        made += full(section, number)
    return made + description(section.described() for section in sections)


def old_stream(*sections: Section) -> bytes:
    """The same of a machine before 2.4: no configuration, no footers."""
    memory = ram_sections(blocks(**{"pc.ram": PAGE}), page(), b"", footers=False)
    made = OLD_HEADER + memory
    made += b"".join(full(each, at, footers=False) for at, each in enumerate(sections, 10))
    return made + description(section.described() for section in sections)


# --- a virtio-net device ---


@dataclass(frozen=True)
class Rss:
    """What the RSS subsection has."""

    redirect: bool = True
    hash_types: int = 1
    table: tuple[int, ...] = (0, 1)
    default_queue: int = 0
    key: bytes = KEY
    version: int = 1
    enabled: int = 1

    def encoded(self) -> bytes:
        """The subsection."""
        body = struct.pack(">BBBI", self.enabled, self.redirect, not self.redirect, self.hash_types)
        if self.version == 2:
            body += struct.pack(">I", 0x1FF)
        body += struct.pack(">HH", len(self.table), self.default_queue) + self.key
        body += struct.pack(f">{len(self.table)}H", *self.table)
        return subsection("virtio-net-device/rss", body, self.version)


@dataclass(frozen=True)
class Net:
    """A virtio-net device over PCI; every field as QEMU writes it."""

    features: int = 0
    mac: bytes = MAC
    macs: tuple[bytes, ...] = ()
    vlans: bytes = NO_VLANS
    flags: dict[str, int] = field(default_factory=dict)
    """promisc, allmulti, multi_overflow, uni_overflow, alluni, nomulti, nouni, nobcast."""
    pairs: tuple[int, int] | None = None
    """The host's queue pairs and those in use, where the host has more than one."""
    offloads: int = 0
    rss: Rss | None = None
    vectors: int = 0
    express: bool = False
    status: int = 0x0F
    link: int = 1
    rings: tuple[int, ...] = (256, 256, 64)
    before: bytes = b""
    """Subsections of the network device's own, behind RSS."""
    more: bytes = b""
    """Subsections behind the features."""
    high_features: int | None = None
    """Features 64 to 127, in a subsection of their own."""

    def section(self, name: str = "0000:00:03.0/virtio-net", instance: int = 0) -> Section:
        """The device's section."""
        return Section(name, self.encoded(), "virtio-net", instance)

    def encoded(self) -> bytes:
        """The section's body."""
        return self._pci() + self._virtio() + self._net() + self._subsections()

    def _pci(self) -> bytes:
        config = bytearray(4096 if self.express else 256)
        at = 0x34
        if self.vectors:
            config[at], at = 0x40, 0x41
            config[0x40:0x44] = struct.pack("<BBH", 0x11, 0, self.vectors - 1)
        if self.express:
            config[at] = 0x80
            config[0x80] = 0x10
        msix = bytes(self.vectors * 16 + (self.vectors + 7) // 8 + 2) if self.vectors else b""
        return struct.pack(">I", 2) + config + bytes(16) + msix

    def _virtio(self) -> bytes:
        low = self.features & 0xFFFFFFFF
        made = struct.pack(">BBHII", self.status, 0, 0, low, 12) + bytes(12)
        vector = bytes(2) if self.vectors else b""
        made += struct.pack(">I", len(self.rings))
        return made + b"".join(struct.pack(">IQH", each, 0, 0) + vector for each in self.rings)

    def _flag(self, *names: str) -> bytes:
        return bytes(self.flags.get(name, 0) for name in names)

    def _net(self) -> bytes:
        made = self.mac + struct.pack(">IIH", 0, 1, self.link) + self._flag("promisc", "allmulti")
        made += struct.pack(">I", len(self.macs)) + b"".join(self.macs) + self.vlans
        made += struct.pack(">I", 1) + self._flag("multi_overflow", "uni_overflow")
        made += self._flag("alluni", "nomulti", "nouni", "nobcast") + b"\1"
        if self.pairs is not None:
            made += struct.pack(">HH", *self.pairs) + bytes(4 * max(0, self.pairs[1] - 1))
        if self.features & 1 << 2:
            made += struct.pack(">Q", self.offloads)
        return made

    def _subsections(self) -> bytes:
        made = (self.rss.encoded() if self.rss else b"") + self.before
        if self.high_features is not None:
            made += subsection("virtio/128bit_features", struct.pack(">Q", self.high_features))
        low = self.features & (1 << 64) - 1
        made += subsection("virtio/64bit_features", struct.pack(">Q", low))
        return made + self.more + subsection("virtio/started", b"\1")
