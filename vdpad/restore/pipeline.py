"""The pipeline: a program's banks go into the ring, and what the device returns is matched to them.

States of a bank: unpublished (in the program) → published (the device's) → returned whole, its
acks read. Banks are published in their order, each once its segment is free. Only `publish` and
`run_fast` give memory to the device, and only they and `collect` take it back; between the two
nothing of a bank is touched.

What the device returns is matched in one of two modes:

- *in order*, the start: the used ring's new elements equal what an orderly device writes, compared
  as one slice.
- *by id*, from the first element that differs: every chain in flight is looked up by its head, so
  that a device may finish in any order. There is no way back within a replay.

A device that returns an id that is not in flight, a used index past what is in flight, or an ack
that is neither OK nor ERR, is broken. A used length other than the one ack byte is counted and
otherwise not believed: devices set it in many ways (virtio 1.4, 2.7.8.1), while the ack, which was
0xff before, says by itself whether it was written.

The guest is stopped meanwhile, and calls are what Python spends its time on. So `run_fast` does
what `collect` and `publish` do, in one loop without calls of ours, for banks that come back whole,
in order and all OK. What is not so it leaves as it found it, for them.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vdpad.errors import VdpadError
from vdpad.restore.fast_path import fast_path
from vdpad.restore.program import Bank, Program, Segment
from vdpad.restore.progress import ANSWERED, DOORBELLS, Progress
from vdpad.virtio.commands import ACK_ERR, ACK_OK
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.fences import full_fence, ordered_without_fence, ordering_fence
from vdpad.virtio.split_ring import INDEX_MASK, USED_ELEMENT, USED_F_NO_NOTIFY

_ACK_LENGTH = 1

# How often the used index is looked at, and how many banks go by, between two looks at the clock.
_LOOKS = 32
_BANKS_PER_LOOK_AT_THE_CLOCK = 8


class DeviceFault(VdpadError):
    """What the device did that no device may."""


@dataclass(slots=True)
class _ById:
    """The second mode: every chain in flight by its head."""

    index_of: dict[int, int] = field(default_factory=dict)
    """Head to the command's index in the program."""
    left: dict[int, int] = field(default_factory=dict)
    """How many of a bank are still out, by the bank's first index."""

    def add(self, bank: Bank, returned: int = 0) -> None:
        """A published bank, of which the first so many commands are back already."""
        for slot in range(returned, bank.count):
            self.index_of[bank.segment.first_head + 2 * slot] = bank.first + slot
        self.left[bank.first] = bank.count - returned


class Pipeline:
    """One replay's way through an idle ring."""

    def __init__(
        self,
        program: Program,
        ring: DriverRing,
        start: int,
        kick: Callable[[], None],
        progress: Progress | None = None,
    ) -> None:
        """Lays out the available ring where that can be done for all banks; publishes nothing.

        Args:
            program: encoded for this ring.
            ring: idle, and nobody else's.
            start: both of its indices.
            kick: rings the doorbell.
            progress: where it is written down how far this has come.
        """
        self._program = program
        self._progress = progress or Progress.unshared(len(program.commands))
        self._ring = ring
        self._start = start
        self._kick = kick
        self._next = 0
        """The first bank that waits."""
        self._published = 0
        """Commands given to the device, ever."""
        self._returned = 0
        """Commands that came back, ever."""
        self._flight: deque[Bank] = deque()
        self._free: list[Segment] = list(program.segments)
        self._by_id: _ById | None = None
        self.rejected: list[int] = []
        """Acked ERR, by index in the program."""
        self.unanswered: list[int] = []
        """Without an ack, by index in the program; all of them only once `settle` was called."""
        self.wrong_lengths: Counter[int] = Counter()
        """Used lengths other than an ack's, and how many commands came back with each."""
        self.doorbells = 0
        self._fast_path = fast_path(program, ring, start)
        if program.heads_in_ring:
            ring.place(start, program.heads_in_ring)

    def close(self) -> None:
        """Lets go of the ring's memory. May be called again."""
        if self._fast_path is not None:
            self._fast_path.close()
            self._fast_path = None

    @property
    def unpublished(self) -> bool:
        """Whether there are banks that were not published yet."""
        return self._next < len(self._program.banks)

    @property
    def in_flight(self) -> bool:
        """Whether the device has banks."""
        return bool(self._flight)

    @property
    def published_any(self) -> bool:
        """Whether the device was ever given one."""
        return self._published > 0

    @property
    def index(self) -> int:
        """The ring's index up to which all has come back; not cut to 16 bits."""
        return self._start + self._returned

    # --- towards the device ---

    def publish(self, *, ring_anyway: bool = False) -> None:
        """Publishes the next banks whose segments are free, all with one store and one look."""
        old = self._start + self._published
        while self.unpublished and (bank := self._program.banks[self._next]).segment in self._free:
            self._next += 1
            self._free.remove(bank.segment)
            self._copy(bank)
            self._flight.append(bank)
            self._published += bank.count
            if self._by_id is not None:
                self._by_id.add(bank)
        new = self._start + self._published
        if new == old:
            return
        self._ring.publish(new)
        # What stands in the notification words before the device has run is nobody's word, so the
        # first doorbell is rung without asking.
        if self._ring.wants_doorbell(new, old) or ring_anyway:
            self._kick()
            self.doorbells += 1
            self._progress.words[DOORBELLS] = self.doorbells

    def _copy(self, bank: Bank) -> None:
        ring = self._ring
        ring.buffers[bank.buffers_at] = bank.buffers
        if bank.descriptors is not None:
            ring.descriptors[bank.descriptors_at] = bank.descriptors
        if not self._program.heads_in_ring:
            ring.place(self._start + self._published, bank.heads)

    # --- both, where all goes well ---

    def run_fast(self, quiet_ns: int, until_ns: int) -> bool:
        """Replaces full banks by the next ones, as long as they return in order with every ack OK.

        Returns whether any was replaced: when the next bank has not come within quiet_ns, some
        banks after until_ns (in perf_counter_ns), when there are no more full ones to publish, or
        at what is not so, which stays as it is.
        """
        path = self._fast_path
        if path is None or self._by_id is not None or not path.fit(self._returned, self._next):
            return False
        slots, segments, mask = path.slots, path.segments, INDEX_MASK
        all_ok, ahead_at_most = path.all_ok, slots * (segments - 1)
        ring, event_idx = self._ring, self._ring.event_idx
        buffers, available_words, used_words = ring.buffers, ring.available_words, ring.used_words
        fenced, fence, kick, doorbells = not ordered_without_fence, full_fence, self._kick, 0
        oldest, before = self._next - segments, self._returned
        start, words = self._start, self._progress.words
        back = start + (oldest + 1) * slots
        published = (self._start + self._published) & mask
        for bank, (used_elements, completions, acks) in path.after(oldest):
            if (used_words[1] - back) & mask > ahead_at_most and not self._comes(
                back, ahead_at_most, quiet_ns
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
                kick()
                doorbells += 1
                words[DOORBELLS] = self.doorbells + doorbells
            oldest += 1
            if not oldest % _BANKS_PER_LOOK_AT_THE_CLOCK and time.perf_counter_ns() >= until_ns:
                break
        self.doorbells += doorbells
        self._returned = oldest * slots
        self._next = oldest + segments
        self._published = self._next * slots
        self._flight = deque(self._program.banks[oldest : self._next])
        return self._returned > before

    def _comes(self, back: int, ahead_at_most: int, quiet_ns: int) -> bool:
        """Looks at the used index for a while; whether it has reached what is waited for."""
        used_words, mask = self._ring.used_words, INDEX_MASK
        until = 0
        while True:
            for _ in range(_LOOKS):
                if (used_words[1] - back) & mask <= ahead_at_most:
                    return True
            now = time.perf_counter_ns()
            if not until:
                until = now + quiet_ns
                # To a device, or the kernel's half of one, that shares our processor.
                os.sched_yield()
            elif now >= until:
                return False

    # --- back from the device ---

    def outstanding(self) -> int:
        """How many more must come back for the oldest bank to be complete, in the best case."""
        return max(1, self._flight[0].end - self._returned)

    def arrived(self) -> int:
        """How many chains the device has returned since we last collected."""
        return self._ring.returned_since(self._start + self._returned)

    def collect(self) -> None:
        """Takes back all that the device has returned.

        Raises:
            DeviceFault: it returned what it did not have.
        """
        arrived = self.arrived()
        in_flight = self._published - self._returned
        if arrived > in_flight:
            raise DeviceFault(
                f"the used index ran ahead: {arrived} chains returned, {in_flight} in flight"
            )
        elements = self._ring.used_elements(self._start + self._returned, arrived)
        if self._by_id is None:
            elements = self._collect_in_order(elements)
        if elements:
            self._collect_by_id(elements)

    def _collect_in_order(self, elements: bytes) -> bytes:
        """Takes the elements that come as an orderly device returns them; gives back the rest."""
        while elements:
            bank = self._flight[0]
            begin = (self._returned - bank.first) * USED_ELEMENT.size
            expected = bank.completions[begin : begin + len(elements)]
            if not elements.startswith(expected):
                break
            elements = elements[len(expected) :]
            self._returned += len(expected) // USED_ELEMENT.size
            if self._returned == bank.end:
                self._retire(bank)
        return elements

    def _collect_by_id(self, elements: bytes) -> None:
        by_id = self._by_id = self._by_id or self._look_up_flight()
        for head, length in USED_ELEMENT.iter_unpack(elements):
            index = by_id.index_of.get(head)
            if index is None:
                raise DeviceFault(f"it returned descriptor {head}, which is not in flight")
            if length != _ACK_LENGTH:
                self.wrong_lengths[length] += 1
            del by_id.index_of[head]
            self._returned += 1
            bank = next(b for b in self._flight if b.first <= index < b.end)
            by_id.left[bank.first] -= 1
            if not by_id.left[bank.first]:
                self._retire(bank)

    def _look_up_flight(self) -> _ById:
        by_id = _ById()
        for bank in self._flight:
            by_id.add(bank, returned=max(0, self._returned - bank.first))
        return by_id

    def _retire(self, bank: Bank) -> None:
        """Reads a returned bank's acks and frees its segment.

        Raises:
            DeviceFault: an ack is neither OK nor ERR.
        """
        self._flight.remove(bank)
        self._free.append(bank.segment)
        acks = self._acks(bank)
        self._progress.acks[bank.first : bank.end] = acks
        if acks.count(ACK_OK) != len(acks):
            self._sort_acks(bank, range(bank.count), acks)
            self._refuse_strange_acks(acks)

    def _acks(self, bank: Bank) -> bytes:
        return self._ring.buffers[bank.acks_at].tobytes()

    def _sort_acks(self, bank: Bank, slots: range | list[int], acks: bytes) -> None:
        for slot in slots:
            if acks[slot] == ACK_ERR:
                self.rejected.append(bank.first + slot)
            elif acks[slot] != ACK_OK:
                self.unanswered.append(bank.first + slot)

    @staticmethod
    def _refuse_strange_acks(acks: bytes) -> None:
        strange = set(acks) - {ACK_OK, ACK_ERR}
        if strange:
            raise DeviceFault(f"an ack is {min(strange):#04x}, neither OK nor ERR")

    # --- the end ---

    def settle(self) -> None:
        """Tells what became of all that is not back, or was never sent. Nothing may follow."""
        for bank in self._flight:
            self._settle(bank)
        for bank in self._program.banks[self._next :]:
            self.unanswered.extend(range(bank.first, bank.end))

    def _settle(self, bank: Bank) -> None:
        """Tells the acked commands of a bank that never came back whole from the others."""
        still_out = set(self._still_out(bank))
        self.unanswered.extend(bank.first + slot for slot in still_out)
        returned = [slot for slot in range(bank.count) if slot not in still_out]
        self._sort_acks(bank, returned, self._acks(bank))

    def _still_out(self, bank: Bank) -> Iterator[int]:
        if self._by_id is None:
            yield from range(max(0, self._returned - bank.first), bank.count)
        else:
            for slot in range(bank.count):
                if bank.segment.first_head + 2 * slot in self._by_id.index_of:
                    yield slot
