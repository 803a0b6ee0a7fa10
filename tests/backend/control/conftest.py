"""Fixtures: a device that is served to front ends, and its control sockets."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.backend.shown_device import ShownRecordingDevice
from tests.vhost_user.front_end import FrontEnd
from vdpad.backend.control.api import ControlApi
from vdpad.backend.control.sockets import CONTROL, VARLINK, ControlSockets
from vdpad.backend.overview import Overview
from vdpad.service.events.event import Event
from vdpad.vhost_user.front_ends import FrontEnds


class Controlled:
    """A back end of the tests': front ends, a device, and what is told of them."""

    def __init__(self, folder: Path, allowed: set[int]) -> None:
        self.device = ShownRecordingDevice()
        self.front_ends = FrontEnds(self.device, lambda request, error: None)
        self.overview = Overview(self.device, lambda: self.front_ends.session)
        self.events: list[Event] = []
        self.api = ControlApi("vm-7", self.device, self.overview, allowed, self.events.append)
        self.sockets = ControlSockets(self.api, self.events.append)
        self.paths = {CONTROL: folder / "control", VARLINK: folder / "io.vdpad"}

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
