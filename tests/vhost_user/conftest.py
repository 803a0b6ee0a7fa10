"""Fixtures: a device, somebody who serves it, and that nothing is left of either."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.descriptors import no_descriptor_left
from tests.support.waiting import GUARD
from tests.vhost_user.front_end import FrontEnd
from tests.vhost_user.recording_device import RecordingDevice
from vdpad.errors import VdpadError
from vdpad.vhost_user.front_ends import FrontEnds
from vdpad.vhost_user.session import Session


class Served:
    """A session with the tests' front end."""

    def __init__(self, device: RecordingDevice, front_end: FrontEnd) -> None:
        self.device = device
        self.front_end = front_end
        self.refusals: list[str] = []
        self.front_ends = FrontEnds(device, self._refused)
        self.task: asyncio.Task[None] | None = None

    @property
    def session(self) -> Session:
        """That of the front end, while it is served."""
        assert self.front_ends.session is not None
        return self.front_ends.session

    async def end(self) -> VdpadError | None:
        """What the session came to, once it has ended."""
        assert self.task is not None
        async with asyncio.timeout(GUARD):
            await asyncio.wait([self.task])
        error = self.task.exception()
        assert error is None or isinstance(error, VdpadError)
        return error

    def _refused(self, request: str, error: VdpadError) -> None:
        self.refusals.append(f"{request}: {error}")


@asynccontextmanager
async def serving(device: RecordingDevice) -> AsyncIterator[Served]:
    """A front end on a socket pair; at the end it goes, and nothing may be left of it."""
    ours, theirs = socket.socketpair()
    served = Served(device, FrontEnd(theirs))
    served.task = asyncio.create_task(served.front_ends.serve(ours))
    try:
        yield served
    finally:
        served.front_end.close()
        await served.end()
        assert device.started is None
        assert device.mapped == []


def mappings() -> list[str]:
    """All that this process has mapped of a front end's memory."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in maps if "front-end-memory" in line]


@pytest.fixture
def device() -> RecordingDevice:
    return RecordingDevice()


@pytest.fixture
async def served(nothing_left: None, device: RecordingDevice) -> AsyncIterator[Served]:
    async with serving(device) as served:
        yield served


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Neither descriptors nor mappings."""
    before = mappings()
    with no_descriptor_left():
        yield
    assert mappings() == before
