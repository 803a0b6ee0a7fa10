"""An event loop whose time passes only while everybody waits.

A deadline of a minute is over at once where nobody does anything, and is never over while somebody
works, however slow the machine: what a test with deadlines says does not depend on real time.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# Nothing here waits for so long (in seconds): whoever still waits then would wait for ever.
_END_OF_TIME = 24 * 3600.0


class JumpingLoop(asyncio.SelectorEventLoop):
    """Jumps to the next timer where nothing is ready."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        """Lets time pass."""
        self._now += seconds
        if self._now > _END_OF_TIME:
            raise TimeoutError("everybody waits for something that will never come")


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout != 0:
            self._loop.jump(_END_OF_TIME if timeout is None else timeout)
        return ready


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in a loop of this kind, for tests that are no coroutines themselves."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)
