"""Things that happen in floods: counted by reason, and told of now and then.

The first is told of at once, then at most every ten seconds all that came since; what nobody was
told of by the end is told then.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

# Stops a flood from becoming one of the log. In seconds.
_TOLD_EVERY = 10.0

_Last = TypeVar("_Last")


class Tally(Generic[_Last]):
    """Counts by reason, and what there is to say of the last one."""

    def __init__(self, tell: Callable[[int, tuple[str, ...], _Last], None]) -> None:
        """
        Args:
            tell: is given how many there were since it was told last, each reason with its
                number, and the last one.
        """
        self._tell = tell
        self.counts: Counter[str] = Counter()
        """By reason, ever."""
        self._told: Counter[str] = Counter()
        self._last: _Last | None = None
        self._next = 0.0

    def note(self, reason: str, last: _Last) -> None:
        """Counts one, and tells of it at once unless something was told a moment ago."""
        self.counts[reason] += 1
        self._last = last
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _TOLD_EVERY
            self.flush()

    def flush(self) -> None:
        """Tells of those that nobody was told of."""
        untold = self.counts - self._told
        self._told = self.counts.copy()
        if untold and self._last is not None:
            reasons = tuple(f"{reason} {count}" for reason, count in untold.items())
            self._tell(untold.total(), reasons, self._last)
