"""A back end to which the system gives no more threads: it refuses, and its guest goes on."""

import asyncio
import socket

import pytest

from tests.backend.vmm import OK, PLAIN, BackEnd, Heard, back_end, vmm
from tests.support.no_means import no_threads
from tests.support.waiting import GUARD
from tests.vhost_user.conftest import mappings
from tests.vhost_user.front_end import NOT_A_FLAG_OF_OURS, REM_MEM_REG, FrontEnd, single
from tests.vhost_user.log_file import log_file, pages_in
from vdpad.backend.device import BackEndDevice
from vdpad.backend.events import LoggingBegan
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.virtio.bits import mask_of
from vdpad.virtio.commands import VlanAdd
from vdpad.wire.user_threads import NoThread


class Suspended(LoopDevice):
    """Counts how often it was."""

    def __init__(self) -> None:
        super().__init__()
        self.suspensions = 0

    def suspend(self) -> None:
        self.suspensions += 1
        super().suspend()


async def test_a_guest_s_whole_life(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first message on: memory comes, is logged, and is let go of."""
    before = mappings()
    async with back_end(heard=heard) as on:
        no_threads(monkeypatch)
        with log_file(1 << 31 >> 15) as log:
            async with vmm(on) as machine:
                await machine.start()
                assert await machine.loop(b"before") == b"before"
                await machine.log(log)
                await machine.log(log)
                assert await machine.command(VlanAdd(7).encode()) == OK
                assert await machine.loop(b"meanwhile") == b"meanwhile"
                await machine.stop()
                assert machine.guest.pages <= pages_in(log)
                await machine.log_no_more()
        assert on.refusals == []
        assert not on.device.is_running
        assert mappings() == before
    (began,) = (each for each in heard.events if isinstance(each, LoggingBegan))
    assert began.way == "everything"


async def test_a_device_whose_memory_is_logged_is_not_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Suspended()
    async with back_end(device) as on, vmm(on) as machine:
        await machine.start()
        no_threads(monkeypatch)
        with log_file(1 << 31 >> 15) as log:
            await machine.log(log)
        assert device.suspensions == 0
        assert await machine.loop(b"on") == b"on"


async def test_a_front_end_that_goes_while_its_memory_is_relayed(
    on: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = mappings()
    with log_file(1 << 31 >> 15) as log:
        async with vmm(on) as machine:
            await machine.start()
            await machine.log(log)
            assert on.device.logged is not None
            assert on.device.logged.way == "relay"
            no_threads(monkeypatch)
    assert not on.device.is_running
    assert mappings() == before


async def test_memory_that_is_taken_away(on: BackEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    serving = asyncio.create_task(on.front_ends.serve(ours))
    async with FrontEnd(theirs) as front_end:
        await front_end.negotiate(mask_of(PLAIN) | NOT_A_FLAG_OF_OURS)
        await front_end.share_memory()
        assert mappings()
        no_threads(monkeypatch)
        memory = front_end.memory
        region = single(memory.GUEST, memory.SIZE, memory.USER, 0)
        await front_end.done(REM_MEM_REG, region)
        assert not mappings()
    async with asyncio.timeout(GUARD):
        await serving


async def test_none_for_the_device_is_an_error_that_leaves_it_closed(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    device = LoopDevice()
    monkeypatch.setattr(device, "close", lambda: closed.append("closed"))
    no_threads(monkeypatch)
    with pytest.raises(NoThread):
        await BackEndDevice.open(device, "nic0", heard.listeners())
    assert closed == ["closed"]
