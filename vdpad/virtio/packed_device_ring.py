"""The device's side of a packed ring; packed_ring.py has the rules, device_ring.py the split one.

How it works. As in a split ring a chain is *taken*, is *in flight*, and is *put* back in any order.
What is returned is written where the device stands, over descriptors that it has taken, and it goes
on as many further as that chain had. So it must remember of each how many these were.

While it works it asks for no doorbell; when nothing is left it asks for the next one and looks once
more. Of what is put together the first descriptor's flags are stored last.

A driver's flags are read as one native access before anything else of a chain; each descriptor is
copied once.

Source: virtio 1.4, 2.8 "Packed Virtqueues".
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from vdpad.virtio.chains import BadChain, Buffer, indirect_table, most_indirect
from vdpad.virtio.device_side import Chain, DeviceSide, copied, ring_stretches, some
from vdpad.virtio.fences import full_fence, ordering_fence
from vdpad.virtio.guest_memory import GuestMemory, OutsideMemory
from vdpad.virtio.packed_ring import (
    AVAILABLE,
    DESCRIPTOR,
    DESCRIPTOR_WORDS,
    FLAGS_WORD,
    MARKS,
    RETURNED,
    RING_EVENT_FLAGS,
    RING_EVENT_FLAGS_DESC,
    RING_EVENT_FLAGS_DISABLE,
    RING_EVENT_FLAGS_ENABLE,
    PackedAddresses,
    off_wrap,
    passes,
    position_of,
    wrap_at,
)
from vdpad.virtio.rings import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE

# Of a returned descriptor, behind the address, which stays as it was: length and buffer id.
_LENGTH_AND_ID = struct.Struct("<IH")
_BEHIND_ADDRESS = 8

# No driver believes this to be in flight.
_NOBODYS_ID = 0xFFFF


class PackedDeviceRing(DeviceSide):
    """The device's side of a ring in a driver's memory. Not for two users at once."""

    def __init__(
        self,
        memory: GuestMemory,
        addresses: PackedAddresses,
        *,
        position: int,
        event_idx: bool,
        indirect: bool,
        answered: bool = True,
    ) -> None:
        """Looks at the ring and writes nothing; `idle` asks for the first doorbell.

        Args:
            memory: where the ring and its buffers lie.
            addresses: unchecked; each part may lie in another region.
            position: where both sides go on; nothing is in flight.
            event_idx: RING_EVENT_IDX was negotiated.
            indirect: RING_INDIRECT_DESC was negotiated.
            answered: each chain must have room for an answer.

        Raises:
            BadGeometry: this cannot be a ring; or a part lies outside the memory, or across two
                regions of it.
        """
        addresses.check()
        self._memory = memory
        self._size = addresses.size
        self._event_idx = event_idx
        self._most_indirect = most_indirect(self._size) if indirect else 0
        self._answered = answered
        with ExitStack() as views:
            self._descriptors, driver, device = ring_stretches(views, memory, addresses)
            self._words = views.enter_context(self._descriptors.cast("H"))
            self._driver = views.enter_context(driver.cast("I"))
            self._device = views.enter_context(device.cast("H"))
            self._views = views.pop_all()
        self.begin_anew(position)

    def begin_anew(self, position: int) -> None:
        """Its driver has made the ring anew: it is idle, and both sides go on from here."""
        self._next_available = self._next_used = self._interrupted_at = position
        self._in_flight: dict[int, int] = {}
        """How many descriptors each chain has, by its buffer id."""
        self._ahead = False

    @property
    def next_available(self) -> int:
        """The position from which the next chain will be taken."""
        return self._next_available

    @property
    def next_used(self) -> int:
        """The position to which the next chain will be returned."""
        return self._next_used

    def take(self) -> list[Chain]:
        """Chains that have been made available, and asks for no doorbell meanwhile.

        All of them, or as many as come to MAX_READABLE bytes, or to MOST_BUFFERS; the next call
        gives the others.

        Raises:
            BadChain: the driver's ring makes no sense. Chains before a bad one are taken first, so
                it is raised by the call that would begin with it.
        """
        self._device[1] = RING_EVENT_FLAGS_DISABLE
        chains = some(self._available_chains())
        for chain in chains:
            self._in_flight[chain.head] = chain.descriptors
            self._next_available += chain.descriptors
        return chains

    def idle(self) -> bool:
        """Asks for the next doorbell; False where something has come in the meantime."""
        if self._event_idx:
            self._device[0] = off_wrap(self._next_available, self._size)
            ordering_fence()
            self._device[1] = RING_EVENT_FLAGS_DESC
        else:
            self._device[1] = RING_EVENT_FLAGS_ENABLE
        full_fence()
        return not self._is_available(self._next_available)

    def put_together(self, returned: Sequence[tuple[int, int]]) -> None:
        """Returns chains, so that the driver sees all of them or none; each as of `put`."""
        if not returned:
            return
        at, first = self._next_used, self._describe(*returned[0])
        for head, length in returned[1:]:
            position = self._next_used
            self._store_flags(position, self._describe(head, length))
        ordering_fence()
        self._store_flags(at, first)
        if self._ahead:
            self._lie_ahead()

    def put_in_one(self, returned: Sequence[tuple[int, int]]) -> None:
        """Returns chains in the order in which they were taken, and tells of the last one alone.

        For who has negotiated IN_ORDER (virtio 1.4, 2.8.9). Each as of `put`, at least one.
        """
        at = self._next_used
        flags = self._describe(*returned[-1])
        self._next_used += sum(self._in_flight.pop(head, 0) for head, _ in returned[:-1])
        ordering_fence()
        self._store_flags(at, flags)

    def run_ahead(self) -> None:
        """From now on returns more than was ever available, which no driver can believe."""
        self._ahead = True

    def wants_interrupt(self) -> bool:
        """Whether the driver wants to hear of what was returned since this was last asked."""
        full_fence()
        old, self._interrupted_at = self._interrupted_at, self._next_used
        word = self._driver[0]
        flags = word >> 16 & RING_EVENT_FLAGS
        if old == self._next_used or flags == RING_EVENT_FLAGS_DISABLE:
            return False
        if flags == RING_EVENT_FLAGS_DESC and self._event_idx:
            event = position_of(word & 0xFFFF, self._size)
            return passes(event, self._next_used, old, self._size)
        return True

    # --- taking ---

    def _flags(self, position: int) -> int:
        return self._words[position % self._size * DESCRIPTOR_WORDS + FLAGS_WORD]

    def _is_available(self, position: int) -> bool:
        return self._flags(position) & MARKS == AVAILABLE[wrap_at(position, self._size)]

    def _available_chains(self) -> Iterator[tuple[Chain, int]]:
        position, left = self._next_available, self._size - sum(self._in_flight.values())
        taken: set[int] = set(self._in_flight)
        while left and self._is_available(position):
            ordering_fence()
            try:
                chain, buffers = self._chain(position, left)
            except (BadChain, OutsideMemory) as error:
                raise BadChain(f"descriptor {position % self._size}: {error}") from error
            if chain.head in taken:
                raise BadChain(f"expected a buffer id that is free, got {chain.head} in flight")
            taken.add(chain.head)
            yield chain, buffers
            position += chain.descriptors
            left -= chain.descriptors

    def _chain(self, position: int, left: int) -> tuple[Chain, int]:
        """The chain that begins there, of at most so many descriptors, and how many buffers."""
        pieces = []
        for taken in range(1, left + 1):
            at = (position + taken - 1) % self._size * DESCRIPTOR.size
            address, length, head, flags = DESCRIPTOR.unpack_from(self._descriptors, at)
            pieces.append((address, length, flags, taken))
            if not flags & DESC_F_NEXT:
                buffers = self._buffers(pieces)
                return copied(self._memory, head, buffers, answered=self._answered)
        raise BadChain(f"expected an end within {left} descriptors, got none")

    def _buffers(self, pieces: list[Buffer]) -> Iterator[Buffer]:
        """A chain's buffers, an indirect table's in place of what names it (2.8.19)."""
        for address, length, flags, taken in pieces:
            if not flags & DESC_F_INDIRECT:
                yield address, length, flags, taken
                continue
            named = (address, length, flags, 0)
            table = indirect_table(self._memory, named, self._most_indirect)
            for each, size, _, described in DESCRIPTOR.iter_unpack(table):
                yield each, size, described & DESC_F_WRITE, taken

    # --- returning ---

    def _describe(self, head: int, length: int) -> int:
        """Writes what is returned and goes on behind its chain; gives the flags to be stored."""
        position = self._next_used
        at = position % self._size * DESCRIPTOR.size + _BEHIND_ADDRESS
        _LENGTH_AND_ID.pack_into(self._descriptors, at, length, head)
        self._next_used += self._in_flight.pop(head, 1)
        return RETURNED[wrap_at(position, self._size)] | (DESC_F_WRITE if length else 0)

    def _store_flags(self, position: int, flags: int) -> None:
        self._words[position % self._size * DESCRIPTOR_WORDS + FLAGS_WORD] = flags

    def _lie_ahead(self) -> None:
        """Returns what comes behind all that was available."""
        at = self._next_available
        begin = at % self._size * DESCRIPTOR.size + _BEHIND_ADDRESS
        _LENGTH_AND_ID.pack_into(self._descriptors, begin, 1, _NOBODYS_ID)
        self._store_flags(at, RETURNED[wrap_at(at, self._size)])
