"""The ring as one replay sees it: its commands by their number since the replay began.

What a ring's layout makes different between two replays is behind this interface: where commands
lie, how they are given to the device, how it is seen that they are back. split_track.py and
packed_track.py implement it; the pipeline knows neither.

Commands go by *counts*: those placed or published are always the first so many of the program, and
those returned are so many, whichever they are.
"""

import os
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from vdpad.restore.program import Bank, Program
from vdpad.restore.standstill import Standing

BANKS_PER_LOOK_AT_THE_CLOCK = 8
"""How many banks `run_fast` lets go by between two looks at the clock."""

# How often the ring is looked at between two looks at the clock.
_LOOKS = 32


class Track(Protocol):
    """A ring, from an idle one on."""

    def close(self) -> None:
        """Lets go of the ring's memory. May be called again."""

    # --- towards the device ---

    def place(self, bank: Bank) -> None:
        """Copies a bank to where its commands will be published, in their order."""

    def publish(self, new: int) -> None:
        """Gives all that was placed to the device, which has so many commands then, ever."""

    def wants_doorbell(self, new: int, old: int) -> bool:
        """Whether the device wants to hear that these were published."""

    def ask_for_interrupt(self, count: int) -> None:
        """Asks for an interrupt once so many are back. Look again afterwards: they may have been
        before the device saw the wish."""

    def ask_for_no_interrupt(self, count: int) -> None:
        """Asks to be left alone from a moment on when so many are back."""

    # --- back from the device ---

    def arrived(self, returned: int, published: int) -> int:
        """How many more have come back than were collected; more than are out where it lies."""

    def elements(self, returned: int, count: int) -> bytes:
        """A copy of what tells of so many that have arrived, each as in a bank's `completions`."""

    def names(self, elements: bytes) -> Iterator[tuple[int, int]]:
        """The same read: of each the id that it came back with, and the length."""

    def index(self, count: int) -> int:
        """Where the ring stands once so many are back, as ControlQueue has it."""

    def leave(self, count: int) -> None:
        """Leaves the ring, of which so many are back and none is out, as its next user expects it:
        as a fresh one, it asks for an interrupt at the next completion."""

    def standing(self, returned: int, published: int) -> Standing:
        """How the ring stands now, for people."""

    # --- both, where all goes well ---

    def run_fast(self, oldest: int, quiet_ns: int, until_ns: int) -> int:
        """Replaces full banks by the next ones, while they are back in order with every ack OK.

        The device has one full bank for each segment, and none of them came back in part.

        Args:
            oldest: the number of the bank that is to come back first.
            quiet_ns: for how long one is waited for.
            until_ns: in perf_counter_ns, some banks after which it ends.

        Returns:
            the number of the oldest bank that the device has now.
        """


def comes(there: Callable[[], bool], quiet_ns: int) -> bool:
    """Looks for a while; whether what is waited for has come.

    Args:
        there: looks once.
        quiet_ns: for how long.
    """
    until = 0
    while True:
        for _ in range(_LOOKS):
            if there():
                return True
        now = time.perf_counter_ns()
        if not until:
            until = now + quiet_ns
            # To a device, or the kernel's half of one, that shares our processor.
            os.sched_yield()
        elif now >= until:
            return False


def all_completions(program: Program) -> bytes:
    """What the ring tells when a device has returned all of a program in order, chain by chain."""
    return b"".join(bank.completions for bank in program.banks)
