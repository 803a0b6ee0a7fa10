"""A session that is cancelled while its device maps memory: nothing of it stays mapped."""

import asyncio
import socket
import threading

import pytest

from tests.backend.vmm import PLAIN, back_end
from tests.support.waiting import until
from tests.vhost_user import front_end as page
from tests.vhost_user.conftest import mappings
from tests.vhost_user.front_end import FrontEnd
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.virtio.bits import mask_of
from vdpad.virtio.rings import Region


class SlowlyMapping(LoopDevice):
    """Maps or unmaps when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = ""
        self.began = threading.Event()
        self.may = threading.Event()

    def map(self, region: Region, view: memoryview) -> None:
        self._wait("map")
        super().map(region, view)

    def unmap(self, region: Region) -> None:
        self._wait("unmap")
        super().unmap(region)

    def _wait(self, step: str) -> None:
        if step == self.slow:
            self.began.set()
            self.may.wait()


@pytest.mark.parametrize("slow", ["map", "unmap"])
async def test_cancelled_while_memory_comes_or_goes(slow: str) -> None:
    device, before = SlowlyMapping(), mappings()
    ours, theirs = socket.socketpair()
    async with back_end(device) as on, FrontEnd(theirs) as front_end:
        session = asyncio.create_task(on.front_ends.serve(ours))
        await front_end.negotiate(mask_of(PLAIN) | page.NOT_A_FLAG_OF_OURS)
        memory = page.single(page.Memory.GUEST, page.Memory.SIZE, page.Memory.USER, 0)
        if slow == "unmap":
            await front_end.share_memory()
        device.slow = slow
        adds = slow == "map"
        fds = [front_end.memory.fd] if adds else []
        await front_end.send(page.ADD_MEM_REG if adds else page.REM_MEM_REG, memory, fds)
        await until(device.began.is_set)
        session.cancel()
        await asyncio.sleep(0.01)
        too_early = session.done()
        device.may.set()
        await asyncio.wait([session])
        assert not too_early
        assert session.cancelled()
        assert mappings() == before
