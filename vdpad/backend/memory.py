"""The guest's memory, as its device reaches it; and the front end's log of what is written there.

Memory is mapped when it comes and until it goes, over all starts. How it is logged marking.py says.
"""

from functools import partial

from vdpad.backend.events import LoggingBegan, LoggingEnded
from vdpad.backend.listeners import Listeners
from vdpad.backend.marking import Logged, Marking
from vdpad.backend.owned_device import OwnedDevice
from vdpad.vhost_user.dirty_log import DirtyLog
from vdpad.vhost_user.memory_table import MappedRegion


class Memory:
    """That of one device's guest."""

    def __init__(self, owned: OwnedDevice, name: str, listeners: Listeners) -> None:
        """There is none, and nothing is logged.

        Args:
            owned: the device.
            name: of the back end.
            listeners: who is told.
        """
        self.marking = Marking(owned.steps)
        self._mapped: set[MappedRegion] = set()
        self._owned = owned
        self._name = name
        self._listeners = listeners

    @property
    def logged(self) -> Logged | None:
        """How it is logged, if it is."""
        return self.marking.logged

    @property
    def mapped(self) -> frozenset[MappedRegion]:
        """The regions that the device reaches."""
        return frozenset(self._mapped)

    async def add(self, mapped: MappedRegion) -> None:
        """Maps a region for the device, which may take seconds."""
        await self._owned.steps.take(partial(self._owned.device.map, mapped.guest, mapped.view))
        self.marking.add(mapped.guest)
        self._mapped.add(mapped)

    async def remove(self, mapped: MappedRegion) -> None:
        """Takes a region from the device, if it has it."""
        if mapped not in self._mapped:
            return
        await self._owned.steps.take(partial(self._owned.device.unmap, mapped.guest))
        self.marking.remove(mapped.guest)
        self._mapped.discard(mapped)

    async def log(self, log: DirtyLog | None) -> None:
        """Marks what is written to it, or no more."""
        before = self.logged
        self.marking.set_log(log)
        if before is None and log is not None:
            self._listeners.announce(LoggingBegan(self._name, "everything"))
        elif before is not None and log is None:
            self._listeners.announce(LoggingEnded(self._name, before.way, before.pages))
        self._listeners.logging_changed()
