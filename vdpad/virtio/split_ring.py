"""The split virtqueue: where its parts lie, and the driver's side of it.

Geometry is pure arithmetic over device addresses: `RingGeometry.check` is the one place where an
untrusted geometry becomes one that can be used. `DriverRing` is the driver's side over mapped
memory. It knows indices, entries and notifications, and nothing of what the chains mean:

- The driver writes the descriptor table and the available ring, the device only reads them; the
  device writes the used ring, the driver only reads it.
- Both indices run free over 16 bits. An entry belongs to the device from the store of the
  available index until the device's store of the used index says that it is back.
- Who wants a notification says so in the other's ring: with RING_EVENT_IDX by an index
  (used_event, avail_event), without it by a flag.

Whatever is read from the ring is copied first, since the device may change it under our eyes.
Indices are stored and read as one native 16-bit access, through a memoryview of format "H";
struct with an explicit byte order goes byte by byte, and a device could see half an index. So this
works on little-endian machines only, which vDPA hosts are.

Source: virtio 1.4, 2.7 "Split Virtqueues"; Linux include/uapi/linux/virtio_ring.h.
"""

import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from vdpad.errors import VdpadError
from vdpad.virtio.fences import full_fence, ordering_fence

# virtio 1.4, 2.7: sizes and alignments.
MAX_RING_SIZE = 32768
DESCRIPTOR = struct.Struct("<QIHH")
USED_ELEMENT = struct.Struct("<II")
_DESCRIPTOR_ALIGNMENT = 16
_AVAILABLE_ALIGNMENT = 2
_USED_ALIGNMENT = 4
_AVAILABLE_ENTRY = 2
RING_HEADER = 4  # flags and index
_EVENT = 2

# virtio 1.4, 2.7.5: descriptor flags.
DESC_F_NEXT = 1
DESC_F_WRITE = 2
DESC_F_INDIRECT = 4

# virtio 1.4, 2.7.6 and 2.7.8: "don't disturb me".
AVAIL_F_NO_INTERRUPT = 1
USED_F_NO_NOTIFY = 1

INDEX_MASK = 0xFFFF
_ADDRESS_END = 1 << 64


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


@dataclass(frozen=True, slots=True)
class RingGeometry:
    """Where a CVQ's ring and the room for its buffers lie, in device addresses."""

    size: int
    """Entries: a power of two, 1 … 32768."""
    memory: Region
    """The memory that all of the rest lies in."""
    descriptors: int
    available: int
    used: int
    buffers: Region

    def parts(self) -> dict[str, Region]:
        """Every part with its extent, event indices included, in the order of the fields."""
        return {
            "descriptors": Region(self.descriptors, DESCRIPTOR.size * self.size),
            "available": Region(
                self.available, RING_HEADER + _AVAILABLE_ENTRY * self.size + _EVENT
            ),
            "used": Region(self.used, RING_HEADER + USED_ELEMENT.size * self.size + _EVENT),
            "buffers": self.buffers,
        }

    def views(self, memory: memoryview) -> dict[str, memoryview]:
        """Every part as a slice of the memory, whose first byte stands at memory.iova."""
        base = self.memory.iova
        return {
            name: memory[part.iova - base : part.end - base] for name, part in self.parts().items()
        }

    def check(self) -> None:
        """Refuses what cannot be a ring.

        Raises:
            BadGeometry: the size is no power of two, a part is misaligned, lies outside the
                memory, or overlaps another.
        """
        if not 1 <= self.size <= MAX_RING_SIZE or self.size & (self.size - 1):
            raise BadGeometry(
                f"ring.size: expected a power of two up to {MAX_RING_SIZE}, got {self.size}"
            )
        if self.memory.size < 1 or self.memory.end > _ADDRESS_END:
            raise BadGeometry("ring.memory: expected at least a byte, and an end below 2^64")
        self._check_alignment()
        parts = self.parts()
        for name, part in parts.items():
            if part.iova < self.memory.iova or part.end > self.memory.end:
                raise BadGeometry(
                    f"ring.{name}: expected it inside {_span(self.memory)}, got {_span(part)}"
                )
        in_order = sorted(parts.items(), key=lambda item: item[1].iova)
        for (name, part), (other, after) in pairwise(in_order):
            if part.end > after.iova:
                raise BadGeometry(f"ring.{name} {_span(part)} overlaps ring.{other} {_span(after)}")

    def _check_alignment(self) -> None:
        for name, address, alignment in (
            ("descriptors", self.descriptors, _DESCRIPTOR_ALIGNMENT),
            ("available", self.available, _AVAILABLE_ALIGNMENT),
            ("used", self.used, _USED_ALIGNMENT),
        ):
            if address % alignment:
                raise BadGeometry(
                    f"ring.{name}: expected a multiple of {alignment}, got {address:#x}"
                )


def _span(region: Region) -> str:
    return f"[{region.iova:#x}, {region.end:#x})"


_BUFFERS_ALIGNMENT = 64  # nothing demands it; a cache line is what a device fetches


def ring_bytes(size: int) -> int:
    """What `lay_out` takes for the ring itself, in bytes."""
    everything = Region(0, _ADDRESS_END)
    return lay_out(size, everything).buffers.iova


def lay_out(size: int, memory: Region) -> RingGeometry:
    """A geometry that fills this memory: the ring at its start, buffers in all the rest."""
    available = memory.iova + DESCRIPTOR.size * size
    used = _align(available + RING_HEADER + _AVAILABLE_ENTRY * size + _EVENT, _USED_ALIGNMENT)
    buffers = _align(used + RING_HEADER + USED_ELEMENT.size * size + _EVENT, _BUFFERS_ALIGNMENT)
    geometry = RingGeometry(
        size, memory, memory.iova, available, used, Region(buffers, memory.end - buffers)
    )
    geometry.check()
    return geometry


def _align(address: int, alignment: int) -> int:
    return -(-address // alignment) * alignment


def distance(later: int, earlier: int) -> int:
    """How far a free-running 16-bit index has gone from an earlier value."""
    return (later - earlier) & INDEX_MASK


def wants_event(event: int, new: int, old: int) -> bool:
    """Whether moving an index from old to new passes the event index (virtio 1.4, 2.7.10)."""
    return distance(new, event + 1) < distance(new, old)


def command_descriptors(chains: Iterable[tuple[int, int, int, int]]) -> bytes:
    """Descriptor pairs: each (head, readable address, its length, ack address) makes one chain.

    The chain of an even head takes that descriptor and the next; the ack is one byte.
    """
    return b"".join(
        DESCRIPTOR.pack(address, length, DESC_F_NEXT, head + 1)
        + DESCRIPTOR.pack(ack_address, 1, DESC_F_WRITE, 0)
        for head, address, length, ack_address in chains
    )


class DriverRing:
    """The driver's side of a ring in mapped memory. Not for two users at once.

    Its views are open to a loop that cannot afford calls: `available_words` and `used_words` are
    flags, index, entries and the event index as 16-bit words, `used_bytes` the used elements.
    """

    def __init__(self, memory: memoryview, geometry: RingGeometry, *, event_idx: bool) -> None:
        """Looks at the ring and writes nothing.

        Args:
            memory: the bytes of geometry.memory, writable.
            geometry: one that has passed its check.
            event_idx: RING_EVENT_IDX was negotiated.
        """
        if sys.byteorder != "little":
            raise BadGeometry(f"expected a little-endian machine, got {sys.byteorder}-endian")
        parts = geometry.views(memory)
        self.size = geometry.size
        self.event_idx = event_idx
        self.descriptors = parts["descriptors"]
        self.buffers = parts["buffers"]
        self.available_words = parts["available"].cast("H")
        self._available_entries = parts["available"][RING_HEADER:-_EVENT]
        self.used_bytes = parts["used"][RING_HEADER:-_EVENT]
        # The index and the event index stand on even addresses whatever the size.
        self.used_words = parts["used"].cast("H")

    def release(self) -> None:
        """Lets go of the memory, so that it can be unmapped."""
        for view in (
            self.descriptors,
            self.buffers,
            self.available_words,
            self._available_entries,
            self.used_bytes,
            self.used_words,
        ):
            view.release()

    @property
    def available_index(self) -> int:
        """Where the next chain will be published."""
        return self.available_words[1]

    def used_index(self) -> int:
        """How far the device says it has come."""
        return self.used_words[1]

    def returned_since(self, index: int) -> int:
        """How far the used index has gone from this one."""
        return (self.used_words[1] - index) & INDEX_MASK

    def used_elements(self, start: int, count: int) -> bytes:
        """A copy of the elements from index start on: count (≤ size) times {le32 id, le32 len}.

        Only those that a used index has announced that was read before the call.
        """
        ordering_fence()
        begin = start % self.size * USED_ELEMENT.size
        end = begin + count * USED_ELEMENT.size
        over = end - len(self.used_bytes)
        if over <= 0:
            return self.used_bytes[begin:end].tobytes()
        return self.used_bytes[begin:].tobytes() + self.used_bytes[:over].tobytes()

    def place(self, start: int, heads: bytes) -> None:
        """Writes chains' heads (le16 each) into the available ring from index start on."""
        begin = start % self.size * _AVAILABLE_ENTRY
        room = len(self._available_entries) - begin
        if len(heads) <= room:
            self._available_entries[begin : begin + len(heads)] = heads
        else:
            self._available_entries[begin:] = heads[:room]
            self._available_entries[: len(heads) - room] = heads[room:]

    def publish(self, index: int) -> None:
        """Gives all that was placed before this index to the device."""
        ordering_fence()
        self.available_words[1] = index & INDEX_MASK

    def wants_doorbell(self, new: int, old: int) -> bool:
        """Whether the device wants to hear that the available index went from old to new."""
        full_fence()
        if self.event_idx:
            return wants_event(self.used_words[-1], new, old)
        return not self.used_words[0] & USED_F_NO_NOTIFY

    def ask_for_interrupt(self, index: int) -> None:
        """Asks for an interrupt once the used index reaches this one.

        The index may have been reached before the device saw the wish: look again afterwards.
        """
        if self.event_idx:
            self.available_words[-1] = (index - 1) & INDEX_MASK
        else:
            self.available_words[0] = 0
        full_fence()

    def ask_for_no_interrupt(self, until: int) -> None:
        """Asks to be left alone, with RING_EVENT_IDX until the used index reaches this one."""
        if self.event_idx:
            self.available_words[-1] = (until - 1) & INDEX_MASK
        else:
            self.available_words[0] = AVAIL_F_NO_INTERRUPT
