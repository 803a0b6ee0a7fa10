"""How long who takes turns of relays sleeps between two rounds, where the device calls nobody.

How it works. A sleep is ended by a call of the device's, or by its *tick*. The less there is, the
longer the ticks: they double up to the longest. A guest that polls asks for no calls, so its device
calls nobody, and what comes waits for the tick. So where one has found something, the next are
short, until nothing has come for some milliseconds.
"""

SHORTEST_TICK = 50e-6
LONGEST_TICK = 2e-3
"""Seconds. What nobody calls for waits for as long; the kernel adds some 50 µs to each sleep."""

SHORT_TICKS = 100
"""Of the shortest, after one that has found something."""


class Pace:
    """That of one thread."""

    def __init__(self) -> None:
        self.was_called = True
        """Its last sleep was ended by a call, and not by a tick."""
        self._tick = SHORTEST_TICK
        self._short = 0
        """How many ticks more are the shortest, whatever they find."""

    def sleeps(self, *, busy: bool) -> float:
        """Seconds.

        Args:
            busy: the round has found something.
        """
        if busy:
            if not self.was_called:
                self._short = SHORT_TICKS
            self._tick = SHORTEST_TICK
            return 0
        if self._short:
            self._short -= 1
        else:
            self._tick = min(2 * self._tick, LONGEST_TICK)
        return self._tick
