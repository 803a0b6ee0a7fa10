"""How long who takes turns of relays sleeps between two rounds, where the device calls nobody.

How it works. A sleep is ended by a call of the device's, or by its *tick*. The less there is, the
longer the ticks: they double up to the longest. A guest that polls asks for no calls, so its device
calls nobody, and what comes waits for the tick. So where one has found a few chains, the next are
short, until nothing has come for some milliseconds. One that has found many is none too long: where
much comes, the more is relayed at once the less each takes.
"""

SHORT_TICK = 50e-6
LEAST_TICK = 200e-6
LONGEST_TICK = 2e-3
"""Seconds. What nobody calls for waits for as long; the kernel adds some 50 µs to each sleep."""

SHORT_TICKS = 100
"""How many are short, after one that has found a few."""

MANY = 8
"""Chains."""


class Pace:
    """That of one thread."""

    def __init__(self) -> None:
        self.was_called = True
        """Its last sleep was ended by a call, and not by a tick."""
        self._next = LEAST_TICK
        """The next tick, but for short ones."""
        self._short = 0
        """How many of these are next."""

    def sleeps(self, found: int) -> float:
        """Seconds.

        Args:
            found: chains, in the round before.
        """
        if found:
            if found >= MANY:
                self._short = 0
            elif not self.was_called:
                self._short = SHORT_TICKS
            self._next = LEAST_TICK
            return 0
        if self._short:
            self._short -= 1
            return SHORT_TICK
        tick, self._next = self._next, min(2 * self._next, LONGEST_TICK)
        return tick
