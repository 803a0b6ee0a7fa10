# How the walk works
#
# A migration stream is a header, a run of sections, an end mark, and behind it a JSON description
# of the sections' contents. Only the description tells how long a device's section is, so it is
# found first, from the end: its own length stands before it, and JSON holds no control bytes, so
# the first place backwards where type byte and length agree with the rest of the file is its
# header. Guest memory stands further to the front and cannot forge it.
#
# Then the walk goes forward over everything. The RAM's sections are the only ones that the
# description leaves out; they are walked chunk by chunk. Every section's footer must repeat its
# number, so a wrong length is noticed at once and never becomes a wrong setting. Streams of
# machines before 2.4 have no footers.
#
# Source: the layout as observed in streams of QEMU 7.2, 10.0 and 11.1, which this walks to their
# last byte.
"""Finds the virtio-net device in a QEMU migration stream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from .cursor import Cursor, StreamError
from .net_settings import NetSettings, RssSettings, net_settings

__all__ = ["NetSettings", "RssSettings", "StreamError", "device_states", "read_net_settings"]

MAGIC = 0x5145564D
VERSION = 3
PAGE_BYTES = 4096
VIRTIO_NET = "virtio-net"
RAM = "ram"


class Mark(IntEnum):
    """The bytes that open or close a part of the stream."""

    EOF = 0x00
    START = 0x01
    PART = 0x02
    END = 0x03
    FULL = 0x04
    SUBSECTION = 0x05
    DESCRIPTION = 0x06
    CONFIGURATION = 0x07
    COMMAND = 0x08
    FOOTER = 0x7E


# Flags in the low bits of a RAM chunk's address. Plain numbers: there are 16000 chunks.
CHUNK_ZERO = 0x02
CHUNK_SIZES = 0x04
CHUNK_PAGE = 0x08
CHUNK_END = 0x10
CHUNK_SAME_BLOCK = 0x20
CHUNK_MULTIFD_FLUSH = 0x200
CHUNK_FLAGS = PAGE_BYTES - 1
CHUNK_KINDS = CHUNK_ZERO | CHUNK_SIZES | CHUNK_PAGE | CHUNK_END | CHUNK_MULTIFD_FLUSH


@dataclass(frozen=True)
class DeviceState:
    """One device's section."""

    name: str
    kind: str
    """The description's vmsd_name, e.g. "virtio-net"."""
    instance: int
    body: bytes


def read_net_settings(stream: bytes) -> NetSettings:
    """Return the settings of the stream's only virtio-net device.

    Raises StreamError where there is none or more than one, or where the stream is malformed.
    """
    found = [state for state in device_states(stream) if state.kind == VIRTIO_NET]
    if len(found) != 1:
        raise StreamError(f"{len(found)} virtio-net devices in the stream")
    return net_settings(found[0].body)


def device_states(stream: bytes) -> list[DeviceState]:
    """Walk a whole stream and return its devices' sections in their order."""
    end, description = find_description(stream)
    walk = _Walk(Cursor(stream), description)
    walk.header()
    while walk.section():
        pass
    walk.cursor.expect("the end of the sections", end, walk.cursor.at)
    return walk.states


def find_description(stream: bytes) -> tuple[int, dict[str, Any]]:
    """Return where the sections end and the description's header stands, and the description."""
    marks = bytes([Mark.EOF, Mark.DESCRIPTION])
    at = stream.rfind(marks, 0, len(stream) - 4)
    while at >= 0:
        cursor = Cursor(stream, at + len(marks))
        if cursor.u32() == cursor.left:
            return at + 1, json.loads(cursor.take(cursor.left))
        at = stream.rfind(marks, 0, at + 1)
    raise StreamError("the stream has no JSON description at its end")


class _Walk:
    """One walk over a stream's sections."""

    def __init__(self, cursor: Cursor, description: dict[str, Any]) -> None:
        self.cursor = cursor
        self.states: list[DeviceState] = []
        self._configuration = description.get("configuration", {})
        self._devices = {(one["name"], one["instance_id"]): one for one in description["devices"]}
        self._live: set[int] = set()
        """Numbers of the RAM sections that have started."""
        self._has_footers = False
        """Machines before 2.4 have neither a configuration nor footers."""

    def header(self) -> None:
        """Read what the stream opens with."""
        self.cursor.expect("the magic", MAGIC, self.cursor.u32())
        self.cursor.expect("the version", VERSION, self.cursor.u32())

    def section(self) -> bool:
        """Walk over one section; return False at the end mark."""
        mark = self.cursor.u8()
        if mark == Mark.CONFIGURATION:
            self._take_configuration()
        elif mark == Mark.COMMAND:
            self._take_command()
        elif mark == Mark.START:
            self._take_ram_start()
        elif mark in (Mark.PART, Mark.END):
            self._take_ram_part()
        elif mark == Mark.FULL:
            self._take_device()
        elif mark != Mark.EOF:
            raise StreamError(f"{mark:#x} at {self.cursor.at - 1}, where a section should open")
        return mark != Mark.EOF

    def _take_configuration(self) -> None:
        self._has_footers = True
        self.cursor.take(self.cursor.u32())
        for subsection in self._configuration.get("subsections", []):
            self.cursor.take(_subsection_size(subsection))

    def _take_command(self) -> None:
        self.cursor.u16()
        self.cursor.take(self.cursor.u16())

    def _take_ram_start(self) -> None:
        number, name, _ = self._opening()
        if name != RAM:
            raise StreamError(f"a live section of {name!r}: only RAM is known")
        self._live.add(number)
        _ram_chunks(self.cursor)
        self._take_footer(number)

    def _take_ram_part(self) -> None:
        number = self.cursor.u32()
        if number not in self._live:
            raise StreamError(f"section {number} goes on at {self.cursor.at} and never began")
        _ram_chunks(self.cursor)
        self._take_footer(number)

    def _take_device(self) -> None:
        number, name, instance = self._opening()
        if (name, instance) not in self._devices:
            raise StreamError(f"section {name!r}, instance {instance}, is not in the description")
        device = self._devices[name, instance]
        body = self.cursor.take(_size(device))
        self._take_footer(number)
        self.states.append(DeviceState(name, device.get("vmsd_name", ""), instance, body))

    def _opening(self) -> tuple[int, str, int]:
        """Read what START and FULL sections open with: number, name and instance."""
        number = self.cursor.u32()
        name = self.cursor.name()
        instance = self.cursor.u32()
        self.cursor.u32()
        return number, name, instance

    def _take_footer(self, number: int) -> None:
        if not self._has_footers:
            return
        self.cursor.expect("a section's footer", Mark.FOOTER, self.cursor.u8())
        self.cursor.expect("the footer's number", number, self.cursor.u32())


def _ram_chunks(cursor: Cursor) -> None:
    flags = 0
    while not flags & CHUNK_END:
        flags = _ram_chunk(cursor)
        if not flags & CHUNK_KINDS:
            raise StreamError(f"a RAM chunk before {cursor.at} with flags {flags:#x}")


def _ram_chunk(cursor: Cursor) -> int:
    """Walk over one chunk and return its flags."""
    word = cursor.u64()
    flags = word & CHUNK_FLAGS
    if flags & CHUNK_SIZES:
        _ram_sizes(cursor, word & ~CHUNK_FLAGS)
    elif flags & (CHUNK_ZERO | CHUNK_PAGE):
        if not flags & CHUNK_SAME_BLOCK:
            cursor.name()
        cursor.take(1 if flags & CHUNK_ZERO else PAGE_BYTES)
    return flags


def _ram_sizes(cursor: Cursor, total: int) -> None:
    while total > 0:
        cursor.name()
        total -= cursor.u64()


def _size(described: dict[str, Any]) -> int:
    """Return the length in bytes of a described device or subsection, without its header."""
    # An array whose elements are alike is described once, with its first element's size.
    fields = sum(field["size"] * field.get("array_len", 1) for field in described["fields"])
    return int(fields) + sum(map(_subsection_size, described.get("subsections", [])))


def _subsection_size(described: dict[str, Any]) -> int:
    header = 1 + 1 + len(described["vmsd_name"]) + 4
    return header + _size(described)
