"""The pipeline: a program's banks go into the ring, and what the device returns is matched to them.

States of a bank: unpublished (in the program) → published (the device's) → returned whole, its
acks read. Banks are published in their order, each once its segment is free. Only `publish` and
`run_fast` give memory to the device, and only they and `collect` take it back; between the two
nothing of a bank is touched.

What the device returns is matched in one of two modes:

- *in order*, the start: what tells of the chains that have arrived equals what an orderly device
  writes, compared as one slice.
- *by id*, from the first that differs: every chain in flight is looked up by its head, so that a
  device may finish in any order. There is no way back within a replay.

Where all of this stands in the ring, which differs between split and packed rings, is the track's
concern (track.py).

A device that returns an id that is not in flight, more than is in flight, or an ack that is neither
OK nor ERR, is broken. A used length other than the one ack byte is counted and
otherwise not believed: devices set it in many ways (virtio 1.4, 2.7.8.1), while the ack, which was
0xff before, says by itself whether it was written.

The guest is stopped meanwhile, and calls are what Python spends its time on. So `run_fast` does
what `collect` and `publish` do, in one loop of the track's, for banks that come back whole, in
order and all OK. What is not so it leaves as it found it, for them.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vdpad.restore.faults import DeviceFault
from vdpad.restore.program import Bank, Program, Segment
from vdpad.restore.progress import DOORBELLS, Progress
from vdpad.restore.standstill import Standing
from vdpad.restore.tracks import track_of
from vdpad.virtio.commands import ACK_ERR, ACK_OK
from vdpad.virtio.driver_rings import AnyDriverRing

_ACK_LENGTH = 1

# Bytes of what tells of one returned chain, in either layout (track.py).
_ELEMENT = 8


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
            self.index_of[bank.head(slot)] = bank.first + slot
        self.left[bank.first] = bank.count - returned


class Pipeline:
    """One replay's way through an idle ring."""

    def __init__(
        self,
        program: Program,
        ring: AnyDriverRing,
        start: int,
        kick: Callable[[], None],
        progress: Progress | None = None,
    ) -> None:
        """Prepares the ring; publishes nothing.

        Args:
            program: encoded for this ring.
            ring: idle, and nobody else's.
            start: where it stands, as ControlQueue has it.
            kick: rings the doorbell.
            progress: where it is written down how far this has come.
        """
        self._program = program
        self._progress = progress or Progress.unshared(len(program.commands))
        self._buffers = ring.buffers
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
        self._track = track_of(program, ring, start, self._ring_bell, self._progress)

    def close(self) -> None:
        """Lets go of the ring's memory. May be called again."""
        self._track.close()

    @property
    def unpublished(self) -> bool:
        """Whether there are banks that were not published yet."""
        return self._next < len(self._program.banks)

    @property
    def published(self) -> int:
        """How many commands the device was given so far."""
        return self._published

    @property
    def in_flight(self) -> bool:
        """Whether the device has banks."""
        return bool(self._flight)

    @property
    def index(self) -> int:
        """Where the ring stands behind what has come back, as ControlQueue has it."""
        return self._track.index(self._returned)

    # --- towards the device ---

    def publish(self, *, ring_anyway: bool = False) -> None:
        """Publishes the next banks whose segments are free, all with one store and one look."""
        old = self._published
        while self.unpublished and (bank := self._program.banks[self._next]).segment in self._free:
            self._next += 1
            self._free.remove(bank.segment)
            self._track.place(bank)
            self._flight.append(bank)
            self._published += bank.count
            if self._by_id is not None:
                self._by_id.add(bank)
        new = self._published
        if new == old:
            return
        self._track.publish(new)
        # What stands in the notification words before the device has run is nobody's word, so the
        # first doorbell is rung without asking.
        if self._track.wants_doorbell(new, old) or ring_anyway:
            self._ring_bell()

    def _ring_bell(self) -> None:
        self._kick()
        self.doorbells += 1
        self._progress.words[DOORBELLS] = self.doorbells

    def standing(self) -> Standing:
        """How the ring stands now."""
        return self._track.standing(self._returned, self._published)

    def ask_for_interrupt(self, more: int) -> None:
        """Asks for one once so many more are back. Look again afterwards."""
        self._track.ask_for_interrupt(self._returned + more)

    def ask_for_no_interrupt(self) -> None:
        """Asks to be left alone."""
        self._track.ask_for_no_interrupt(self._returned)

    # --- both, where all goes well ---

    def run_fast(self, quiet_ns: int, until_ns: int) -> bool:
        """Replaces full banks by the next ones, as long as they return in order with every ack OK.

        Returns whether any was replaced: when the next bank has not come within quiet_ns, some
        banks after until_ns (in perf_counter_ns), when there are no more full ones to publish, or
        at what is not so, which stays as it is.
        """
        full = self._program.full
        if self._by_id is not None or not full.fit(self._returned, self._next):
            return False
        before = self._next - len(full.segments)
        oldest = self._track.run_fast(before, quiet_ns, until_ns)
        self._returned = oldest * full.slots
        self._next = oldest + len(full.segments)
        self._published = self._next * full.slots
        self._flight = deque(full.banks[oldest : self._next])
        return oldest > before

    # --- back from the device ---

    def outstanding(self) -> int:
        """How many more must come back for the oldest bank to be complete, in the best case."""
        return max(1, self._flight[0].end - self._returned)

    def arrived(self) -> int:
        """How many chains the device has returned since we last collected."""
        return self._track.arrived(self._returned, self._published)

    def collect(self) -> None:
        """Takes back all that the device has returned.

        Raises:
            DeviceFault: it returned what it did not have.
        """
        arrived = self.arrived()
        in_flight = self._published - self._returned
        if arrived > in_flight:
            raise DeviceFault(
                f"the device ran ahead: {arrived} chains returned, {in_flight} in flight"
            )
        elements = self._track.elements(self._returned, arrived)
        if self._by_id is None:
            elements = self._collect_in_order(elements)
        if elements:
            self._collect_by_id(elements)

    def _collect_in_order(self, elements: bytes) -> bytes:
        """Takes the elements that come as an orderly device returns them; gives back the rest."""
        while elements:
            bank = self._flight[0]
            begin = (self._returned - bank.first) * _ELEMENT
            expected = bank.completions[begin : begin + len(elements)]
            if not elements.startswith(expected):
                break
            elements = elements[len(expected) :]
            self._returned += len(expected) // _ELEMENT
            if self._returned == bank.end:
                self._retire(bank)
        return elements

    def _collect_by_id(self, elements: bytes) -> None:
        by_id = self._by_id = self._by_id or self._look_up_flight()
        for head, length in self._track.names(elements):
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
        return self._buffers[bank.acks_at].tobytes()

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

    def leave(self) -> None:
        """Leaves a ring in which nothing is in flight as its next user expects it."""
        if self._published:
            self._track.leave(self._returned)

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
                if bank.head(slot) in self._by_id.index_of:
                    yield slot
