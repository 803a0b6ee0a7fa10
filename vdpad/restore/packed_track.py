"""A packed ring, for one replay; track.py says what that is.

Each command is a chain of two descriptors, so commands are published and returned at every second
position from the start on. A bank's descriptors were encoded for both wrap counters, and the device
writes over some of them: they go into the ring with each bank, as one copy. The first descriptor of
a bank becomes available last, by one store, and with it the whole bank.

A bank is back when all its commands are: a device may write a batch of returned descriptors from
the last to the first, so all of them are looked at, as one number.

A device with IN_ORDER may tell of batches of any length, and who lends the ring may have as many of
them as there are chains. So a look goes on where the one before has come to, and takes no more of
the ring at a time than twice what it has found: it costs what has arrived, and not its square.

As in a split ring full banks come round at the same few places, of both laps together; what
`run_fast` needs of each is made when the first comes there.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from math import gcd
from typing import NamedTuple

from vdpad.restore.in_order import each_told
from vdpad.restore.program import Bank, Program
from vdpad.restore.progress import ANSWERED, Progress
from vdpad.restore.track import BANKS_PER_LOOK_AT_THE_CLOCK, all_completions, comes
from vdpad.virtio.fences import full_fence, ordered_without_fence, ordering_fence
from vdpad.virtio.packed_driver_ring import (
    HEAD_FLAGS,
    RETURNED_ELEMENT,
    Completions,
    PackedDriverRing,
)
from vdpad.virtio.packed_ring import (
    DESCRIPTOR,
    DESCRIPTOR_WORDS,
    FLAGS_WORD,
    MARKS,
    PACKED_INDEX,
    RETURNED,
    RING_EVENT_FLAGS,
    RING_EVENT_FLAGS_DESC,
    RING_EVENT_FLAGS_DISABLE,
    off_wrap,
    position_of,
    wrap_at,
)
from vdpad.virtio.packed_standing import PAIR, PackedStanding


class _Place(NamedTuple):
    """Where a full bank lies in the ring, at its turn."""

    to: slice | None
    """Its descriptors, in bytes; None where they lie across the ring's end."""
    wrap: int
    """The wrap counter at its first."""
    head: int
    """That one's flags, in words."""
    is_back: Callable[[], bool]
    """Whether all its chains are, as they were expected."""
    acks: Callable[[], bytes]


class PackedTrack:
    """Implements Track."""

    def __init__(
        self,
        program: Program,
        ring: PackedDriverRing,
        start: int,
        ring_bell: Callable[[], None],
        progress: Progress,
    ) -> None:
        """Clears the ring of what may stand in it from before; publishes nothing.

        Args:
            program: encoded for this ring.
            ring: idle, and nobody else's.
            start: where the next chain goes, and comes back, as ControlQueue has it.
            ring_bell: rings the doorbell, and counts that.
            progress: where it is written down how far this has come.
        """
        self._ring = ring
        self._start = position_of(start & ~PACKED_INDEX, ring.size)
        self._ring_bell = ring_bell
        self._progress = progress
        self._in_order = all_completions(program) if ring.in_order else b""
        self._batches = False
        """The device has told of a batch by its last chain, and may do so again."""
        self._seen = 0
        """With IN_ORDER, how many are known to have arrived, ever."""
        self._due: dict[int, int] = {}
        """Which command was published last with a buffer id, of the first `_noted`."""
        self._noted = 0
        self._full = program.full
        self._placed: list[int] = []
        """Positions of banks that are not published yet."""
        self._completions = {
            segment.first_head: Completions(segment.completions) for segment in program.segments
        }
        self._views: list[memoryview] = []
        self._places: dict[int, _Place] = {}
        """Of full banks, by their turn."""
        laps = 2 * ring.size
        self._turns = laps // gcd(PAIR * self._full.slots, laps) * max(1, len(program.segments))
        if program.banks:
            ring.clear(self._start)

    def close(self) -> None:
        """Lets go of the ring's memory."""
        self._places.clear()
        for view in self._views:
            view.release()
        self._views.clear()

    def place(self, bank: Bank) -> None:
        """Copies a bank's buffers and descriptors; none of these is available yet."""
        position = self._position(bank.first)
        self._ring.buffers[bank.buffers_at] = bank.buffers
        self._ring.describe(position, bank.laps)
        self._placed.append(position)

    def publish(self, new: int) -> None:
        """Makes what was placed available, the last bank first."""
        while self._placed:
            self._ring.publish(self._placed.pop())

    def wants_doorbell(self, new: int, old: int) -> bool:
        """By the device's event suppression structure."""
        return self._ring.wants_doorbell(self._position(new), self._position(old))

    def ask_for_interrupt(self, count: int) -> None:
        """By the driver's."""
        self._ring.ask_for_interrupt(self._position(count - 1))

    def ask_for_no_interrupt(self, count: int) -> None:
        """Likewise."""
        self._ring.ask_for_no_interrupt()

    def arrived(self, returned: int, published: int) -> int:
        """By the flags of the descriptors in turn."""
        if self._in_order:
            return self._arrived_in_order(returned, published)
        return self._ring.returned(self._position(returned), published - returned + 1)

    def elements(self, returned: int, count: int) -> bytes:
        """Returned descriptors; with IN_ORDER also those that the device skipped."""
        told = self._ring.elements(self._position(returned), count)
        if not self._in_order:
            return told
        expected = self._in_order[returned * RETURNED_ELEMENT.size :][: len(told)]
        self._batches |= told != expected
        return each_told(expected, told, _name_of)

    def names(self, elements: bytes) -> Iterator[tuple[int, int]]:
        """Buffer ids and lengths. A flag that a returned descriptor should not have is no id."""
        for length, number, flags in RETURNED_ELEMENT.iter_unpack(elements):
            yield number | flags << 16, length

    def index(self, count: int) -> int:
        """The position, with its wrap counter."""
        return PACKED_INDEX | off_wrap(self._position(count), self._ring.size)

    def leave(self, count: int) -> None:
        """The ring is told where that is."""
        self.ask_for_interrupt(count + 1)
        self._ring.leave(self._position(count))

    def standing(self, returned: int, published: int) -> PackedStanding:
        """As its descriptors and the device's event suppression structure say."""
        used = returned + self.arrived(returned, published)
        return self._ring.standing(self._position(published), self._position(used))

    def run_fast(self, oldest: int, quiet_ns: int, until_ns: int) -> int:
        """In one loop that calls next to nothing."""
        if self._batches:
            return oldest
        full, ring, progress = self._full, self._ring, self._progress.words
        slots, all_ok, segments = full.slots, full.all_ok, len(full.segments)
        buffers, descriptors, words, step = ring.buffers, ring.descriptors, ring.words, PAIR * slots
        fenced, fence, ring_bell = not ordered_without_fence, full_fence, self._ring_bell
        device_word, event_idx, place = ring.device_word, ring.event_idx, self._place
        at = self._position((oldest + segments) * slots)
        for bank in full.banks[oldest + segments : full.full]:
            # Of the bank that is replaced, which was as full, in the same segment.
            _, _, _, is_back, acks = place(oldest)
            if not is_back() and not comes(is_back, quiet_ns):
                break
            if fenced:
                ordering_fence()
            if acks() != all_ok:
                break
            to, wrap, head, _, _ = place(oldest + segments)
            oldest += 1
            progress[ANSWERED] = oldest * slots
            buffers[bank.buffers_at] = bank.buffers
            if to is None:
                ring.describe(at, bank.laps)
            else:
                descriptors[to] = bank.laps[wrap]
            if fenced:
                ordering_fence()
            words[head] = HEAD_FLAGS[wrap]
            at += step
            fence()
            flags = device_word[0] >> 16 & RING_EVENT_FLAGS
            if (
                ring.wants_doorbell(at, at - step)
                if flags == RING_EVENT_FLAGS_DESC and event_idx
                else flags != RING_EVENT_FLAGS_DISABLE
            ):
                ring_bell()
            if not oldest % BANKS_PER_LOOK_AT_THE_CLOCK and time.perf_counter_ns() >= until_ns:
                break
        return oldest

    def _place(self, number: int) -> _Place:
        """Of a full bank, by its number; they come round after a while."""
        turn = number % self._turns
        found = self._places.get(turn)
        if found is None:
            found = self._places[turn] = self._place_found(number)
        return found

    def _place_found(self, number: int) -> _Place:
        ring, full = self._ring, self._full
        segment = full.segments[number % len(full.segments)]
        position = self._position(number * full.slots)
        at, wrap = position % ring.size, wrap_at(position, ring.size)
        end = at + PAIR * full.slots
        to = slice(DESCRIPTOR.size * at, DESCRIPTOR.size * end) if end <= ring.size else None
        acks = ring.buffers[segment.buffers_at : segment.buffers_at + full.slots]
        self._views.append(acks)
        completions = self._completions[segment.first_head]
        is_back: Callable[[], bool] = partial(ring.has_returned, position, completions)
        if to is not None:
            is_back = self._looks_for(completions, at, end, wrap)
        return _Place(to, wrap, DESCRIPTOR_WORDS * at + FLAGS_WORD, is_back, acks.tobytes)

    def _looks_for(
        self, completions: Completions, at: int, end: int, wrap: int
    ) -> Callable[[], bool]:
        """What `has_returned` does, for chains that lie in one lap."""
        words, last = self._ring.words, DESCRIPTOR_WORDS * (end - PAIR) + FLAGS_WORD
        elements = self._ring.elements_of[2 * at + 1 : 2 * end : 2 * PAIR]
        self._views.append(elements)
        copied, read, integer = elements.tobytes, completions.read, int.from_bytes
        expected, marks = completions.in_lap[wrap], RETURNED[wrap]

        def is_back() -> bool:
            if words[last] & MARKS != marks:
                return False
            return integer(copied(), "little") & read == expected

        return is_back

    def _arrived_in_order(self, returned: int, published: int) -> int:
        """The last one that is told of in a row says how many came before it.

        Where it is none that is due, all have as good as arrived: `elements` finds that out.
        """
        self._note_due(published)
        self._seen = max(self._seen, returned)
        while self._seen < published:
            row = self._row(self._seen, published - self._seen)
            if not row:
                return self._seen - returned
            last = self._seen + row - 1
            told = self._due.get(_name_of(self._ring.elements(self._position(last), 1)), -1)
            self._seen = max(last, told if told >= returned else published - 1) + 1
        return published - returned + self._ring.returned(self._position(published), 1)

    def _note_due(self, published: int) -> None:
        size = RETURNED_ELEMENT.size
        due = RETURNED_ELEMENT.iter_unpack(self._in_order[self._noted * size : published * size])
        self._due.update((head, at) for at, (_, head, _) in enumerate(due, self._noted))
        self._noted = published

    def _row(self, count: int, most: int) -> int:
        """How many in a row have been returned, from this one on."""
        found = 0
        while found < most:
            looked_at = min(found + 1, most - found)
            more = self._ring.returned(self._position(count + found), looked_at)
            found += more
            if more < looked_at:
                break
        return found

    def _position(self, count: int) -> int:
        return self._start + PAIR * count


def _name_of(element: bytes) -> int:
    _, number, flags = RETURNED_ELEMENT.unpack(element)
    return int(number | flags << 16)
