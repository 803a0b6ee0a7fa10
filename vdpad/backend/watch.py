"""What a device tells of its own accord: its config space has changed, or it needs a reset."""

import asyncio
import os
from collections.abc import Awaitable, Callable


class ConfigWatch:
    """Listens to a device's config interrupt, from its opening to its closing."""

    def __init__(self, changed: Callable[[], Awaitable[None]]) -> None:
        """
        Args:
            changed: called after each interrupt, one at a time; it does not raise.
        """
        self.call = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """What the device is given."""
        self._changed = changed
        self._interrupted = asyncio.Event()
        asyncio.get_running_loop().add_reader(self.call, self._readable)
        self._task = asyncio.create_task(self._tell())

    async def close(self) -> None:
        """Listens no more. The device has forgotten the descriptor, or is closed."""
        asyncio.get_running_loop().remove_reader(self.call)
        self._task.cancel()
        await asyncio.wait([self._task])
        os.close(self.call)

    def _readable(self) -> None:
        os.eventfd_read(self.call)
        self._interrupted.set()

    async def _tell(self) -> None:
        while True:
            await self._interrupted.wait()
            self._interrupted.clear()
            await self._changed()
