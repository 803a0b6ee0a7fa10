"""A back end's device, started and stopped by the tests' front end, on the software device."""

import asyncio
import threading

import pytest

from tests.backend.devices import NeverSuspended
from tests.backend.vmm import (
    ERR,
    OK,
    PLAIN,
    BackEnd,
    Heard,
    back_end,
    breaks_with_a_command,
    settings,
    until_failed,
    vmm,
    waits_for_ever,
)
from tests.support.guest import Guest
from tests.support.waiting import until
from tests.vhost_user.front_end import GET_VRING_BASE, RESET_DEVICE, state
from vdpad.backend.device_lifecycle import Status
from vdpad.backend.events import DeviceFailed, GuestRestored
from vdpad.backend.faults import CannotSwitch
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.vhost_user.faults import BasesUnknown
from vdpad.virtio.commands import VlanAdd
from vdpad.virtio.features import Feature


async def test_a_pause_loses_nothing_that_the_guest_has_set(on: BackEnd, heard: Heard) -> None:
    async with vmm(on) as machine:
        await machine.start()
        for vid in (5, 6):
            assert await machine.command(VlanAdd(vid).encode()) == OK
        assert await machine.loop(b"packet") == b"packet"
        assert await machine.pause() == [1, 1, 0, 0, 0, 0, 0, 0, 2]
        # As the device refuses an id that it has.
        assert await machine.command(VlanAdd(5).encode()) == ERR
        assert await machine.command(VlanAdd(8).encode()) == OK
        assert await machine.loop(b"again") == b"again"
        assert settings(on)["vlans"] == [5, 6, 8]
    (restored,) = heard.events
    assert isinstance(restored, GuestRestored)
    assert on.device.report is not None
    assert restored.commands == on.device.report.applied == 2


async def test_a_reset_begins_with_nothing(on: BackEnd, heard: Heard) -> None:
    async with vmm(on) as machine:
        await machine.start()
        assert await machine.command(VlanAdd(5).encode()) == OK
        await machine.stop()
    async with vmm(on) as machine:
        await machine.start()
        assert "vlans" not in settings(on)
        assert await machine.command(VlanAdd(5).encode()) == OK
    assert heard.events == []


async def test_a_bad_chain_fails_the_device_and_a_new_start_mends_it(
    on: BackEnd, heard: Heard
) -> None:
    async with vmm(on) as machine:
        await machine.start()
        machine.control.send([b"\x01"], [1])
        await until_failed(on)
        assert on.device.needs_reset
        assert heard.config_changes == 1
        (event,) = heard.events
        assert isinstance(event, DeviceFailed)
        assert "expected a class and a command" in event.reason
        assert await machine.loop(b"packet") == b"packet"
        await machine.stop()
        assert not on.device.needs_reset
        assert on.device.status is Status.FAILED
    async with vmm(on) as machine:
        await machine.start()
        assert on.device.status is Status.RUNNING
        assert await machine.command(VlanAdd(9).encode()) == OK


async def test_a_device_that_needs_a_reset_fails_and_its_guest_is_told(
    on: BackEnd, heard: Heard
) -> None:
    async with vmm(on) as machine:
        await machine.start()
        machine.guest.queues[1].send([b"no header"], [])
        await until_failed(on)
        assert on.device.needs_reset
        assert heard.config_changes == 1
        (event,) = heard.events
        assert isinstance(event, DeviceFailed)
        await machine.stop()
        assert not on.device.needs_reset


# --- stopping ---


async def test_without_suspend_the_used_rings_say_where_one_in_order_stands() -> None:
    async with back_end(NeverSuspended(), in_order=True) as on, vmm(on) as machine:
        await machine.start()
        for _ in range(3):
            await machine.loop(b"packet")
        await machine.loop(b"packet", pair=1)
        assert await machine.pause() == [3, 3, 1, 1, 0, 0, 0, 0, 0]
        assert await machine.loop(b"again") == b"again"


async def test_so_they_do_of_a_guest_that_has_in_order() -> None:
    """Nobody need say it then; of a guest that has not taken it the device promises nothing."""
    features = PLAIN | {Feature.IN_ORDER}
    async with back_end(NeverSuspended()) as on, vmm(on, features=features) as machine:
        await machine.start()
        assert await machine.command(VlanAdd(5).encode()) == OK
        for _ in range(3):
            await machine.loop(b"packet")
        assert await machine.pause() == [3, 3, 0, 0, 0, 0, 0, 0, 1]
        assert await machine.loop(b"again") == b"again"
        await on.device.switching.switch(LoopDevice)
        assert await machine.loop(b"elsewhere") == b"elsewhere"
        assert settings(on)["vlans"] == [5]
    assert on.refusals == []


async def test_of_one_that_is_not_known_to_work_in_order_nobody_is_told_where_it_stands() -> None:
    async with back_end(NeverSuspended()) as on, vmm(on) as machine:
        await machine.start()
        assert await machine.command(VlanAdd(5).encode()) == OK
        await machine.loop(b"packet")
        for index in range(8):
            assert await machine.front_end.ask(GET_VRING_BASE, state(index, 0)) == b""
        # The guest's control queue is ours to serve.
        assert await machine.front_end.base(8) == 1
        assert on.device.status is Status.STOPPED
        assert "works in order; start the back end with --in-order if it does" in on.refusals[0]
        # As QEMU does then, by the used rings.
        await machine.set_up_rings([1, 1, 0, 0, 0, 0, 0, 0, 1])
        await machine.enable_all()
        assert await machine.loop(b"again") == b"again"
        assert settings(on)["vlans"] == [5]


async def test_nor_does_its_guest_leave() -> None:
    async with back_end(NeverSuspended()) as on, vmm(on) as machine:
        await machine.start()
        await machine.loop(b"packet")
        await machine.front_end.ask(GET_VRING_BASE, state(0, 0))
        with pytest.raises(BasesUnknown, match="--in-order"):
            await on.device.save(-1)


async def test_nor_is_it_switched_from() -> None:
    async with back_end(NeverSuspended()) as on, vmm(on) as machine:
        await machine.start()
        await machine.loop(b"packet")
        with pytest.raises(CannotSwitch, match=r"--in-order .*; loop goes on as before"):
            await on.device.switching.switch(LoopDevice)
        assert await machine.loop(b"again") == b"again"


class Slow(LoopDevice):
    """A device that carries out a command when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def _serve(self) -> bool:
        self.gate.wait()
        return super()._serve()


async def test_a_stop_waits_for_the_command_that_the_device_has() -> None:
    device = Slow()
    async with back_end(device) as on, vmm(on) as machine:
        await machine.start()
        device.gate.clear()
        machine.control.send([VlanAdd(5).encode()], [1])
        stopping = asyncio.create_task(machine.stop())
        await until(lambda: on.device.status is Status.STOPPED)
        assert machine.control.driver.returned == 0
        device.gate.set()
        assert (await stopping)[-1] == 1
        assert machine.control.returned == 1
        assert settings(on)["vlans"] == [5]


@pytest.mark.parametrize("is_stopping", [False, True], ids=["runs", "stops"])
async def test_a_device_that_breaks_with_a_command_holds_nobody(
    monkeypatch: pytest.MonkeyPatch, is_stopping: bool
) -> None:
    device = Slow()
    waits_for_ever(monkeypatch)
    breaks_with_a_command(monkeypatch)
    async with back_end(device) as on, vmm(on) as machine:
        await machine.start()
        device.gate.clear()
        machine.control.send([VlanAdd(5).encode()], [1])
        stopping = asyncio.create_task(machine.stop()) if is_stopping else None
        if is_stopping:
            await until(lambda: on.device.status is Status.STOPPED)
        device.gate.set()
        if stopping is None:
            await until_failed(on)
            stopping = asyncio.create_task(machine.stop())
        assert (await stopping)[-1] == 0
        assert machine.control.returned == 0
        assert settings(on).get("vlans") is None


async def test_a_front_end_that_goes_leaves_a_device_that_was_reset(on: BackEnd) -> None:
    async with vmm(on) as machine:
        await machine.start()
        assert await machine.command(VlanAdd(5).encode()) == OK
    assert on.device.status is Status.STOPPED
    assert settings(on)["vlans"] == [5]


async def test_one_that_comes_back_finds_all_as_it_was(on: BackEnd) -> None:
    guest = Guest(9)
    try:
        async with vmm(on, guest=guest) as machine:
            await machine.start()
            assert await machine.command(VlanAdd(5).encode()) == OK
            assert await machine.loop(b"packet") == b"packet"
        async with vmm(on, guest=guest) as machine:
            await machine.start([1, 1, 0, 0, 0, 0, 0, 0, 1])
            assert await machine.command(VlanAdd(5).encode()) == ERR
            assert await machine.loop(b"packet") == b"packet"
    finally:
        guest.close()


async def test_one_that_comes_back_and_says_0_goes_on_where_the_rings_stand(on: BackEnd) -> None:
    guest = Guest(9)
    try:
        async with vmm(on, guest=guest) as machine:
            await machine.start()
            assert await machine.command(VlanAdd(5).encode()) == OK
            assert await machine.loop(b"packet") == b"packet"
        async with vmm(on, guest=guest) as machine:
            await machine.start()
            assert await machine.loop(b"again") == b"again"
            assert settings(on)["vlans"] == [5]
            assert await machine.command(VlanAdd(5).encode()) == ERR
    finally:
        guest.close()


async def test_reset_device_forgets_everything(on: BackEnd, heard: Heard) -> None:
    async with vmm(on) as machine:
        await machine.start()
        assert await machine.command(VlanAdd(5).encode()) == OK
        await machine.front_end.done(RESET_DEVICE)
        assert on.device.settings.found() is None
    assert heard.settings_changes == 3
