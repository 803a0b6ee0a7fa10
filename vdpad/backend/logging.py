"""The front end's log of a guest's memory comes and goes, while its device is stopped or runs.

How it works. Where the device is stopped, nothing else changes: it is given our rings when it
starts (relaying.py). One that runs and can be resumed is switched to them, and back. One that can
be suspended, and then only be reset, is *restarted*: suspended, it says where its queues stand;
after the reset it is brought up with our rings, or with the guest's again, is given what the guest
has set, and its queues go on. Its packets wait meanwhile, and its guest hears of nothing.

A restart takes what the guest has set from the device. So logging does not begin by one where not
all of it is known here, nor on a device whose guest was told to reset it. Nor does it on one that
cannot be suspended: who knows where it stands may find that its driver begins a ring nowhere but at
0, when it is too late. Such devices run on as they are, and all is marked at the stop (marking.py).
One that has failed since is left reset when logging ends; its guest knows.

A device that does not come up with our rings goes on with the guest's, and is not tried again. One
that does not come up with these either has failed, and its guest is told. Meanwhile nobody else
brings it up: the front end waits, and so does a switch to another device.
"""

import asyncio
from contextlib import suppress
from functools import partial

from vdpad.backend.device_lifecycle import DeviceLifecycle
from vdpad.backend.driving import left_at
from vdpad.backend.events import LoggingBegan, LoggingEnded
from vdpad.backend.faults import BackEndError
from vdpad.backend.guest_settings import GuestSettings
from vdpad.backend.listeners import Listeners
from vdpad.backend.marking import Logged
from vdpad.backend.owned_device import OwnedDevice
from vdpad.backend.relaying import CannotRelay
from vdpad.backend.running import Running
from vdpad.errors import VdpadError
from vdpad.vhost_user.device import Start
from vdpad.vhost_user.dirty_log import DirtyLog


class Logging:
    """That of one device."""

    def __init__(
        self,
        owned: OwnedDevice,
        lifecycle: DeviceLifecycle,
        settings: GuestSettings,
        name: str,
        listeners: Listeners,
    ) -> None:
        """There is no log.

        Args:
            owned: the device.
            lifecycle: the device's.
            settings: what the guest has set.
            name: of the back end.
            listeners: who is told.
        """
        self._owned = owned
        self._lifecycle = lifecycle
        self._settings = settings
        self._name = name
        self._listeners = listeners
        self._relaying = lifecycle.memory.relaying
        self._marking = lifecycle.memory.marking
        self._before: Logged | None = None
        """How memory was logged when the log last changed, with all that was marked till then."""

    async def log(self, log: DirtyLog | None, turn: asyncio.Lock) -> None:
        """Marks what is written to memory, or no more. Not to be cancelled.

        Where its device does not go on, the guest is told.

        Args:
            log: where.
            turn: of whoever brings the device up.
        """
        running = self._lifecycle.running
        if running is not None and self._is_for_restart(running, log):
            async with turn:
                await self._restart(running.start, log)
        elif log is None:
            await self._end()
        elif self._relaying.is_on:
            await self._replace(log)
        else:
            await self._begin(log)
        self._tell()

    def _tell(self) -> None:
        before, now = self._before, self._marking.logged
        if before is None and now is not None:
            self._listeners.announce(LoggingBegan(self._name, now.way))
        elif before is not None and now is None:
            self._listeners.announce(LoggingEnded(self._name, before.way, before.pages))
        self._listeners.logging_changed()

    # --- of a device in any state ---

    async def _begin(self, log: DirtyLog) -> None:
        self._set(log)
        running = self._lifecycle.running
        if running is None:
            return
        try:
            await running.relay(log)
        except CannotRelay:
            # All is marked at the stop.
            return
        except VdpadError as error:
            self._lifecycle.fail(error)

    async def _replace(self, log: DirtyLog) -> None:
        """Marks elsewhere, while a device is relayed."""
        # From here on others hand over to this one; what the one before has is taken over.
        self._set(log)
        await self._owned.steps.take(partial(self._relaying.thread.set_log, log))

    async def _end(self) -> None:
        running = self._lifecycle.running
        if running is not None and self._relaying.is_on:
            try:
                await running.relay_no_more()
            except VdpadError as error:
                self._lifecycle.fail(error)
        self._set(None)

    def _set(self, log: DirtyLog | None) -> None:
        self._before = self._marking.logged
        self._marking.set_log(log, running=self._lifecycle.is_running)

    # --- a restart ---

    def _is_for_restart(self, running: Running, log: DirtyLog | None) -> bool:
        """Whether a device that runs is restarted for this log, or for the end of one."""
        if self._owned.device.can_resume:
            return False
        if log is None:
            return self._relaying.is_on
        if self._marking.log is not None or not self._relaying.starts_on_ours:
            return False
        is_known = self._settings.are_whole or not running.has_control_queue
        return is_known and not self._lifecycle.failure

    async def _restart(self, start: Start, log: DirtyLog | None) -> None:
        failure = self._lifecycle.failure
        try:
            await self._lifecycle.leave()
        except VdpadError:
            # It is reset all the same, and does not tell where it stood.
            self._relaying.has_refused = True
        self._set(log)
        if failure:
            self._lifecycle.lose(BackEndError(failure))
        else:
            await self._come_up(start)

    async def _come_up(self, start: Start) -> None:
        with suppress(VdpadError):
            await self._go_on(start)
            return
        self._relaying.has_refused = True
        try:
            await self._go_on(start)
        except VdpadError as error:
            name = self._owned.name
            lost = f"{name} was reset to log memory, and does not come up again: {error}"
            self._lifecycle.lose(BackEndError(f"{lost}; reset the guest's device"))

    async def _go_on(self, start: Start) -> None:
        await self._lifecycle.take_over(left_at(start, self._settings.bases))
        self._listeners.taken_over()
