"""A device's steps, each on a thread, one after the other in the order in which they are asked for.

Whoever is cancelled goes at once. A step that he has asked for is taken all the same, whether it is
under way or waits for its turn, as what comes after it may rest on it: memory is unmapped behind a
reset.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from vdpad.service.threads import on_a_thread
from vdpad.vhost_user.faults import means

T = TypeVar("T")


class Steps:
    """The steps of one device."""

    def __init__(self) -> None:
        """None is under way."""
        self._turn = asyncio.Lock()

    async def take(self, step: Callable[[], T]) -> T:
        """Takes a step once those before it have ended, and returns what came of it.

        Raises:
            VdpadError: the step's own.
            NoMeans: the system refused it something.
        """
        return await asyncio.shield(self._take(step))

    async def _take(self, step: Callable[[], T]) -> T:
        # A lock is given in the order in which it was asked for.
        async with self._turn:
            return await on_a_thread(means()(step), "device")
