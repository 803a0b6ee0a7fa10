"""A back end in the test's process, for front ends that nobody here wrote."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.descriptors import no_descriptor_left
from tests.support.waiting import GUARD
from tests.vhost_user.recording_device import RecordingDevice
from vdpad.errors import VdpadError
from vdpad.vhost_user.device import Start
from vdpad.vhost_user.front_ends import FrontEnds


@dataclass
class BackEnd:
    """A back end in this process, which front ends are served by one after the other."""

    path: Path
    device: RecordingDevice
    refusals: list[str] = field(default_factory=list)
    ends: list[VdpadError | None] = field(default_factory=list)
    """What each session came to."""

    def __post_init__(self) -> None:
        self.front_ends = FrontEnds(self.device, self._refused)
        self.session: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Listens until it is cancelled. A session that is cancelled makes room for the next."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self.path))
            listener.listen()
            listener.setblocking(False)
            while True:
                self.session = asyncio.create_task(self.front_ends.serve_next(listener))
                try:
                    await asyncio.wait([self.session])
                finally:
                    self.session.cancel()
                    await asyncio.wait([self.session])
                if not self.session.cancelled():
                    error = self.session.exception()
                    assert error is None or isinstance(error, VdpadError)
                    self.ends.append(error)

    async def until(self, true: Callable[[], object]) -> None:
        """Returns once something holds that changes with what the device is asked for."""
        async with asyncio.timeout(GUARD):
            await self.device.until(true)

    async def start(self, number: int) -> Start:
        """The device's start of this number, from 1 on, once it has come."""
        await self.until(lambda: len(self.device.starts) >= number and self.device.started)
        assert len(self.device.starts) == number
        return self.device.starts[-1]

    async def stop(self, number: int) -> None:
        """Returns once the device was stopped so often."""
        await self.until(lambda: self.device.did.count("stop") == number)

    def _refused(self, request: str, error: VdpadError) -> None:
        self.refusals.append(f"{request}: {error}")


@asynccontextmanager
async def back_end(path: Path, device: RecordingDevice) -> AsyncIterator[BackEnd]:
    """A back end that listens; at the end it has refused nothing, and nothing of it is left."""
    with no_descriptor_left():
        served = BackEnd(path, device)
        serving = asyncio.create_task(served.serve())
        await asyncio.sleep(0)
        yield served
        serving.cancel()
        await asyncio.wait([serving])
    assert serving.cancelled(), serving.exception()
    assert served.refusals == []
    assert served.ends == [None] * len(served.ends)
    assert served.device.started is None
    assert served.device.mapped == []
