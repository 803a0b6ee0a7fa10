"""Clients that were found deaf a while ago: what they were sent they had not read.

Nobody is told when they read again. So it is known of each for a while only, and of so many.
"""

import time
from collections.abc import Callable, Hashable

# For how long, in seconds. One that reads again is not taken for deaf for longer.
_KNOWN = 1.0

# Of how many. Stops names from filling memory; past it the one that was found first is forgotten.
_MAX = 1024


class Deaf:
    """Which clients were found deaf, each by whatever tells it from others."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[Hashable, float] = {}

    def __contains__(self, client: Hashable) -> bool:
        """Whether it was found deaf a while ago."""
        return self._until.get(client, 0.0) > self._clock()

    def add(self, client: Hashable) -> None:
        """It was found deaf now."""
        self.discard(client)
        if len(self._until) == _MAX:
            del self._until[next(iter(self._until))]
        self._until[client] = self._clock() + _KNOWN

    def discard(self, client: Hashable) -> None:
        """It may read again."""
        self._until.pop(client, None)
