"""A device's steps on its thread, one after the other in the order in which they are asked for.

Whoever is cancelled goes at once. A step that he has asked for is taken all the same, whether it is
under way or waits for its turn, as what comes after it may rest on it: memory is unmapped behind a
reset.

A step may sleep in a notification: its counter is the front end's to fill, also between our look
at it and our write. So where a step takes long, what it notifies by is drained by the event loop.

The thread is there from the device's opening on. One that is asked for at each step may not be had
just when the device is to be reset.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from vdpad.service.threads import OwnThread
from vdpad.vhost_user.faults import means

T = TypeVar("T")

# How long a step may take before it may be one that sleeps in a notification, in seconds.
_PATIENCE = 0.5


class Steps:
    """The steps of one device."""

    def __init__(self) -> None:
        """None is under way.

        Raises:
            NoThread: the system gives none.
        """
        self._thread = OwnThread("device")
        self.unblock: Callable[[], None] = lambda: None
        """Ends a notification that sleeps, if one does; called while a step takes long."""

    async def take(self, step: Callable[[], T]) -> T:
        """Takes a step once those before it have ended, and returns what came of it.

        Raises:
            VdpadError: the step's own.
            NoMeans: the system refused it something.
        """
        asked_for = self._thread.run(means()(step))
        asyncio.get_running_loop().call_later(_PATIENCE, self._look_after, asked_for)
        return await asyncio.shield(asked_for)

    async def take_last(self, step: Callable[[], T]) -> T:
        """The same for one that none follows."""
        asked_for = self._thread.run(means()(step))
        self._thread.end()
        return await asyncio.shield(asked_for)

    def _look_after(self, step: "asyncio.Future[Any]") -> None:
        if not step.done():
            self.unblock()
            asyncio.get_running_loop().call_later(_PATIENCE, self._look_after, step)
