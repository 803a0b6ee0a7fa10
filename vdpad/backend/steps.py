"""A device's steps, each on a thread, one after the other.

Whoever is cancelled while a step is under way goes at once; the step goes on, since nobody can call
it back, and the next one waits for its end. What the system refuses a step is an error of ours.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from vdpad.service.threads import on_a_thread
from vdpad.vhost_user.faults import means

T = TypeVar("T")


class Steps:
    """The steps of one device."""

    def __init__(self) -> None:
        """None is under way."""
        self._last: asyncio.Future[Any] | None = None

    async def take(self, step: Callable[[], T]) -> T:
        """Takes a step once those before it have ended, and returns what came of it.

        Raises:
            VdpadError: the step's own.
            NoMeans: the system refused it something.
        """
        while (last := self._last) is not None:
            await asyncio.wait([last])
            if self._last is last:
                self._last = None
        ended = self._last = on_a_thread(means()(step), "device")
        return await asyncio.shield(ended)
