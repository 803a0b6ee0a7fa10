"""The guest's memory, as its device reaches it; and the front end's log of what is written there.

Memory is mapped when it comes and until it goes, over all starts. How it is logged marking.py says.
Its receive queues are relayed from the moment that there is a log and the device runs, whichever is
second, until there is no log or the device stops; a device that cannot be relayed runs on as it is.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from vdpad.backend.events import LoggingBegan, LoggingEnded
from vdpad.backend.listeners import Listeners
from vdpad.backend.marking import Logged, Marking
from vdpad.backend.owned_device import OwnedDevice
from vdpad.backend.relay.faults import RingMoved
from vdpad.backend.relaying import CannotRelay, Relaying
from vdpad.backend.running import Running
from vdpad.errors import VdpadError
from vdpad.vhost_user.dirty_log import DirtyLog
from vdpad.vhost_user.memory_table import MappedRegion


class Memory:
    """That of one device's guest."""

    def __init__(
        self,
        owned: OwnedDevice,
        name: str,
        listeners: Listeners,
        failed: Callable[[VdpadError], None],
    ) -> None:
        """There is none, and nothing is logged.

        Args:
            owned: the device.
            name: of the back end.
            listeners: who is told.
            failed: called where logging has left the guest with a device that does not go on.
        """
        self.relaying = Relaying(owned.device, self._relay_ended)
        owned.steps.unblock = self.relaying.thread.unblock
        self.marking = Marking(owned.steps, self.relaying)
        self._mapped: set[MappedRegion] = set()
        self._owned = owned
        self._name = name
        self._listeners = listeners
        self._failed = failed
        self._running: Running | None = None
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

    async def log(self, log: DirtyLog | None) -> None:
        """Marks what is written to it, or no more. Not to be cancelled."""
        before = self.logged
        if self.relaying.is_on:
            await self._go_on(log)
        else:
            self.marking.set_log(log, running=self._running is not None)
            await self._relay()
        if before is None and (logged := self.logged) is not None:
            self._listeners.announce(LoggingBegan(self._name, logged.way))
        elif before is not None and log is None:
            self._listeners.announce(LoggingEnded(self._name, before.way, before.pages))
        self._listeners.logging_changed()

    async def begin(self, running: Running) -> None:
        """A device runs from now on; before any data queue works."""
        self._running = running
        await self._relay()
        self.marking.started()

    def end(self) -> None:
        """It is being stopped, which ends its relay."""
        self._running = None

    async def _go_on(self, log: DirtyLog | None) -> None:
        if log is not None:
            # From here on others hand over to this one; what the one before has is taken over.
            self.marking.set_log(log, running=True)
            await self._owned.steps.take(partial(self.relaying.thread.set_log, log))
            return
        if self._running is not None:
            try:
                await self._running.relay_no_more()
            except VdpadError as error:
                self._failed(error)
        self.marking.set_log(None, running=True)

    async def _relay(self) -> None:
        """Relays, where memory is logged and that can be."""
        log = self.marking.log
        if log is None or self._running is None:
            return
        try:
            await self._running.relay(log)
        except CannotRelay:
            # All is marked at the stop.
            return
        except VdpadError as error:
            self._failed(error)

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
