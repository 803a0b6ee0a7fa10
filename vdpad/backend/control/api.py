"""The control socket's API: a request becomes a result, or a refusal. docs/api.md.

It knows no way that requests come, as the daemon's. They are checked in this order, and the first
thing that is wrong is answered: the method's name, whether the sender may speak, the parameters.
Only `load` and `switch` change anything, and have a device to themselves meanwhile.
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import vdpad
from vdpad.api.params import NoParams
from vdpad.api.results import CheckResult
from vdpad.api.targets import SoftwareParams, VhostVdpaParams
from vdpad.backend.control.methods import METHODS, WATCH, plain
from vdpad.backend.control.params import CheckStateParams, LoadParams, SwitchParams, read_params
from vdpad.backend.control.refused import refusal_of
from vdpad.backend.control.results import (
    BackEndInfoResult,
    BackEndLimitsResult,
    BackEndStatusResult,
    CaptureResult,
)
from vdpad.backend.moving.moving import MovedState
from vdpad.backend.moving.switching import Opener, SwitchReport
from vdpad.backend.opening import open_node, open_software, open_vhost_vdpa
from vdpad.backend.overview import Overview
from vdpad.backend.shown import ShownDevice
from vdpad.restore.report import MAX_LINES, Report
from vdpad.service.answering import Answering, SenderNotAllowed, refuse_unknown_uid
from vdpad.service.events.announcing import Announce
from vdpad.service.events.event import Event
from vdpad.service.events.kinds import NotAllowed
from vdpad.service.refusal import Kind, Refusal
from vdpad.service.request import Request
from vdpad.state.formats.device_state import bases_of, missing_of

API_VERSION = 1

Load = Callable[[MovedState], Awaitable[Report]]
"""Tries a state and takes it; raises as Moving.take."""

Switch = Callable[[Opener], Awaitable[SwitchReport]]
"""Puts another device in the place of the back end's; raises as Switching.switch."""


class ControlApi:
    """All methods, over one back end."""

    def __init__(
        self,
        name: str,
        device: ShownDevice,
        overview: Overview,
        load: Load,
        switch: Switch,
        allowed: Collection[int],
        announce: Announce,
    ) -> None:
        """
        Args:
            name: the back end's.
            device: its device.
            overview: of both, and of the front end.
            load: tries a state on the device and takes it.
            switch: has another device take over.
            allowed: the uids that may ask.
            announce: told of who may not, and of faults of ours.
        """
        self._name = name
        self._device = device
        self._overview = overview
        self._allowed = allowed
        self._load_state = load
        self._switch_device = switch
        self._methods: Mapping[str, Callable[[Request], Awaitable[object]]] = {
            "info": self._info,
            "status": self._status,
            "capture": self._capture,
            "check": self._check,
            "load": self._load,
            "switch": self._switch,
        }
        self._answering = Answering((*METHODS, WATCH), refusal_of, announce)

    @property
    def answered(self) -> Mapping[tuple[str, str], int]:
        """Requests by method and how they were answered: "ok", or the error's kind."""
        return self._answering.counts

    async def call(self, request: Request) -> Any:
        """The result of a request; see Served."""
        with self._answering.refusing(request, _event_of(request)):
            method = self._methods.get(request.method)
            if method is None:
                there = ", ".join(self._methods)
                raise Refusal(Kind.METHOD_NOT_FOUND, f"expected one of the methods {there}")
            self._refuse_unless_allowed(request)
            result = plain(request.method, await method(request))
        self._answering.done(request.method)
        return result

    async def watch(self, request: Request) -> AsyncGenerator[Any]:
        """What `status` tells, now and whenever it is something else. Ends when it is closed.

        Raises:
            Refusal: not-allowed, invalid-params.
        """
        with self._answering.refusing(request, _event_of(request)):
            self._refuse_unless_allowed(request)
            read_params(NoParams, request)
            self._answering.done(WATCH)
            async with contextlib.aclosing(self._overview.changes()) as changes:
                async for each in changes:
                    yield plain("status", each)

    def refused(self, refusal: Refusal, method: object = None) -> None:
        """Counts what was refused before it was a request."""
        self._answering.refused(refusal, method)

    def _refuse_unless_allowed(self, request: Request) -> None:
        refuse_unknown_uid(self._allowed, request.peer, "option --allow-uid")

    # --- the methods ---

    async def _info(self, request: Request) -> BackEndInfoResult:
        read_params(NoParams, request)
        return BackEndInfoResult(
            name=self._name,
            version=vdpad.__version__,
            api=API_VERSION,
            device=self._device.device_name,
            provides_control_queue=self._device.shadows,
            limits=BackEndLimitsResult(datagram_bytes=request.peer.limit, report_lines=MAX_LINES),
        )

    async def _status(self, request: Request) -> BackEndStatusResult:
        read_params(NoParams, request)
        return self._overview.status()

    async def _capture(self, request: Request) -> CaptureResult:
        read_params(NoParams, request)
        return self._overview.capture()

    async def _check(self, request: Request) -> CheckResult:
        state = read_params(CheckStateParams, request).state
        terms = self._device.terms(state.features)
        return CheckResult.of(state, terms.capabilities, terms.geometry, event_idx=terms.event_idx)

    async def _load(self, request: Request) -> Report:
        params = read_params(LoadParams, request)
        missing, bases = missing_of(params.missing), bases_of(params.rings)
        return await self._load_state(MovedState(params.state, missing, bases))

    async def _switch(self, request: Request) -> SwitchReport:
        return await self._switch_device(_opener(read_params(SwitchParams, request).target))


def _opener(target: SoftwareParams | VhostVdpaParams) -> Opener:
    if isinstance(target, SoftwareParams):
        return partial(open_software, target.name)
    if target.path:
        return partial(open_node, Path(target.path))
    return partial(open_vhost_vdpa, target.device)


def _event_of(request: Request) -> Callable[[Refusal], Event | None]:
    """The event for a refusal of a request: only of senders who may not speak."""
    method = request.method

    def event(refusal: Refusal) -> Event | None:
        known = method if method in (*METHODS, WATCH) else ""
        return NotAllowed(known, str(refusal)) if isinstance(refusal, SenderNotAllowed) else None

    return event
