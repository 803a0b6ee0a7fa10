"""A back end as a whole, where no process of its own is needed to see it."""

import asyncio
import socket
from pathlib import Path
from typing import cast

from tests.support.waiting import GUARD
from vdpad.backend.back_end import BackEnd
from vdpad.backend.faults import BackEndError
from vdpad.backend.options import BackEndOptions
from vdpad.service.events.announcing import Announcer
from vdpad.vhost_user.front_ends import FrontEnds


class _Unwilling:
    """A front end's device cannot be stopped as it should when it is to be."""

    def __init__(self) -> None:
        self.served = 0

    async def serve_next(self, _listener: socket.socket) -> None:
        self.served += 1
        try:
            await asyncio.Event().wait()
        finally:
            raise BackEndError("expected a device that can be reset, it cannot")


async def test_one_that_stays_ends_also_where_its_device_cannot_be_stopped(tmp_path: Path) -> None:
    options = BackEndOptions("net0", tmp_path / "state", control={}, stay=True)
    back_end = BackEnd(options, Announcer())
    front_ends = _Unwilling()
    back_end.front_ends = cast(FrontEnds, front_ends)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "front-end"))
        listener.listen()
        serving = asyncio.create_task(back_end.serve(listener))
        await asyncio.sleep(0)
        serving.cancel()
        await asyncio.wait([serving], timeout=GUARD)
    back_end.kept.close()
    assert serving.done()
    assert front_ends.served == 1
