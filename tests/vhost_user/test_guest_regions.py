"""Regions that go: on a thread, and for good, whatever becomes of whoever waits for it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.waiting import GUARD
from tests.vhost_user.front_end import Memory
from tests.vhost_user.recording_device import RecordingDevice, Unwilling
from vdpad.vhost_user.channel import Attached
from vdpad.vhost_user.guest_regions import GuestRegions
from vdpad.vhost_user.memory_table import MappedRegion
from vdpad.vhost_user.payloads import MemoryRegion

REGION = MemoryRegion(Memory.GUEST, Memory.SIZE, Memory.USER, 0)
NOBODY = -1

pytestmark = pytest.mark.usefixtures("nothing_left")


class Unmapping:
    """Regions' unmapping, which waits until it is let go on."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.done = 0

    def unmap(self, mapped: MappedRegion) -> None:
        self.begun.set()
        assert self.go_on.wait(GUARD)
        _unmap(mapped)
        self.done += 1


_unmap = MappedRegion.unmap


@pytest.fixture
def unmapping(monkeypatch: pytest.MonkeyPatch) -> Unmapping:
    unmapping = Unmapping()
    monkeypatch.setattr(MappedRegion, "unmap", lambda mapped: unmapping.unmap(mapped))
    return unmapping


@pytest.fixture
def memory(nothing_left: None) -> Iterator[Memory]:
    memory = Memory()
    yield memory
    memory.close()


@pytest.fixture
async def regions(device: RecordingDevice) -> AsyncIterator[GuestRegions]:
    regions = GuestRegions(device)
    yield regions
    await regions.release()


async def begun(unmapping: Unmapping) -> None:
    """Returns once a region is being unmapped; the loop runs meanwhile."""
    assert await asyncio.to_thread(unmapping.begun.wait, GUARD)


async def test_who_is_cancelled_meanwhile_leaves_no_mapping(
    regions: GuestRegions, memory: Memory, unmapping: Unmapping
) -> None:
    await regions.add(REGION, Attached(NOBODY, [memory.fd]))
    removing = asyncio.create_task(regions.remove(REGION, []))
    await begun(unmapping)
    removing.cancel()
    await asyncio.sleep(0.01)
    assert not removing.done()
    unmapping.go_on.set()
    await asyncio.wait([removing])
    assert removing.cancelled()
    assert unmapping.done == 1


async def test_what_the_device_does_not_take_holds_up_nobody(
    regions: GuestRegions, device: RecordingDevice, memory: Memory, unmapping: Unmapping
) -> None:
    device.unwilling = {"add_memory"}
    adding = asyncio.create_task(regions.add(REGION, Attached(NOBODY, [memory.fd])))
    await begun(unmapping)
    unmapping.go_on.set()
    with pytest.raises(Unwilling):
        await adding
    assert unmapping.done == 1
    assert list(regions.table) == []
