"""The guest's memory, as its device reaches it, and what marks in the front end's log of it.

Memory is mapped when it comes and until it goes, over all starts. How it is logged marking.py says,
and how a log comes and goes logging.py.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from vdpad.backend.listeners import Listeners
from vdpad.backend.marking import Logged, Marking
from vdpad.backend.owned_device import OwnedDevice
from vdpad.backend.relay.faults import RingMoved
from vdpad.backend.relaying import Relaying
from vdpad.errors import VdpadError
from vdpad.vhost_user.memory_table import MappedRegion


class Memory:
    """That of one device's guest."""

    def __init__(
        self,
        owned: OwnedDevice,
        listeners: Listeners,
        failed: Callable[[VdpadError], None],
    ) -> None:
        """There is none, and nothing is logged.

        Args:
            owned: the device.
            listeners: who is told.
            failed: called where logging has left the guest with a device that does not go on.
        """
        self.relaying = Relaying(owned.device, self._relay_ended)
        owned.steps.unblock = self.relaying.thread.unblock
        self.marking = Marking(owned.steps, self.relaying)
        self._mapped: set[MappedRegion] = set()
        self._owned = owned
        self._listeners = listeners
        self._failed = failed
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Lets go of all of it. The device is stopped."""
        await self._owned.steps.take(self.relaying.close)

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
        await self._owned.steps.take(partial(self._map, mapped))
        self.marking.add(mapped.guest)
        self._mapped.add(mapped)

    async def remove(self, mapped: MappedRegion) -> None:
        """Takes a region from the device, if it has it."""
        if mapped not in self._mapped:
            return
        await self._owned.steps.take(partial(self._unmap, mapped))
        self.marking.remove(mapped.guest)
        self._mapped.discard(mapped)

    # --- the log ---

    def begin(self) -> None:
        """The device has started, and no data queue works yet."""
        if self.relaying.is_on:
            self.relaying.run()
        self.marking.started()

    def _relay_ended(self, error: VdpadError) -> None:
        """Called on a thread."""
        self._loop.call_soon_threadsafe(self._mark_all, error)

    def _mark_all(self, error: VdpadError) -> None:
        # A device that goes on by itself harms nobody: all is marked at the stop.
        if not isinstance(error, RingMoved):
            self._failed(error)
        self._listeners.logging_changed()

    # --- steps, in which the device and the relay always have the same memory ---

    def _map(self, mapped: MappedRegion) -> None:
        self._owned.device.map(mapped.guest, mapped.view)
        self.relaying.thread.add(mapped.guest, mapped.view)

    def _unmap(self, mapped: MappedRegion) -> None:
        self.relaying.thread.remove(mapped.guest)
        self._owned.device.unmap(mapped.guest)
