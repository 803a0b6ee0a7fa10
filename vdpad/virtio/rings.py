"""What both layouts of a ring have in common: stretches of device addresses, and their checks.

split_ring.py and packed_ring.py have the layouts. `RingGeometry.check` is the one place where an
untrusted geometry becomes one that can be used; until then all of it is only arithmetic.

Source: virtio 1.4, 2.7 "Split Virtqueues" and 2.8 "Packed Virtqueues".
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

from vdpad.errors import VdpadError

# virtio 1.4, 2.7 and 2.8.10.1.
MAX_RING_SIZE = 32768
DESCRIPTOR_ALIGNMENT = 16

# virtio 1.4, 2.7.5 and 2.8.1: flags of a descriptor.
DESC_F_NEXT = 1
DESC_F_WRITE = 2
DESC_F_INDIRECT = 4

ADDRESS_END = 1 << 64

BUFFERS_ALIGNMENT = 64
"""Nothing demands it; a cache line is what a device fetches."""


class BadGeometry(VdpadError, ValueError):
    """A ring that cannot be where it is said to be."""


class Region(NamedTuple):
    """A stretch of device addresses."""

    iova: int
    size: int
    """Bytes."""

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.iova + self.size

    def __str__(self) -> str:
        return f"[{self.iova:#x}, {self.end:#x})"


@dataclass(frozen=True, slots=True)
class RingAddresses(ABC):
    """Where the parts of a ring lie, in device addresses; each may lie in memory of its own."""

    FRESH_BASE: ClassVar[int]
    """The base of a ring in which nothing was ever made available, as vhost has bases."""

    size: int
    """Entries."""
    descriptors: int

    @abstractmethod
    def parts(self) -> dict[str, Region]:
        """The descriptor, driver and device area with their extents (virtio 1.4, 2.6), so named."""

    @abstractmethod
    def check_base(self, base: int) -> None:
        """Refuses a base that no such ring has.

        Raises:
            BadGeometry: it has none.
        """

    @abstractmethod
    def check(self) -> None:
        """Refuses what cannot be a ring, whatever memory there is.

        Raises:
            BadGeometry: it has a size that no such ring has, or a part is misaligned.
        """

    def _check_alignments(self, alignments: Mapping[str, int]) -> None:
        parts = self.parts()
        for name, alignment in alignments.items():
            if parts[name].iova % alignment:
                raise BadGeometry(
                    f"ring.{name}: expected a multiple of {alignment}, got {parts[name].iova:#x}"
                )


@dataclass(frozen=True, slots=True)
class RingGeometry(ABC):
    """Where a CVQ's ring and the room for its buffers lie, in device addresses."""

    size: int
    """Entries."""
    memory: Region
    """The memory that all of the rest lies in."""
    buffers: Region
    descriptors: int

    @property
    @abstractmethod
    def addresses(self) -> RingAddresses:
        """Those of the ring alone."""

    def parts(self) -> dict[str, Region]:
        """Every part with its extent, the ring's and then the buffers."""
        return {**self.addresses.parts(), "buffers": self.buffers}

    def views(self, memory: memoryview) -> dict[str, memoryview]:
        """Every part as a slice of the memory, whose first byte stands at memory.iova."""
        base = self.memory.iova
        return {
            name: memory[part.iova - base : part.end - base] for name, part in self.parts().items()
        }

    def check(self) -> None:
        """Refuses what cannot be a ring.

        Raises:
            BadGeometry: no such ring has this size, a part is misaligned, lies outside the
                memory, or overlaps another.
        """
        self.addresses.check()
        if self.memory.size < 1 or self.memory.end > ADDRESS_END:
            raise BadGeometry("ring.memory: expected at least a byte, and an end below 2^64")
        parts = self.parts()
        for name, part in parts.items():
            if part.iova < self.memory.iova or part.end > self.memory.end:
                raise BadGeometry(f"ring.{name}: expected it inside {self.memory}, got {part}")
        in_order = sorted(parts.items(), key=lambda item: item[1].iova)
        for (name, part), (other, after) in pairwise(in_order):
            if part.end > after.iova:
                raise BadGeometry(f"ring.{name} {part} overlaps ring.{other} {after}")


def align_up(address: int, alignment: int) -> int:
    """The next multiple of an alignment, or the address itself if it is one."""
    return -(-address // alignment) * alignment
