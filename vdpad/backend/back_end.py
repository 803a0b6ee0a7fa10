"""A back end as a whole: a device, whoever is given it, what is kept, and the control sockets.

    front end ──▶ FrontEnds ──▶ BackEndDevice ──▶ the device
                                      │ listeners
                                      ├──▶ KeptState    before the guest hears of an ack
                                      └──▶ Overview ──▶ the control sockets

How it works. What an earlier process kept is read before a front end is let in, and given to the
device at its next start if the guest goes on. It is one user's: a front end of another begins with
nothing. Serving ends when the front end has gone, unless the back end is to stay; then the next one
finds everything as the one before left it. Whatever ends it, the device is stopped first, and what
the guest had set stays in the state directory.
"""

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

from vdpad.backend.device import BackEndDevice
from vdpad.backend.following.follower import Follower
from vdpad.backend.front_end_socket import listens, place_of
from vdpad.backend.kept.file import Kept
from vdpad.backend.kept.kept_addresses import KeptAddresses
from vdpad.backend.kept.kept_state import KeptState
from vdpad.backend.listeners import Listeners
from vdpad.backend.moving.moving import MovedState
from vdpad.backend.options import BackEndOptions
from vdpad.backend.overview import Overview
from vdpad.backend.process_events import (
    DeviceStarted,
    DeviceStopped,
    FrontEndAwaited,
    FrontEndCame,
    FrontEndLeft,
    FrontEndRefused,
    SettingsDropped,
)
from vdpad.errors import VdpadError
from vdpad.restore.report import Report
from vdpad.service.events.announcing import Announcer
from vdpad.state.found import Found
from vdpad.vhost_user.device import Start
from vdpad.vhost_user.front_ends import FrontEnds
from vdpad.vhost_user.session import Session
from vdpad.vhost_user.to_its_end import is_cancelled


class BackEnd:
    """One; `opened` of assembly.py makes it."""

    device: BackEndDevice
    front_ends: FrontEnds
    overview: Overview
    follower: Follower | None = None
    """Of the guest's filter, where a monitor tells it."""

    def __init__(self, options: BackEndOptions, announce: Announcer) -> None:
        """Without a device, until `attend`."""
        self.name = options.name
        self.announce = announce
        """Told of what an operator wants to know."""
        self._options = options
        self.kept = KeptState(options.name, options.state_directory, self._found, announce)
        self.kept_addresses = KeptAddresses(options.name, self.kept.directory, announce)
        self._owner: int | None = None
        """The uid whose guest's the settings are."""
        self._came = False
        """Whether the front end that is waited for has come."""

    def listeners(self) -> Listeners:
        """What its device is to tell whom."""
        return Listeners(
            announce=self.announce,
            config_changed=self._config_changed,
            settings_changed=self._changed,
            logging_changed=self._changed,
            loaded=self._loaded,
            began=self._began,
            acknowledged=self.kept.note,
            started=self._started,
            stopped=self._stopped,
            taken_over=self._taken_over,
        )

    def attend(self, device: BackEndDevice, kept: Kept | None) -> None:
        """Takes a device that was just opened, and gives it what an earlier process kept."""
        self.device = device
        self.front_ends = FrontEnds(device, self._refused, self._session_changed)
        if self._options.monitor is not None:
            self.follower = Follower(
                self._options.name,
                self._options.monitor,
                self._options.card,
                device,
                self.announce,
            )
        with_filter = (lambda found: found) if self.follower is None else self.follower.found
        self.overview = Overview(device, lambda: self.front_ends.session, with_filter)
        self.kept_addresses.keep(device.addresses)
        if kept is not None:
            device.settings.recall(kept.recorder, kept.features, kept.bases)
            self._owner = kept.uid

    async def load(self, moved: MovedState) -> Report:
        """Tries a state and takes it for the next guest that goes on; as of Moving.take."""
        report = await self.device.moving.take(moved, tried=True)
        assert report is not None
        return report

    async def serve(self, endpoint: socket.socket) -> None:
        """Gives the device to front ends. On cancellation the device is stopped first.

        Args:
            endpoint: where front ends connect, which stays the caller's; or one's connection.
        """
        if not listens(endpoint):
            await self._serve(self.front_ends.serve(endpoint))
            return
        while True:
            self.announce(FrontEndAwaited(self._options.name, place_of(endpoint)))
            await self._serve(self.front_ends.serve_next(endpoint))
            # What the device says at the end of who is cancelled stands for the cancellation.
            if not self._options.stay or is_cancelled():
                return

    # --- front ends ---

    async def _serve(self, serving: Coroutine[Any, Any, None]) -> None:
        """Serves one, and tells how that ended."""
        self._came, reason = False, ""
        try:
            await serving
        except VdpadError as error:
            reason = str(error)
        except asyncio.CancelledError:
            if self._came:
                self.announce(FrontEndLeft(self._options.name, "the back end was told to end"))
            raise
        self.announce(FrontEndLeft(self._options.name, reason))

    def _session_changed(self, session: Session | None) -> None:
        if session is not None:
            self._came = True
            front_end = session.front_end
            self.announce(FrontEndCame(self._options.name, front_end.pid, front_end.uid))
            self._begin_with(front_end.uid)
        self._changed()

    def _begin_with(self, uid: int) -> None:
        """What another user's guest has set is no business of this one's."""
        if self._owner is not None and self._owner != uid:
            if self.device.settings.are_known:
                self.announce(SettingsDropped(self._options.name, self._owner, uid))
            self.device.settings.forget()
            self.kept.forget()
        self._owner = uid

    def _refused(self, request: str, error: VdpadError) -> None:
        self.announce(FrontEndRefused(self._options.name, request, str(error)))

    # --- what the device tells ---

    def _found(self) -> Found | None:
        return self.device.settings.found()

    def _loaded(self) -> None:
        if self.front_ends.session is None:
            # It came for the next front end, whoever that is.
            self._owner = None
        self._keep()

    def _began(self, _start: Start) -> None:
        self._keep()

    def _started(self, start: Start) -> None:
        queues, goes_on = len(start.vrings), not start.is_fresh
        self.announce(DeviceStarted(self._options.name, queues, goes_on))
        if self.follower is not None:
            self.follower.started()
        self._changed()

    def _stopped(self) -> None:
        self.announce(DeviceStopped(self._options.name))
        if self.follower is not None:
            self.follower.stopped()
        self._keep()

    def _taken_over(self) -> None:
        self.kept_addresses.keep(self.device.addresses)
        if self.follower is not None and self.device.is_running:
            self.follower.started()
        self._keep()

    def _keep(self) -> None:
        self.kept.begin(self._owner, self.device.settings.bases)
        self._changed()

    def _config_changed(self) -> None:
        session = self.front_ends.session
        if session is not None:
            session.config_changed()
        self._changed()

    def _changed(self) -> None:
        if not self.device.settings.are_known:
            self.kept.forget()
        self.overview.changed()
