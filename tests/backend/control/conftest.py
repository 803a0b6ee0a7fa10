"""Fixtures: a device that is served to front ends, and its control sockets."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tests.backend.shown_device import ShownRecordingDevice
from tests.vhost_user.front_end import FrontEnd
from vdpad.backend.control.api import ControlApi
from vdpad.backend.control.sockets import CONTROL, VARLINK, ControlSockets
from vdpad.backend.moving.moving import MovedState
from vdpad.backend.moving.switching import Opener, SwitchReport
from vdpad.backend.overview import Overview
from vdpad.errors import VdpadError
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.restore.replay import Outcome
from vdpad.restore.report import Line, Report
from vdpad.service.events.event import Event
from vdpad.vhost_user.front_ends import FrontEnds


def report_of(outcome: Outcome) -> Report:
    """What became of two commands, of which the second was not applied where not all were."""
    lines = () if outcome is Outcome.RESTORED else (Line(1, "VLAN_ADD", "vid=8", 1),)
    return Report(
        migration="vm-7",
        outcome=outcome,
        commands=2,
        applied=2 - len(lines),
        rejected=lines,
        unanswered=(),
        rejected_total=len(lines),
        unanswered_total=0,
        doorbells=1,
        widened=(),
        prepare_us=3,
        commit_us=4,
        ring=None,
        device_must_reset=False,
    )


def vars_of(report: Report) -> dict[str, Any]:
    """A report's fields."""
    return {each.name: getattr(report, each.name) for each in fields(report)}


class Controlled:
    """A back end of the tests': front ends, a device, and what is told of them."""

    def __init__(self, folder: Path, allowed: set[int]) -> None:
        self.device = ShownRecordingDevice()
        self.front_ends = FrontEnds(self.device, lambda request, error: None)
        self.overview = Overview(self.device, lambda: self.front_ends.session)
        self.events: list[Event] = []
        self.loaded: list[MovedState] = []
        self.refuses: VdpadError | None = None
        """What becomes of a state that is loaded."""
        self.switched: list[ShadowedDevice] = []
        self.api = ControlApi(
            "vm-7",
            self.device,
            self.overview,
            self._load,
            self._switch,
            allowed,
            self.events.append,
        )
        self.sockets = ControlSockets(self.api, self.events.append)
        self.paths = {CONTROL: folder / "control", VARLINK: folder / "io.vdpad"}

    async def _load(self, moved: MovedState) -> Report:
        if self.refuses is not None:
            raise self.refuses
        self.loaded.append(moved)
        return report_of(Outcome.RESTORED)

    async def _switch(self, opener: Opener) -> SwitchReport:
        if self.refuses is not None:
            raise self.refuses
        self.switched.append(opener())
        return SwitchReport(**vars_of(report_of(Outcome.RESTORED)), paused_us=42)

    @asynccontextmanager
    async def front_end(self) -> AsyncIterator[FrontEnd]:
        """One that is served, until the context ends."""
        ours, theirs = socket.socketpair()
        front_end = FrontEnd(theirs)
        task = asyncio.create_task(self.front_ends.serve(ours))
        try:
            yield front_end
        finally:
            front_end.close()
            await task


@pytest.fixture
async def controlled(tmp_path: Path) -> AsyncIterator[Controlled]:
    back_end = Controlled(tmp_path, {os.getuid()})
    await back_end.sockets.listen(back_end.paths, {}, 0o600)
    yield back_end
    await back_end.sockets.close()
