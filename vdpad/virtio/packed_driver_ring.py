"""The driver's side of a packed ring, over mapped memory; packed_ring.py has the rules.

It knows chains of two descriptors only, a command's bytes and its answer: so chains begin at every
second position from the first one on, across the ring's end too, where the size is odd. A program
encodes them beforehand for both wrap counters (`packed_command_descriptors`), with the first one
not available yet; publishing a batch is then one copy, or two across the ring's end, and one store.

What the device has returned is found by one strided copy of the flags, and read by another one: no
step is taken for each chain. All that is read is copied first, since the device may change it under
our eyes. Flags are stored and read as native 16-bit words, the device's event suppression as one of
32 bits, and so this works on little-endian machines only; driver_ring.py says why.

Source: virtio 1.4, 2.8 "Packed Virtqueues".
"""

import struct
import sys
from collections.abc import Iterable, Mapping, Sequence

from vdpad.virtio.fences import full_fence, ordering_fence
from vdpad.virtio.packed_ring import (
    AVAILABLE,
    DESCRIPTOR,
    DESCRIPTOR_WORDS,
    FLAGS_WORD,
    MARKS,
    PACKED_INDEX,
    RETURNED,
    RING_EVENT_FLAGS,
    RING_EVENT_FLAGS_DESC,
    RING_EVENT_FLAGS_DISABLE,
    RING_EVENT_FLAGS_ENABLE,
    off_wrap,
    passes,
    position_of,
    wrap_at,
)
from vdpad.virtio.packed_standing import PAIR, PackedStanding
from vdpad.virtio.rings import DESC_F_NEXT, DESC_F_WRITE, BadGeometry

RETURNED_ELEMENT = struct.Struct("<IHH")
"""Of a returned descriptor, as `elements` gives it: length, buffer id, flags without those that say
whose it is and that it was written to."""

_MARKS = MARKS.to_bytes(2, "little")
HEAD_FLAGS = tuple(marks | DESC_F_NEXT for marks in AVAILABLE)
_READ = ~(MARKS | DESC_F_WRITE) & 0xFFFF
_ELEMENT = RETURNED_ELEMENT.pack(0xFFFFFFFF, 0xFFFF, _READ)

Laps = tuple[bytes, bytes]
"""Descriptors as they are written in a lap with wrap counter 0, and in one with 1."""


def packed_command_descriptors(chains: Iterable[tuple[int, int, int, int]]) -> Laps:
    """Descriptor pairs: each (id, readable address, its length, ack address) makes one chain.

    The ack is one byte. The first descriptor of all is as the device left it in the lap before.
    """
    chains = list(chains)
    return _in_lap(chains, 0), _in_lap(chains, 1)


def _in_lap(chains: list[tuple[int, int, int, int]], wrap: int) -> bytes:
    marks = AVAILABLE[wrap]
    pairs = bytearray().join(
        DESCRIPTOR.pack(address, length, number, DESC_F_NEXT | marks)
        + DESCRIPTOR.pack(ack_address, 1, number, DESC_F_WRITE | marks)
        for number, address, length, ack_address in chains
    )
    pairs[2 * FLAGS_WORD : DESCRIPTOR.size] = RETURNED[1 - wrap].to_bytes(2, "little")
    return bytes(pairs)


class Completions:
    """What tells that chains are back in order, worked out ahead for `has_returned`."""

    def __init__(self, elements: bytes) -> None:
        """
        Args:
            elements: of each chain, as RETURNED_ELEMENT has them.
        """
        self.elements = elements
        self.count = len(elements) // RETURNED_ELEMENT.size
        marks = int.from_bytes(RETURNED_ELEMENT.pack(0, 0, MARKS) * self.count, "little")
        returned = int.from_bytes(elements, "little")
        self.in_lap = (returned, returned | marks)
        """With the flags that are written where the wrap counter is 0, and 1."""
        self.read = int.from_bytes(_ELEMENT * self.count, "little") | marks
        """The bits that are compared."""


class PackedDriverRing:
    """The driver's side of a packed ring in mapped memory. Not for two users at once.

    Its views are open to a loop that cannot afford calls: `descriptors` as bytes, `words` the same
    as 16-bit words, `elements_of` as 64-bit ones, of which every second ends with the flags.
    """

    def __init__(
        self,
        parts: Mapping[str, memoryview],
        size: int,
        *,
        event_idx: bool,
        in_order: bool = False,
    ) -> None:
        """Looks at the ring and writes nothing.

        Args:
            parts: as PackedGeometry.views gives them; they need not lie in one memory.
            size: entries.
            event_idx: RING_EVENT_IDX was negotiated.
            in_order: IN_ORDER was negotiated.
        """
        if sys.byteorder != "little":
            raise BadGeometry(f"expected a little-endian machine, got {sys.byteorder}-endian")
        self.size = size
        self.event_idx = event_idx
        self.in_order = in_order
        self.idle_index: int | None = PACKED_INDEX | off_wrap(0, size)
        """Where a ring of ours stands while it is idle, as ControlQueue has it, since nothing in
        the ring tells: first as a fresh one does, then where its user `leave`s it; None where
        chains are in flight."""
        self.descriptors = parts["descriptors"]
        self.buffers = parts["buffers"]
        self.words = self.descriptors.cast("H")
        self.elements_of = self.descriptors.cast("Q")
        self._driver = parts["driver"].cast("H")
        self.device_word = parts["device"].cast("I")

    def release(self) -> None:
        """Lets go of the memory, so that it can be unmapped."""
        for view in (
            self.words,
            self.elements_of,
            self._driver,
            self.device_word,
            self.descriptors,
            self.buffers,
        ):
            view.release()

    @property
    def is_fresh(self) -> bool:
        """Whether a ring that was all zero is as it was then."""
        return not any(self.descriptors)

    # --- towards the device ---

    def is_available(self, position: int) -> bool:
        """Whether the device may take what stands at a position."""
        return self._flags(position) & MARKS == AVAILABLE[wrap_at(position, self.size)]

    def clear(self, position: int) -> None:
        """Marks all as returned in the lap before this position: nothing is available, or comes.

        What stands in a ring that was lent may be of any time, and could be taken for an answer.
        """
        at, wrap = position % self.size, wrap_at(position, self.size)
        # First where the device looks, by one store; it does not look further.
        self.words[DESCRIPTOR_WORDS * at + FLAGS_WORD] = RETURNED[1 - wrap]
        behind, ahead = (RETURNED[of].to_bytes(2, "little") for of in (wrap, 1 - wrap))
        flags = memoryview(behind * at + ahead * (self.size - at)).cast("H")
        self.words[FLAGS_WORD::DESCRIPTOR_WORDS] = flags

    def describe(self, position: int, laps: Laps) -> None:
        """Writes chains from a position on; the first is not available yet, nor are those behind.

        Args:
            position: of the first descriptor.
            laps: as `packed_command_descriptors` makes them.
        """
        lap, at = divmod(position, self.size)
        wrap = 1 - lap % 2
        begin, image = DESCRIPTOR.size * at, laps[wrap]
        end = begin + len(image)
        room = DESCRIPTOR.size * self.size - begin
        if len(image) <= room:
            self.descriptors[begin:end] = image
        else:
            self.descriptors[begin:] = image[:room]
            self.descriptors[: len(image) - room] = laps[1 - wrap][room:]

    def publish(self, position: int) -> None:
        """Makes what was described from this position on available."""
        self.idle_index = None
        ordering_fence()
        lap, at = divmod(position, self.size)
        self.words[DESCRIPTOR_WORDS * at + FLAGS_WORD] = HEAD_FLAGS[1 - lap % 2]

    def leave(self, position: int) -> None:
        """Says that all is back, and that the next chain will go to this position."""
        self.idle_index = PACKED_INDEX | off_wrap(position, self.size)

    def wants_doorbell(self, new: int, old: int) -> bool:
        """Whether the device wants to hear that chains between two positions became available."""
        full_fence()
        word = self.device_word[0]
        flags = word >> 16 & RING_EVENT_FLAGS
        if flags == RING_EVENT_FLAGS_DESC and self.event_idx:
            return passes(position_of(word & 0xFFFF, self.size), new, old, self.size)
        return flags != RING_EVENT_FLAGS_DISABLE

    # --- one descriptor at a time ---

    def write(self, position: int, descriptor: bytes) -> None:
        """Writes a descriptor, its flags last. A chain is written from its last one on."""
        begin = DESCRIPTOR.size * (position % self.size)
        behind = begin + DESCRIPTOR.size - 2
        self.idle_index = None
        self.descriptors[begin:behind] = descriptor[:-2]
        ordering_fence()
        self.words[behind // 2] = int.from_bytes(descriptor[-2:], "little")

    def is_returned(self, position: int) -> bool:
        """Whether the device has written what stands at a position."""
        return self._flags(position) & MARKS == RETURNED[wrap_at(position, self.size)]

    def read(self, position: int) -> bytes:
        """A copy of what stands at a position that the device has written."""
        ordering_fence()
        begin = DESCRIPTOR.size * (position % self.size)
        return self.descriptors[begin : begin + DESCRIPTOR.size].tobytes()

    # --- back from the device ---

    def has_returned(self, position: int, completions: "Completions") -> bool:
        """Whether chains from a position on are all back, and as they were expected."""
        lap, at = divmod(position, self.size)
        count, wrap = completions.count, 1 - lap % 2
        end = at + PAIR * count
        if end > self.size:
            whole = self.returned(position, count) == count
            return whole and self.elements(position, count) == completions.elements
        if self.words[DESCRIPTOR_WORDS * (end - PAIR) + FLAGS_WORD] & MARKS != RETURNED[wrap]:
            return False
        copied = self.elements_of[2 * at + 1 : 2 * end : 2 * PAIR].tobytes()
        found = int.from_bytes(copied, "little") & completions.read
        return found == completions.in_lap[wrap]

    def returned(self, position: int, most: int) -> int:
        """How many chains have been returned in a row from a position on.

        Args:
            position: where the next chain is returned.
            most: how many are looked at.
        """
        count = 0
        for begin, wrap, chains in self._pieces(position, most):
            first = DESCRIPTOR_WORDS * begin + FLAGS_WORD
            behind = first + PAIR * DESCRIPTOR_WORDS * (chains - 1) + 1
            found = _row(self.words[first : behind : PAIR * DESCRIPTOR_WORDS].tobytes(), wrap)
            count += found
            if found < chains:
                break
        return count

    def elements(self, position: int, count: int) -> bytes:
        """A copy of so many returned descriptors from a position on, as RETURNED_ELEMENT has them.

        Only those that `returned` has told before the call.
        """
        ordering_fence()
        copied = b"".join(
            self.elements_of[2 * begin + 1 : 2 * (begin + PAIR * chains) : 2 * PAIR].tobytes()
            for begin, _, chains in self._pieces(position, count)
        )
        read = int.from_bytes(_ELEMENT * count, "little")
        return (int.from_bytes(copied, "little") & read).to_bytes(len(copied), "little")

    def standing(self, available: int, used: int) -> PackedStanding:
        """How the ring stands now.

        Args:
            available: the position of the next chain.
            used: of the next one that comes back.
        """
        word = self.device_word[0]
        event = position_of(word & 0xFFFF, self.size) if self.event_idx else None
        return PackedStanding(self.size, available, used, word >> 16, event)

    def ask_for_interrupt(self, position: int) -> None:
        """Asks for an interrupt once the chain at this position is returned.

        It may have been before the device saw the wish: look again afterwards.
        """
        if self.event_idx:
            self._driver[0] = off_wrap(position, self.size)
            ordering_fence()
            self._driver[1] = RING_EVENT_FLAGS_DESC
        else:
            self._driver[1] = RING_EVENT_FLAGS_ENABLE
        full_fence()

    def ask_for_no_interrupt(self) -> None:
        """Asks to be left alone."""
        self._driver[1] = RING_EVENT_FLAGS_DISABLE

    def _flags(self, position: int) -> int:
        return self.words[DESCRIPTOR_WORDS * (position % self.size) + FLAGS_WORD]

    def _pieces(self, position: int, count: int) -> Sequence[tuple[int, int, int]]:
        """By lap: the first descriptor, the wrap counter, and how many chains begin there."""
        at, wrap = position % self.size, wrap_at(position, self.size)
        chains = (self.size - at + 1) // PAIR
        if count <= chains:
            return ((at, wrap, count),)
        behind = at + PAIR * chains - self.size
        return (at, wrap, chains), (behind, 1 - wrap, count - chains)


def _row(flags: bytes, wrap: int) -> int:
    """How many of these flags, from the first on, return a descriptor in a lap."""
    marks = int.from_bytes(_MARKS * (len(flags) // 2), "little")
    found = int.from_bytes(flags, "little")
    others = (~found if wrap else found) & marks
    return (others & -others).bit_length() - 1 >> 4 if others else len(flags) // 2
