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
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vdpad.backend.control.api import ControlApi
from vdpad.backend.control.sockets import ControlSockets
from vdpad.backend.device import BackEndDevice
from vdpad.backend.following.follower import Follower
from vdpad.backend.front_end_socket import listens
from vdpad.backend.kept.kept_state import KeptState
from vdpad.backend.listeners import Listeners
from vdpad.backend.moving.moving import MovedState
from vdpad.backend.overview import Overview
from vdpad.backend.process_events import (
    DeviceStarted,
    DeviceStopped,
    FrontEndCame,
    FrontEndLeft,
    FrontEndRefused,
    SettingsDropped,
)
from vdpad.errors import VdpadError
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.restore.report import Report
from vdpad.service import log
from vdpad.service.events.announcing import Announcer
from vdpad.service.textfile import Textfile
from vdpad.service.threads import on_a_thread
from vdpad.state.found import Found
from vdpad.vhost_user.device import Start
from vdpad.vhost_user.front_ends import FrontEnds
from vdpad.vhost_user.session import Session

# Of the control sockets: for this user and root, or for whoever may ask, as each request is held
# against the uids.
_OWN_MODE, _OTHERS_MODE = 0o600, 0o666

# In seconds, as the daemon's by default.
_TEXTFILE_INTERVAL = 15.0


@dataclass(frozen=True, slots=True)
class BackEndOptions:
    """What the command line says of a back end."""

    name: str
    state_directory: Path
    control: Mapping[str, Path]
    """Where the control sockets are bound, by name."""
    allowed: frozenset[int] = frozenset()
    """The uids that may ask there beside our own and root's."""
    shared_address_space: bool = False
    stay: bool = False
    """For the next front end."""
    monitor: Path | None = None
    """The socket of a QMP monitor, by which the filter is followed."""
    card: str | None = None
    """Which card of QEMU's; None for the only one."""
    textfile: Path | None = None
    """Where metrics are written; None for none."""
    rehearses: bool = True
    """Whether a state that comes in by a VMM's stream is tried on the device."""
    inherited: Mapping[str, int] = field(default_factory=dict)
    """Sockets that a service manager has bound, by name."""


@asynccontextmanager
async def opened(
    options: BackEndOptions, opener: Callable[[], ShadowedDevice], announce: Announcer
) -> AsyncIterator["BackEnd"]:
    """A back end whose control sockets listen; at the end of the context all is let go of.

    Args:
        options: all of them.
        opener: opens its device, on a thread.
        announce: told of what an operator wants to know.

    Raises:
        VdpadError: the device, or a socket, cannot be had.
    """
    async with AsyncExitStack() as closing:
        closing.callback(announce.flush)
        back_end = BackEnd(options, announce)
        closing.callback(back_end.kept.close)
        device = await BackEndDevice.open(
            await on_a_thread(opener, "open device"),
            options.name,
            back_end.listeners(),
            shared_address_space=options.shared_address_space,
            follows_filter=options.monitor is not None,
            rehearses=options.rehearses,
        )
        closing.push_async_callback(device.close)
        back_end.attend(device)
        if back_end.follower is not None:
            await closing.enter_async_context(_running(back_end.follower))
        api = ControlApi(
            options.name,
            device,
            back_end.overview,
            back_end.load,
            {0, os.geteuid(), *options.allowed},
            announce,
        )
        sockets = ControlSockets(api, announce)
        closing.push_async_callback(sockets.close)
        mode = _OTHERS_MODE if options.allowed else _OWN_MODE
        await sockets.listen(options.control, options.inherited, mode)
        if options.textfile is not None:
            textfile = _textfile(back_end, api, sockets, options.textfile)
            closing.push_async_callback(textfile.stop)
            textfile.start()
        yield back_end


def _textfile(
    back_end: "BackEnd", api: ControlApi, sockets: ControlSockets, path: Path
) -> Textfile:
    # Here, since it takes 55 ms that nobody else should wait for.
    from vdpad.backend.metrics import BackEndMetrics, BackEndSources

    announce, follower = back_end.announce, back_end.follower
    sources = BackEndSources(
        phase=lambda: back_end.overview.phase,
        commands=lambda: back_end.device.settings.counts,
        follows=None if follower is None else lambda: follower.follows,
        requests=lambda: api.answered,
        datagrams_refused=lambda: sockets.datagrams_refused,
        replies_dropped=lambda: sockets.replies_dropped,
        journal_dropped=log.dropped,
        listener_failures=lambda: announce.failures,
    )
    counted = BackEndMetrics(back_end.name, sources)
    announce.listeners.append(counted.heard)
    return Textfile(path, _TEXTFILE_INTERVAL, counted.render, _at_once, announce)


async def _at_once() -> None:
    """What is urgent, a guest's command, is never more than a millisecond of waiting."""


class BackEnd:
    """One; see `opened`."""

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
        )

    def attend(self, device: BackEndDevice) -> None:
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
        kept = self.kept.recall()
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
            await self._serve(self.front_ends.serve_next(endpoint))
            # What the device says at the end of who is cancelled stands for the cancellation.
            if not self._options.stay or _is_cancelled():
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


@asynccontextmanager
async def _running(follower: Follower) -> AsyncIterator[None]:
    """A follower that follows, for the time of the context."""
    task = asyncio.create_task(follower.run(), name="follower")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
