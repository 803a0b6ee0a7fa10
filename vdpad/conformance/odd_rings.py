"""Odd chains in an idle ring of either layout: how they are sent, and what the ring tells of them.

All go together, the first from where the ring stands. Of what comes back nothing is believed: where
a ring of the other layout would say how many there are, a packed one is searched for what the
device wrote, wherever that is among the descriptors that it was given.

With IN_ORDER a batch is told of by its last chain alone, where its first one would be told of. The
others have no length then; they are told with that of an ack.

Source: virtio 1.4, 2.7 "Split Virtqueues" and 2.8 "Packed Virtqueues".
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from vdpad.conformance.odd_layout import LaidOut, OddBuffer, OddChain
from vdpad.queues.control_queue import ControlQueue
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.packed_driver_ring import PackedDriverRing
from vdpad.virtio.packed_ring import AVAILABLE, PACKED_INDEX, position_of, wrap_at
from vdpad.virtio.packed_ring import DESCRIPTOR as PACKED_DESCRIPTOR
from vdpad.virtio.rings import DESC_F_NEXT, RingGeometry
from vdpad.virtio.split_ring import DESCRIPTOR, USED_ELEMENT

_ACK = 1

Element = tuple[int, int]
"""An id and a length, as a device returned a chain with."""


class OddRing(Protocol):
    """An idle ring, and what is to be sent through it."""

    laid: LaidOut

    def send(self) -> None:
        """Makes all available, and asks for an interrupt when all are back."""

    def moved(self) -> int:
        """How many the device says that it has returned; more than were sent where it ran ahead."""

    def elements(self) -> Sequence[Element]:
        """What it returned them with, in its order; at most as many as were sent."""

    def leave(self) -> None:
        """Tells the ring where it stands, if all are back."""


class _Split:
    def __init__(
        self, ring: DriverRing, start: int, geometry: RingGeometry, chains: Sequence[OddChain]
    ) -> None:
        self.laid = LaidOut(geometry, chains, lambda parts: _linked(parts, 0))
        self._ring, self._start, self._end = ring, start, start + len(chains)

    def send(self) -> None:
        ring, heads = self._ring, self.laid.heads
        placed = zip(self.laid.chains, heads, strict=True)
        table = b"".join(_linked(parts, head) for parts, head in placed)
        ring.descriptors[: len(table)] = table
        ring.buffers[: len(self.laid.buffers)] = self.laid.buffers
        ring.place(self._start, b"".join(head.to_bytes(2, "little") for head in heads))
        ring.ask_for_interrupt(self._end)
        ring.publish(self._end)

    def moved(self) -> int:
        return self._ring.returned_since(self._start)

    def elements(self) -> Sequence[Element]:
        count = min(self.moved(), len(self.laid.chains))
        told = list(USED_ELEMENT.iter_unpack(self._ring.used_elements(self._start, count)))
        if self._ring.in_order:
            return list(each_told_of(dict(enumerate(told)), self.laid.heads, count))
        return [(head, length) for head, length in told]

    def leave(self) -> None:
        """Its indices say it."""


class _Packed:
    def __init__(
        self, ring: PackedDriverRing, start: int, geometry: RingGeometry, chains: Sequence[OddChain]
    ) -> None:
        self.laid = LaidOut(geometry, chains, _unlinked)
        self._ring = ring
        self._start = position_of(start & ~PACKED_INDEX, ring.size)
        self._end = self._start + sum(map(len, self.laid.chains))

    def send(self) -> None:
        ring, heads = self._ring, self.laid.heads
        ring.clear(self._start)
        ring.buffers[: len(self.laid.buffers)] = self.laid.buffers
        ring.ask_for_interrupt(self._end - 1)
        # The last one first: none is available before all are.
        for parts, head in reversed(list(zip(self.laid.chains, heads, strict=True))):
            self._describe(self._start + head, parts, head)

    def _describe(self, first: int, parts: Sequence[OddBuffer], head: int) -> None:
        """Writes a chain, from its last descriptor to its first."""
        for at in reversed(range(len(parts))):
            address, length, flags = parts[at]
            position = first + at
            marks = AVAILABLE[wrap_at(position, self._ring.size)]
            next_ = DESC_F_NEXT if at + 1 < len(parts) else 0
            described = PACKED_DESCRIPTOR.pack(address, length, head, flags | next_ | marks)
            self._ring.write(position, described)

    def moved(self) -> int:
        if self._ring.in_order:
            found = len(list(self._each()))
        else:
            found = sum(map(self._ring.is_returned, range(self._start, self._end)))
        return found + self._ring.is_returned(self._end)

    def elements(self) -> Sequence[Element]:
        if self._ring.in_order:
            return list(self._each())
        return [each for _, each in self._told()]

    def leave(self) -> None:
        if sorted(head for head, _ in self.elements()) == sorted(self.laid.heads):
            self._ring.leave(self._end)

    def _told(self) -> Iterator[tuple[int, Element]]:
        """All that the device wrote: at which descriptor of ours, counted from 0, and what."""
        for position in range(self._start, self._end):
            if self._ring.is_returned(position):
                _, length, number, _ = PACKED_DESCRIPTOR.unpack(self._ring.read(position))
                yield position - self._start, (number, length)

    def _each(self) -> Iterator[Element]:
        by_descriptor, heads = dict(self._told()), self.laid.heads
        told = {at: by_descriptor[head] for at, head in enumerate(heads) if head in by_descriptor}
        yield from each_told_of(told, heads, len(heads))


def each_told_of(
    told: Mapping[int, Element], heads: Sequence[int], count: int
) -> Iterator[Element]:
    """Each chain of a ring that is in order, as far as it was told of.

    Args:
        told: by the number of the chain that is due there.
        heads: of all.
        count: how many are looked for.
    """
    at = 0
    while at < count and at in told:
        head, length = told[at]
        last = heads.index(head) if head in heads[at:count] else at
        for skipped in heads[at:last]:
            yield skipped, _ACK
        yield head, length
        at = last + 1


def _linked(parts: Sequence[OddBuffer], first: int) -> bytes:
    """Descriptors of a split ring, each naming the one behind it."""
    last = len(parts) - 1
    return b"".join(
        DESCRIPTOR.pack(address, length, flags, 0)
        if at == last
        else DESCRIPTOR.pack(address, length, flags | DESC_F_NEXT, first + at + 1)
        for at, (address, length, flags) in enumerate(parts)
    )


def _unlinked(parts: Sequence[OddBuffer]) -> bytes:
    """An indirect table of a packed ring: all of its entries are the chain (2.8.7)."""
    return b"".join(
        PACKED_DESCRIPTOR.pack(address, length, 0, flags) for address, length, flags in parts
    )


def odd_ring(queue: ControlQueue, geometry: RingGeometry, chains: Sequence[OddChain]) -> OddRing:
    """Lays chains out for an idle queue; writes nothing.

    Raises:
        BadGeometry: the ring or its buffers do not take them.
    """
    ring, start = queue.ring, queue.next_index
    if isinstance(ring, PackedDriverRing):
        return _Packed(ring, start, geometry, chains)
    return _Split(ring, start, geometry, chains)
