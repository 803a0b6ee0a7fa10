"""The walk over a migration stream, and the virtio-net devices that it passes.

A stream is a header, a configuration, and sections, each with a footer that repeats its number. RAM
comes in a section that starts once and goes on in parts; its layout is known, and it is passed over
chunk by chunk. Any other device comes in one section, whose length only the description at the end
tells (lengths.py). Machines before 2.4 write neither a configuration nor footers.

The walk goes from byte to byte, what is not known between sections stops it, and a section is
believed only when its footer stands where its length says, or where there are none, when a section
or the description begins there. A virtio-net device that cannot be read is a problem of its own,
since where its section ends is known.

Source: QEMU's migration/savevm.c as observed. tests/qemu walks streams of Debian's 7.2, 10.0 and
11.1.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO

from vdpad.state.formats.qemu.description import VIRTIO_NET
from vdpad.state.formats.qemu.device import (
    device_name,
    found_in_section,
    is_little_endian,
    unreadable,
)
from vdpad.state.formats.qemu.lengths import FOOTER, Lengths
from vdpad.state.formats.qemu.ram import RamLayout, skip_ram
from vdpad.state.formats.qemu.source import Source
from vdpad.state.found import FormatError, Found

MAGIC = b"QEVM"
_VERSION = 3

_EOF = 0x00
_START = 0x01
_PART = 0x02
_END = 0x03
_FULL = 0x04
_SUBSECTION = 0x05
_DESCRIPTION = 0x06
_CONFIGURATION = 0x07
_COMMAND = 0x08

_RAM = "ram"
_BETWEEN = "the run of sections"
# A virtio-net device has about 46 KiB, and beside it what its vhost-user back end has. Stops a
# section from filling memory.
_MAX_SECTION = 8 << 20
_MAX_CAPABILITIES = 64


@dataclass(frozen=True, slots=True)
class QemuStream:
    """What was found in a stream."""

    machine: str
    """The machine's type, "pc-i440fx-7.2"; empty of one before 2.4, which gives none."""
    devices: tuple[Found, ...]
    """Its virtio-net devices, in their order."""


def read_stream(stream: BinaryIO, at: int = 0) -> QemuStream:
    """Reads a migration stream to its end.

    Args:
        stream: a file, a pipe, or anything else that reads bytes; from where it stands. Of a pipe,
            what follows the guest's memory is held, at most 16 MiB.
        at: the place of its first byte, where the places in it count from another one.

    Raises:
        FormatError: it is none, it is cut short, or it has something that is not known.
        OSError: it can't be read.
    """
    walk = _Walk(Source(stream, at))
    try:
        devices = tuple(walk.devices())
    except FormatError as error:
        raise walk.lengths.doubted(error) from error
    return QemuStream(walk.machine, devices)


class _Walk:
    """Where the walk is, and what it has learned on the way."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._described = False
        """Whether the description is there. From then on the walk goes over a file."""
        self._ram = RamLayout()
        self._live: set[int] = set()
        """The numbers of the sections that go on."""
        self._memory_passed = False
        self._has_footers: bool | None = None
        """None until the first section's end, where there was no configuration."""
        self.lengths = Lengths()
        self.machine = ""

    def devices(self) -> Iterator[Found]:
        """Walks from the header to the end; gives the virtio-net devices on the way."""
        self._header()
        pass_over: Mapping[int, Callable[[], None]] = {
            _CONFIGURATION: self._configuration,
            _SUBSECTION: self._configuration_part,
            _COMMAND: self._command,
            _START: self._ram_start,
            _PART: self._ram_part,
            _END: self._ram_end,
        }
        while (mark := self._mark()) != _EOF:
            if mark == _FULL:
                yield from self._device()
            elif mark in pass_over:
                pass_over[mark]()
            else:
                raise self._source.wrong("a section", f"{mark:#04x}", self._source.at - 1)
        self._end()

    def _header(self) -> None:
        magic = self._source.take(len(MAGIC), "the magic")
        if magic != MAGIC:
            raise self._source.wrong(f"{MAGIC!r}", repr(magic), self._source.at - len(MAGIC))
        self._source.expect("version", _VERSION, self._source.u32("the version"), 4)

    def _mark(self) -> int:
        self._source.where = _BETWEEN
        return self._source.u8("a section's mark, or the end mark")

    # --- what comes before the memory ---

    def _configuration(self) -> None:
        source = self._source
        source.where = "the configuration"
        length = source.u32("the length of the machine's name")
        if length > 0xFF:
            raise source.wrong("a machine's name", f"one of {length} bytes", source.at - 4)
        name = source.take(length, "the machine's name")
        if not name.isascii() or not name.decode("ascii").isprintable():
            raise source.wrong("a machine's name", name.hex(), source.at - length)
        self.machine = name.decode("ascii")
        self._has_footers = True

    def _configuration_part(self) -> None:
        source = self._source
        source.where = "the configuration"
        name = source.name("a subsection's name")
        source.u32("its version")
        if name == "configuration/capabilities":
            self._capabilities()
        elif name == "configuration/target-page-bits":
            self._page_size(source.u32("the page bits"))
        elif name == "configuration/uuid":
            source.take(16, "the machine's UUID")
        else:
            raise source.wrong("a known part of the configuration", repr(name))

    def _capabilities(self) -> None:
        source = self._source
        count = source.u32("how many capabilities there are")
        if count > _MAX_CAPABILITIES:
            raise source.wrong("some capabilities", str(count), source.at - 4)
        names = {source.name("a capability") for _ in range(count)}
        known = {"x-ignore-shared": "ignore_shared", "mapped-ram": "mapped_ram"}
        if unknown := names - known.keys():
            raise source.wrong("known capabilities", ", ".join(sorted(unknown)))
        self._ram = replace(self._ram, **{known[name]: True for name in names})

    def _page_size(self, bits: int) -> None:
        if not 10 <= bits <= 16:
            raise self._source.wrong("10 to 16 page bits", str(bits), self._source.at - 4)
        self._ram = replace(self._ram, page_size=1 << bits)

    def _command(self) -> None:
        self._source.where = "a command"
        self._source.u16("a command")
        self._source.take(self._source.u16("its length"), "its data")

    # --- memory ---

    def _ram_start(self) -> None:
        number, name, _ = self._opening()
        if name != _RAM:
            raise self._source.wrong(
                "memory as the only section that goes on", f"{name!r}; migrate without it"
            )
        self._live.add(number)
        skip_ram(self._source, self._ram)
        self._footer(number)

    def _ram_part(self) -> None:
        number = self._source.u32("a section's number")
        self._source.where = f"section {number} ({_RAM})"
        if number not in self._live:
            raise self._source.wrong("a section that has begun", "another", self._source.at - 4)
        skip_ram(self._source, self._ram)
        self._footer(number)

    def _ram_end(self) -> None:
        self._ram_part()
        self._memory_passed = True

    # --- devices ---

    def _device(self) -> Iterator[Found]:
        number, name, instance = self._opening()
        if not self._learn_lengths():
            self.lengths.skip_guessed(name, instance, number, self._source)
            self._footer(number)
            return
        described = self.lengths.of(name, instance, self._source)
        if described.kind == VIRTIO_NET and described.size <= _MAX_SECTION:
            at = self._source.at
            body = self._source.take(described.size, "a device")
            self._footer(number)
            yield self._found(body, at, name, instance)
            return
        too_long = self._source.wrong(f"at most {_MAX_SECTION} bytes", str(described.size))
        self._source.skip(described.size, "a device")
        self._footer(number)
        if described.kind == VIRTIO_NET:
            yield unreadable(device_name(name, instance), str(too_long))

    def _found(self, body: bytes, at: int, name: str, instance: int) -> Found:
        sections = (section for section, _ in self.lengths.description.devices)
        little_endian = is_little_endian(self.machine, sections)
        return found_in_section(body, at, name, instance, little_endian=little_endian)

    def _learn_lengths(self) -> bool:
        """Whether sections' lengths are known, from now on if not before."""
        if not self._described:
            source = self._source
            stream = self.lengths.learn(source, memory_passed=self._memory_passed)
            if stream is None:
                return False
            self._source = Source(stream, source.at, source.where)
            self._described = True
        return True

    def _opening(self) -> tuple[int, str, int]:
        """What a section that starts opens with: number, name and instance."""
        source = self._source
        number = source.u32("a section's number")
        name = source.name("a section's name")
        source.where = f"section {number} ({name})"
        instance = source.u32("an instance")
        source.u32("a version")
        return number, name, instance

    def _footer(self, number: int) -> None:
        source = self._source
        if self._has_footers is None:
            self._has_footers = source.ahead(1) == bytes([FOOTER])
        if not self._has_footers:
            return
        source.expect("the section's footer", FOOTER, source.u8("the footer"), 1)
        source.expect("the section's number", number, source.u32("the footer's number"), 4)

    # --- the end ---

    def _end(self) -> None:
        """Behind the end mark there is the description, and nothing else."""
        self._memory_passed = True
        self._learn_lengths()
        source = self._source
        source.where = "the end"
        source.expect("the description", _DESCRIPTION, source.u8("the description's mark"), 1)
        length = source.u32("the description's length")
        source.expect("the description's length", self.lengths.description.length, length, 4)
