"""The driver's side of a split ring, over mapped memory.

It knows indices, entries and notifications, and nothing of what the chains mean; split_ring.py has
the rules. Whatever is read from the ring is copied first, since the device may change it under our
eyes. Indices are stored and read as one native 16-bit access, through a memoryview of format "H";
struct with an explicit byte order goes byte by byte, and a device could see half an index. So this
works on little-endian machines only, which vDPA hosts are.

Source: virtio 1.4, 2.7 "Split Virtqueues"; Linux include/uapi/linux/virtio_ring.h.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from vdpad.virtio.fences import full_fence, ordering_fence
from vdpad.virtio.rings import DESC_F_NEXT, DESC_F_WRITE, BadGeometry, RingGeometry
from vdpad.virtio.split_ring import (
    AVAIL_F_NO_INTERRUPT,
    AVAILABLE_ENTRY,
    DESCRIPTOR,
    EVENT_INDEX,
    INDEX_MASK,
    RING_HEADER,
    USED_ELEMENT,
    USED_F_NO_NOTIFY,
    distance,
    wants_event,
)


def command_descriptors(chains: Iterable[tuple[int, int, int, int]]) -> bytes:
    """Descriptor pairs: each (head, readable address, its length, ack address) makes one chain.

    The chain of an even head takes that descriptor and the next; the ack is one byte.
    """
    return b"".join(
        DESCRIPTOR.pack(address, length, DESC_F_NEXT, head + 1)
        + DESCRIPTOR.pack(ack_address, 1, DESC_F_WRITE, 0)
        for head, address, length, ack_address in chains
    )


def legacy_descriptors(
    chains: Iterable[tuple[int, Sequence[tuple[int, int]], int]], each: int
) -> bytes:
    """Descriptors of longer chains: each (head, readable (address, length), ack address) makes one.

    Args:
        chains: with room for the ack's behind the readable buffers'.
        each: so many descriptors are one chain's, from its head on; what it does not need is zero.
    """
    image = bytearray()
    for head, readable, ack_address in chains:
        end = len(image) + each * DESCRIPTOR.size
        for at, (address, length) in enumerate(readable, head + 1):
            image += DESCRIPTOR.pack(address, length, DESC_F_NEXT, at)
        image += DESCRIPTOR.pack(ack_address, 1, DESC_F_WRITE, 0)
        image += bytes(end - len(image))
    return bytes(image)


@dataclass(frozen=True, slots=True)
class RingStanding:
    """What stands in a ring beside its entries, for who looks at it afterwards."""

    available: int
    """The available index."""
    used: int
    """The used index."""
    flags: int
    """Of the used ring."""
    avail_event: int | None
    """From where on the device wants a doorbell; None without RING_EVENT_IDX."""

    def returned_since(self, used: int) -> int:
        """How many chains have come back since the used index was this."""
        return distance(self.used, used)

    def __str__(self) -> str:
        event = "" if self.avail_event is None else f", avail_event {self.avail_event}"
        return (
            f"the ring stands at available index {self.available} and used index {self.used}, "
            f"used flags {self.flags}{event}"
        )


class DriverRing:
    """The driver's side of a ring in mapped memory. Not for two users at once.

    Its views are open to a loop that cannot afford calls: `available_words` and `used_words` are
    flags, index, entries and the event index as 16-bit words, `used_bytes` the used elements.
    """

    def __init__(
        self,
        memory: memoryview,
        geometry: RingGeometry,
        *,
        event_idx: bool,
        in_order: bool = False,
    ) -> None:
        """Looks at the ring and writes nothing.

        Args:
            memory: the bytes of geometry.memory, writable.
            geometry: one that has passed its check.
            event_idx: RING_EVENT_IDX was negotiated.
            in_order: IN_ORDER was negotiated.
        """
        self.in_order = in_order
        self._look_at(geometry.views(memory), geometry.size, event_idx=event_idx)

    in_order = False
    """IN_ORDER was negotiated: a batch may be told of by its last chain alone."""

    @classmethod
    def over(
        cls,
        parts: Mapping[str, memoryview],
        size: int,
        *,
        event_idx: bool,
        in_order: bool = False,
    ) -> Self:
        """The same, over parts that need not lie in one memory.

        Args:
            parts: as RingGeometry.views gives them.
            size: entries.
            event_idx: RING_EVENT_IDX was negotiated.
            in_order: IN_ORDER was negotiated.
        """
        ring = cls.__new__(cls)
        ring.in_order = in_order
        ring._look_at(parts, size, event_idx=event_idx)
        return ring

    def _look_at(self, parts: Mapping[str, memoryview], size: int, *, event_idx: bool) -> None:
        if sys.byteorder != "little":
            raise BadGeometry(f"expected a little-endian machine, got {sys.byteorder}-endian")
        self.size = size
        self.event_idx = event_idx
        self.descriptors = parts["descriptors"]
        self.buffers = parts["buffers"]
        self.available_words = parts["available"].cast("H")
        self._available_entries = parts["available"][RING_HEADER:-EVENT_INDEX]
        self.used_bytes = parts["used"][RING_HEADER:-EVENT_INDEX]
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

    @property
    def idle_index(self) -> int | None:
        """Both indices where the ring is idle; None where chains are in flight."""
        index = self.available_index
        return index if index == self.used_index() else None

    @property
    def is_fresh(self) -> bool:
        """Whether a ring that began at 0 is as it was then."""
        return self.available_index == 0

    def standing(self) -> RingStanding:
        """Both indices, and what the device says of doorbells."""
        event = self.used_words[-1] if self.event_idx else None
        return RingStanding(self.available_index, self.used_index(), self.used_words[0], event)

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
        begin = start % self.size * AVAILABLE_ENTRY
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
