"""A split ring, for one replay; track.py says what that is.

Banks go round the ring, and a full one takes a whole segment, so full banks are returned at the
same few places, in turn. For each of these the used elements and the acks are views that were made
beforehand, which `run_fast` reads. Where all banks but the last are full, the available ring holds
all that it ever will from the start on, and publishing is no more than its index.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import NamedTuple

from vdpad.restore.in_order import each_told
from vdpad.restore.program import Bank, Program
from vdpad.restore.progress import ANSWERED, Progress
from vdpad.restore.track import BANKS_PER_LOOK_AT_THE_CLOCK, all_completions, comes
from vdpad.virtio.driver_ring import DriverRing, RingStanding
from vdpad.virtio.fences import full_fence, ordered_without_fence, ordering_fence
from vdpad.virtio.split_ring import INDEX_MASK, USED_ELEMENT, USED_F_NO_NOTIFY


class _Place(NamedTuple):
    """Where a full bank comes back: reads its used elements and its acks."""

    used_elements: Callable[[], bytes]
    completions: bytes
    acks: Callable[[], bytes]


class SplitTrack:
    """Implements Track."""

    def __init__(
        self,
        program: Program,
        ring: DriverRing,
        start: int,
        ring_bell: Callable[[], None],
        progress: Progress,
    ) -> None:
        """Lays out the available ring where that can be done for all banks; publishes nothing.

        Args:
            program: encoded for this ring.
            ring: idle, and nobody else's.
            start: both of its indices.
            ring_bell: rings the doorbell, and counts that.
            progress: where it is written down how far this has come.
        """
        self._ring = ring
        self._start = start
        self._ring_bell = ring_bell
        self._progress = progress
        self._heads_in_ring = bool(program.heads_in_ring)
        self._in_order = all_completions(program) if ring.in_order else b""
        self._full = program.full
        self._views: list[memoryview] = []
        self._places = tuple(self._find_places()) if self._full.full else ()
        if program.heads_in_ring:
            ring.place(start, program.heads_in_ring)

    def close(self) -> None:
        """Lets go of the ring's memory."""
        for view in self._views:
            view.release()
        self._places, self._views = (), []

    def place(self, bank: Bank) -> None:
        """Copies a bank's buffers, and its descriptors and heads where they are not there yet."""
        ring = self._ring
        ring.buffers[bank.buffers_at] = bank.buffers
        if bank.descriptors is not None:
            ring.descriptors[bank.descriptors_at] = bank.descriptors
        if not self._heads_in_ring:
            ring.place(self._start + bank.first, bank.heads)

    def publish(self, new: int) -> None:
        """Stores the available index."""
        self._ring.publish(self._start + new)

    def wants_doorbell(self, new: int, old: int) -> bool:
        """By avail_event, or the used ring's flags."""
        return self._ring.wants_doorbell(self._start + new, self._start + old)

    def ask_for_interrupt(self, count: int) -> None:
        """By used_event, or the available ring's flags."""
        self._ring.ask_for_interrupt(self._start + count)

    def ask_for_no_interrupt(self, count: int) -> None:
        """Likewise."""
        self._ring.ask_for_no_interrupt(self._start + count)

    def arrived(self, returned: int, published: int) -> int:
        """By the used index."""
        return self._ring.returned_since(self._start + returned)

    def elements(self, returned: int, count: int) -> bytes:
        """Used elements; with IN_ORDER also those that the device skipped."""
        told = self._ring.used_elements(self._start + returned, count)
        if not self._in_order:
            return told
        expected = self._in_order[returned * USED_ELEMENT.size :][: len(told)]
        return each_told(expected, told, _name_of)

    def names(self, elements: bytes) -> Iterator[tuple[int, int]]:
        """Ids and lengths, as they stand there."""
        return USED_ELEMENT.iter_unpack(elements)

    def index(self, count: int) -> int:
        """Both indices."""
        return (self._start + count) & INDEX_MASK

    def leave(self, count: int) -> None:
        """Its indices say the rest."""
        self.ask_for_interrupt(count + 1)

    def standing(self, returned: int, published: int) -> RingStanding:
        """As its words say."""
        return self._ring.standing()

    def run_fast(self, oldest: int, quiet_ns: int, until_ns: int) -> int:
        """In one loop without calls of ours."""
        full, mask, start = self._full, INDEX_MASK, self._start
        slots, segments, all_ok = full.slots, len(full.segments), full.all_ok
        ahead_at_most = slots * (segments - 1)
        ring, event_idx = self._ring, self._ring.event_idx
        buffers, available_words, used_words = ring.buffers, ring.available_words, ring.used_words
        fenced, fence, ring_bell = not ordered_without_fence, full_fence, self._ring_bell
        words = self._progress.words

        def is_back(end: int) -> bool:
            return (used_words[1] - end) & mask <= ahead_at_most

        back = start + (oldest + 1) * slots
        published = (start + (oldest + segments) * slots) & mask
        for bank, (used_elements, completions, acks) in self._after(oldest):
            if (used_words[1] - back) & mask > ahead_at_most and not comes(
                partial(is_back, back), quiet_ns
            ):
                break
            if fenced:
                ordering_fence()
            if used_elements() != completions or acks() != all_ok:
                break
            words[ANSWERED] = back - start
            buffers[bank.buffers_at] = bank.buffers
            if bank.descriptors is not None:
                ring.descriptors[bank.descriptors_at] = bank.descriptors
            if fenced:
                ordering_fence()
            back += slots
            published = (published + slots) & mask
            available_words[1] = published
            fence()
            if (
                (published - used_words[-1] - 1) & mask < slots
                if event_idx
                else not used_words[0] & USED_F_NO_NOTIFY
            ):
                ring_bell()
            oldest += 1
            if not oldest % BANKS_PER_LOOK_AT_THE_CLOCK and time.perf_counter_ns() >= until_ns:
                break
        return oldest

    def _find_places(self) -> Iterator[_Place]:
        """By a bank's number modulo how many there are, a power of two."""
        ring, slots, segments = self._ring, self._full.slots, self._full.segments
        for turn in range(ring.size // slots):
            segment = segments[turn % len(segments)]
            begin = (self._start + turn * slots) % ring.size
            acks = ring.buffers[segment.buffers_at : segment.buffers_at + slots]
            used = ring.used_bytes[begin * USED_ELEMENT.size : (begin + slots) * USED_ELEMENT.size]
            self._views += [acks, used]
            in_one = len(used) == len(segment.completions)
            read = used.tobytes if in_one else partial(ring.used_elements, begin, slots)
            yield _Place(read, segment.completions, acks.tobytes)

    def _after(self, oldest: int) -> Iterator[tuple[Bank, _Place]]:
        """Each full bank that follows those in flight, and the place of the bank it replaces."""
        first = oldest % len(self._places)
        places = self._places[first:] + self._places[:first]
        following = self._full.banks[oldest + len(self._full.segments) : self._full.full]
        return zip(following, cycle(places), strict=False)


def _name_of(element: bytes) -> int:
    head: int = USED_ELEMENT.unpack(element)[0]
    return head
