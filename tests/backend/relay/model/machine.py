"""All sides of the model together: episodes of random steps, with switches at any moment.

The sides are generators, which yield between any two accesses to memory that others see. The relay
under test is none: its memory (memory.py) lets the others run at each of its accesses, and its
stores leave late.

A switch to the relay begins a migration, and a switch back ends it: each page must then be as it
was last copied. In between, the machine is let come to rest: who has been told of something goes
on, until nobody is. What has not come back by then has stalled.
"""

from random import Random
from typing import Any

from tests.backend.relay.model.board import (
    BASE,
    PAGE,
    TRANSMIT_PAGE,
    USED_PAGE,
    Board,
    Ways,
    Wrong,
)
from tests.backend.relay.model.device import Device
from tests.backend.relay.model.front_end import FrontEnd, OtherThread
from tests.backend.relay.model.guest import Guest
from tests.backend.relay.model.memory import SeenContents, SeenLog, SeenWords, StoreBuffer
from tests.backend.relay.model.mutants import Mutant
from vdpad.backend.relay.relay import Due
from vdpad.virtio.chains import DescriptorTable
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import Region


class _Abandoned(Exception):
    """A turn was given up in its midst."""


class Machine:
    """One episode."""

    def __init__(self, mutant: Mutant, ways: Ways, random: Random) -> None:
        self.steps = 0
        """At which anyone did anything."""
        self._ways = ways
        self._random = random
        self._board = Board(ways, random)
        self._guest = Guest(self._board)
        self._device = Device(self._board)
        self._stores = StoreBuffer(random, self._others, in_order=ways.stores_in_order)
        self._log = SeenLog(BASE >> 12, self._board.pages, self._stores)
        self._front_end = FrontEnd(self._board, self._log)
        self._other = OtherThread(self._board, self._log)
        self._relay = self._make_relay(mutant)
        self._in_turn = False

    def _make_relay(self, mutant: Mutant) -> Any:
        board, stores, module = self._board, self._stores, mutant.relay
        module.full_fence = stores.fence
        module.ordering_fence = stores.ordering_fence
        mutant.written.BULK = 1 if self._ways.bulk else 1 << 30
        memory = GuestMemory()
        memory.add(Region(BASE, len(board.bytes)), board.bytes[:])
        guests, ours = (
            module.UsedRing(SeenWords(ring, stores), SeenContents(ring, stores))
            for ring in (board.guests, board.ours)
        )
        queue = module.RelayedQueue(
            self._ways.size,
            Region(BASE + USED_PAGE * PAGE, board.used_size),
            SeenWords(board.available, stores),
            guests,
            ours,
            DescriptorTable(memory, BASE, board.descriptors, indirect=True),
        )
        ways = self._ways
        return module.Relay(queue, memory, self._log, event_idx=ways.event_idx, in_order=ways.skips)

    def run(self, steps: int) -> int:
        """So many random steps, and a rest on either ring; how many there were.

        Raises:
            Wrong, or what the relay raises: something is not as it must be.
        """
        while self.steps < steps:
            if self._random.random() < 0.03:
                self._switch()
            elif self._relays and self._random.random() < 0.2:
                self._turn()
            else:
                self._step()
        self._rest()
        if self._relays:
            self._end()
            self._rest()
        return self.steps

    # --- steps ---

    @property
    def _relays(self) -> bool:
        return self._board.used is self._board.ours

    def _step(self) -> None:
        """One of anyone but the relay."""
        dice = self._random.random()
        if dice < 0.4:
            self.steps += self._guest.step()
        elif dice < 0.75:
            self.steps += self._device.step()
        elif dice < 0.8:
            self.steps += self._stores.drain()
        elif dice < 0.95:
            self.steps += self._front_end.step()
        else:
            self.steps += self._other.step(logging=self._front_end.logging)

    def _others(self) -> None:
        """At each access of the relay's: some steps of the others, many of them the front end's."""
        if not self._in_turn or self._board.at_rest:
            return
        self.steps += 1
        while self._random.random() < 0.6:
            if self._random.random() < 0.4:
                self.steps += self._front_end.step()
            else:
                self._step()
        if self._ways.abandons and self._random.random() < 0.01:
            raise _Abandoned

    def _rest(self) -> None:
        self._board.at_rest = True
        progress = True
        while progress:
            progress = self._stores.drain()
            for side in (self._guest, self._device):
                while side.step():
                    progress = True
            progress |= self._relays and self._turn()
        self._board.at_rest = False
        if self._guest.in_flight:
            raise Wrong(f"stalled: {self._guest.in_flight} buffers did not come back")

    # --- the relay's thread ---

    def _turn(self) -> bool:
        """Whether it found anything."""
        if not (self._ways.ticks or self._board.woken):
            return False
        self._board.woken = False
        seen, told = self._relay._seen, self._relay._told
        self._in_turn = True
        try:
            due = self._relay.turn()
        except _Abandoned:
            # What is redone begins where the turn began.
            self._relay._seen, self._relay._told = seen, told
            return True
        finally:
            self._in_turn = False
        self._notify(due)
        self._take_over()
        return not due.is_idle

    def _notify(self, due: Due) -> None:
        if due.calls and self._ways.relay_calls_guest:
            self._board.called = True
        if due.kicks:
            self._board.kick()

    def _take_over(self) -> None:
        if self._ways.takes_over:
            self._other.take_over()

    # --- switches ---

    def _switch(self) -> None:
        if self._relays:
            self._end()
        else:
            self._begin()

    def _begin(self) -> None:
        if self._ways.acked_early:
            self._front_end.start()
            for _ in range(self._random.randrange(20)):
                self._step()
        self._device.suspend()
        if self._ways.begins_running:
            self._board.suspended = False
            self._in_turn = True
        self._relay.begin()
        self._in_turn = False
        self._stores.fence()
        self._resume(self._board.ours)
        if not self._ways.acked_early:
            self._front_end.start()

    def _end(self) -> None:
        self._device.suspend()
        if self._ways.finishes:
            self._turn()
            self._notify(self._relay.finish())
        if self._ways.marks_transmit:
            self._log.mark(BASE + TRANSMIT_PAGE * PAGE, PAGE)
        self._other.end()
        self._take_over()
        self._stores.fence()
        self._front_end.stop()
        self._resume(self._board.guests)

    def _resume(self, used: memoryview) -> None:
        board = self._board
        board.used = used
        if self._ways.in_order and self._random.random() < 0.5:
            self._device.begin_anew()
        board.suspended = False
        if self._ways.kicks_at_switch:
            board.kick()
        if self._ways.calls_at_switch:
            board.called = True


def run(mutant: Mutant, steps: int, *, seed: int, **wrong: bool) -> None:
    """Episodes of all kinds, one after the other, of so many steps at least.

    Args:
        mutant: the relay.
        steps: at which anyone does anything.
        seed: of all that is left to chance.
        wrong: what is done wrong, by the fields of Ways.

    Raises:
        Wrong, or what the relay raises: something is not as it must be.
    """
    random = Random(seed)
    done = 0
    while done < steps:
        in_order = random.random() < 0.6
        ways = Ways(
            size=random.choice((2, 4, 8)),
            event_idx=random.random() < 0.6,
            in_order=in_order,
            skips=in_order and random.random() < 0.5,
            polls=random.random() < 0.2,
            stores_in_order=random.random() < 0.7,
            bulk=random.random() < 0.3,
            chained=random.random() < 0.4,
            first_index=random.choice((0, 250, 32760, 65530)),
            **wrong,
        )
        done += Machine(mutant, ways, random).run(random.randint(50, 400))
