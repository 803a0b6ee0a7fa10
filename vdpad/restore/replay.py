"""The replay: a program goes through a control queue, and each command's outcome comes out.

The guest is stopped while this runs, so nothing is done per command as long as the device behaves:
banks of commands are copied in and compared in as slices.

States of a bank: waiting in the program → published (the device's) → returned whole, its acks read.
Banks are published in their order, each once its region is free. Only `_publish` gives memory to
the device and only `_retire` takes it back; between the two nothing of a bank is touched.

What the device returns is matched in one of two modes:

- *in order*, the start: the used ring's new elements equal what an orderly device writes, compared
  as one slice.
- *by id*, from the first element that differs: every chain in flight is looked up by its head, so
  that a device may finish in any order. There is no way back within a replay.

A device that returns an id that is not in flight, a used index past what is in flight, a length
other than the one ack byte, or an ack that is neither OK nor ERR, is broken: nothing more is sent.
A broken device, or one that is late, still owns its buffers; only a reset gets them back.

Waiting: look at the used index for a bounded while, with no interrupt asked for, and with turns for
the event loop's other tasks in between. If that was not enough, ask for one interrupt when the
oldest bank can be complete, look once more (the device may have been faster than our wish), and
sleep. A sleeper also looks now and then by itself, since an interrupt that a lender failed to pass
on should cost milliseconds and not the deadline.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from vdpad.queues.control_queue import ControlQueue
from vdpad.restore.program import Bank, Program, Region
from vdpad.virtio.commands import ACK_ERR, ACK_OK
from vdpad.virtio.split_ring import USED_ELEMENT, DriverRing

_ACK_LENGTH = 1

# How long the event loop may be kept from others: by one look at a ring where nothing comes, and by
# a device that always answers while we look.
_MOST_LOOKING_NS = 100_000
_MOST_WITHOUT_YIELD_NS = 2_000_000

# How long a sleeper sleeps before it looks by itself, in seconds: doubling from first to last.
_FIRST_NAP = 0.001
_LONGEST_NAP = 0.05


class Outcome(StrEnum):
    """What a replay came to, as the API names it."""

    RESTORED = "restored"
    """Every command was acked OK."""
    REJECTED = "rejected"
    """Every command was acked, some with ERR."""
    INCOMPLETE = "incomplete"
    """The deadline came first."""
    BROKEN = "broken"
    """The device did what no device may."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of each command, by its index in the program."""

    outcome: Outcome
    rejected: tuple[int, ...]
    """Acked ERR."""
    unanswered: tuple[int, ...]
    """Sent and not acked, or never sent."""
    doorbells: int
    elapsed_ns: int
    """From the first image copied to the last ack read."""
    next_index: int | None
    """Where the ring stands, both indices; None where the device still has buffers."""
    fault: str = ""
    """What a broken device did."""


class _DeviceFault(Exception):
    """What the device did that no device may."""


async def replay(
    program: Program, queue: ControlQueue, *, deadline: float, poll_ns: int
) -> Replayed:
    """Sends a program through an idle queue and reads the acks.

    Never raises for what a device does. On cancellation the queue is left as it stands: chains
    that were published are the device's until it is reset.

    Args:
        program: encoded for this queue's geometry.
        queue: idle, and nobody else's.
        deadline: in the running loop's time, for all of it.
        poll_ns: how long to look at the ring before sleeping, in nanoseconds, each time.
    """
    run = _Replay(program, queue, poll_ns if queue.worth_polling else 0)
    started = time.perf_counter_ns()
    outcome, fault = Outcome.RESTORED, ""
    try:
        async with asyncio.timeout_at(deadline):
            await run.to_the_end()
    except _DeviceFault as error:
        outcome, fault = Outcome.BROKEN, str(error)
    except TimeoutError:
        outcome, fault = run.last_look()
    elapsed = time.perf_counter_ns() - started
    return run.finish(outcome, fault, elapsed)


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
            self.index_of[bank.region.first_head + 2 * slot] = bank.first + slot
        self.left[bank.first] = bank.count - returned


class _Replay:
    def __init__(self, program: Program, queue: ControlQueue, poll_ns: int) -> None:
        self._queue = queue
        self._ring: DriverRing = queue.ring
        self._poll_ns = poll_ns
        self._start = queue.next_index
        self._published = 0
        """Commands given to the device, ever."""
        self._returned = 0
        """Commands that came back, ever."""
        self._flight: deque[Bank] = deque()
        self._free: list[Region] = list(program.regions)
        self._waiting: deque[Bank] = deque(program.banks)
        self._by_id: _ById | None = None
        self._rejected: list[int] = []
        self._unanswered: list[int] = []
        self._doorbells = 0
        self._yielded_ns = time.perf_counter_ns()

    async def to_the_end(self) -> None:
        """Publishes and collects until all is back.

        Raises:
            _DeviceFault: the device broke a rule.
        """
        if not self._waiting:
            return
        self._ring.ask_for_no_interrupt(self._start)
        self._publish(ring_anyway=True)
        while self._flight:
            wanted = self._outstanding()
            if self._arrived() < wanted:
                await self._wait_for(wanted)
            elif time.perf_counter_ns() - self._yielded_ns > _MOST_WITHOUT_YIELD_NS:
                await self._let_others_run()
            self._collect()
            if self._waiting and self._free:
                self._publish()

    # --- towards the device ---

    def _publish(self, *, ring_anyway: bool = False) -> None:
        """Publishes the next banks whose regions are free, all with one store and one look."""
        old = self._start + self._published
        while self._waiting and self._waiting[0].region in self._free:
            bank = self._waiting.popleft()
            self._free.remove(bank.region)
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
            self._queue.kick()
            self._doorbells += 1

    def _copy(self, bank: Bank) -> None:
        ring = self._ring
        ring.buffers[bank.buffers_at] = bank.buffers
        if bank.descriptors is not None:
            ring.descriptors[bank.descriptors_at] = bank.descriptors
        ring.place(self._start + self._published, bank.heads)

    # --- waiting ---

    def _outstanding(self) -> int:
        """How many more must come back for the oldest bank to be complete, in the best case."""
        return max(1, self._flight[0].end - self._returned)

    def _arrived(self) -> int:
        """How many chains the device has returned since we last collected."""
        return self._ring.returned_since(self._start + self._returned)

    async def _wait_for(self, wanted: int) -> None:
        """Returns when so many have arrived."""
        give_up = time.perf_counter_ns() + self._poll_ns
        while not self._look(wanted, give_up):
            if time.perf_counter_ns() >= give_up:
                await self._sleep(wanted)
                return
            await self._let_others_run()

    def _look(self, wanted: int, give_up: int) -> bool:
        """Looks at the used index for a while; whether so many have arrived."""
        since = self._start + self._returned
        returned_since, now = self._ring.returned_since, time.perf_counter_ns
        until = min(give_up, now() + _MOST_LOOKING_NS)
        while now() < until:
            if returned_since(since) >= wanted:
                return True
        return False

    async def _let_others_run(self) -> None:
        # First a device that shares our processor, which the event loop knows nothing of.
        os.sched_yield()
        await asyncio.sleep(0)
        self._yielded_ns = time.perf_counter_ns()

    async def _sleep(self, wanted: int) -> None:
        self._ring.ask_for_interrupt(self._start + self._returned + wanted)
        nap = _FIRST_NAP
        while self._arrived() < wanted:
            before = self._arrived()
            await self._queue.called(nap)
            self._yielded_ns = time.perf_counter_ns()
            if self._arrived() == before:
                nap = min(2 * nap, _LONGEST_NAP)
        self._ring.ask_for_no_interrupt(self._start + self._returned)

    # --- back from the device ---

    def _collect(self) -> None:
        """Takes back all that the device has returned.

        Raises:
            _DeviceFault: it returned what it did not have.
        """
        arrived = self._arrived()
        in_flight = self._published - self._returned
        if arrived > in_flight:
            raise _DeviceFault(
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
                raise _DeviceFault(f"it returned descriptor {head}, which is not in flight")
            if length != _ACK_LENGTH:
                raise _DeviceFault(
                    f"it says that it wrote {length} bytes to descriptor {head}; an ack is 1"
                )
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
        """Reads a returned bank's acks and frees its region.

        Raises:
            _DeviceFault: an ack is neither OK nor ERR.
        """
        self._flight.remove(bank)
        self._free.append(bank.region)
        acks = self._acks(bank)
        if acks.count(ACK_OK) != len(acks):
            self._sort_acks(bank, range(bank.count), acks)
            self._refuse_strange_acks(acks)

    def _acks(self, bank: Bank) -> bytes:
        return self._ring.buffers[bank.acks_at].tobytes()

    def _sort_acks(self, bank: Bank, slots: range | list[int], acks: bytes) -> None:
        for slot in slots:
            if acks[slot] == ACK_ERR:
                self._rejected.append(bank.first + slot)
            elif acks[slot] != ACK_OK:
                self._unanswered.append(bank.first + slot)

    @staticmethod
    def _refuse_strange_acks(acks: bytes) -> None:
        strange = set(acks) - {ACK_OK, ACK_ERR}
        if strange:
            raise _DeviceFault(f"an ack is {min(strange):#04x}, neither OK nor ERR")

    # --- the end ---

    def last_look(self) -> tuple[Outcome, str]:
        """At the deadline: takes back what is there, and tells the outcome and the fault if any."""
        try:
            self._collect()
        except _DeviceFault as error:
            return Outcome.BROKEN, str(error)
        done = not self._flight and not self._waiting
        return (Outcome.RESTORED if done else Outcome.INCOMPLETE), ""

    def finish(self, outcome: Outcome, fault: str, elapsed_ns: int) -> Replayed:
        """Leaves the ring as its next user expects it, and tells what became of everything."""
        for bank in self._flight:
            self._settle(bank)
        for bank in self._waiting:
            self._unanswered.extend(range(bank.first, bank.end))
        if outcome is Outcome.RESTORED and self._rejected:
            outcome = Outcome.REJECTED
        idle = outcome in (Outcome.RESTORED, Outcome.REJECTED)
        if idle and self._published:
            # As a fresh ring has it: whoever uses it next hears of the next completion.
            self._ring.ask_for_interrupt(self._start + self._returned + 1)
        return Replayed(
            outcome=outcome,
            rejected=tuple(sorted(self._rejected)),
            unanswered=tuple(sorted(self._unanswered)),
            doorbells=self._doorbells,
            elapsed_ns=elapsed_ns,
            next_index=(self._start + self._returned) & 0xFFFF if idle else None,
            fault=fault,
        )

    def _settle(self, bank: Bank) -> None:
        """Tells the acked commands of a bank that never came back whole from the others."""
        still_out = set(self._still_out(bank))
        self._unanswered.extend(bank.first + slot for slot in still_out)
        returned = [slot for slot in range(bank.count) if slot not in still_out]
        self._sort_acks(bank, returned, self._acks(bank))

    def _still_out(self, bank: Bank) -> Iterator[int]:
        if self._by_id is None:
            yield from range(max(0, self._returned - bank.first), bank.count)
        else:
            for slot in range(bank.count):
                if bank.region.first_head + 2 * slot in self._by_id.index_of:
                    yield slot
