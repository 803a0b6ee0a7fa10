"""A device that can be suspended and not resumed is restarted when its memory is logged."""

import asyncio
from typing import Any

import pytest

from tests.backend.devices import NeverResumed, NeverSuspended
from tests.backend.moving.faulty_device import FaultyDevice, traffic
from tests.backend.test_kept_queue import KEPT
from tests.backend.test_restoring import COALESCES, Conforming
from tests.backend.test_restoring import COMMANDS as COALESCING
from tests.backend.vmm import (
    OK,
    OTHER_MAC,
    BackEnd,
    Heard,
    Vmm,
    back_end,
    settings,
    until_failed,
    vmm,
)
from tests.support.guest import Guest
from tests.vhost_user.front_end import SET_STATUS, u64
from tests.vhost_user.log_file import pages_in
from vdpad.backend.device_lifecycle import Status
from vdpad.backend.events import DeviceFailed, LoggingBegan, LoggingEnded
from vdpad.backend.faults import DeviceRuns
from vdpad.backend.moving.moving import MovedState
from vdpad.backend.relay import relay
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_queues import PacketDeviceRefused
from vdpad.virtio.commands import MacAddrSet, VlanAdd
from vdpad.virtio.rings import BadGeometry, Region


class Faulty(FaultyDevice):
    """One that fails at will, and is restarted."""

    can_resume = False


class RestartedConforming(Conforming):
    """One that forgets the coalescing of queues, and is restarted."""

    can_resume = False


def way(on: BackEnd) -> str | None:
    """In which memory is logged."""
    return None if on.device.logged is None else on.device.logged.way


async def set_much(machine: Vmm) -> None:
    for command in (MacAddrSet(OTHER_MAC), VlanAdd(5), VlanAdd(7)):
        assert await machine.command(command.encode()) == OK


# --- what stays ---


async def test_the_device_has_what_the_guest_has_set(log: int) -> None:
    device, heard = NeverResumed(), Heard()
    async with back_end(device, heard) as on, vmm(on) as machine:
        await machine.start()
        await set_much(machine)
        shown = device.net.settings()
        assert shown["mac"] == OTHER_MAC.hex(":")
        async with traffic(machine):
            await machine.log(log)
            assert (way(on), device.net.settings()) == ("relay", shown)
            assert await machine.command(VlanAdd(9).encode()) == OK
            shown = device.net.settings()
            await machine.log_no_more()
            assert (way(on), device.net.settings()) == (None, shown)
        assert settings(on)["vlans"] == [5, 7, 9]
        assert not on.device.failure
    assert [each for each in heard.events if isinstance(each, LoggingBegan | LoggingEnded)] == [
        LoggingBegan("nic0", "relay"),
        LoggingEnded("nic0", "relay", heard.events[-1].pages),  # type: ignore[attr-defined]
    ]


async def test_what_goes_with_enabled_queues_comes_back(log: int) -> None:
    device = RestartedConforming()
    async with back_end(device) as on, vmm(on, features=COALESCES) as machine:
        await machine.start()
        for command in COALESCING:
            assert await machine.command(command.encode()) == OK
        shown = device.net.settings()["coalescing"]
        assert shown["queues"]
        await machine.log(log)
        assert device.net.settings()["coalescing"] == shown


async def test_queues_that_are_not_enabled_stay_so(log: int) -> None:
    async with back_end(NeverResumed()) as on, vmm(on) as machine:
        await machine.set_up()
        await machine.front_end.enable(0, 1, len(machine.guest.queues) - 1)
        await machine.log(log)
        assert not on.device._in_use.driven.owned.device._up.queues[2].enabled  # type: ignore[attr-defined]
        await machine.front_end.enable(2, 3)
        assert await machine.loop(b"packet", pair=1) == b"packet"
        await machine.log_no_more()
        assert await machine.loop(b"packet", pair=1) == b"packet"


async def test_a_control_queue_that_is_not_enabled_yet(log: int) -> None:
    async with back_end(NeverResumed()) as on, vmm(on) as machine:
        await machine.set_up()
        control = len(machine.guest.queues) - 1
        await machine.front_end.enable(0, 1)
        await machine.log(log)
        request = machine.control.send([VlanAdd(5).encode()], [1])
        await asyncio.sleep(0.01)
        assert not machine.control.returned
        await machine.front_end.enable(control)
        assert await machine.answers([request]) == [OK]


async def test_of_a_guest_whose_rings_all_stand_at_0_again(log: int) -> None:
    """Which looks like one that begins anew."""
    device = NeverResumed()
    guest = Guest(9, base=(1 << 16) - 1)
    for queue in guest.queues:
        for index in (queue.driver.used, queue.driver.available):
            queue.driver.memory.poke(index + 2, b"\xff\xff")
    async with back_end(device) as on, vmm(on, guest=guest) as machine:
        await machine.start([(1 << 16) - 1] * 9)
        assert await machine.command(VlanAdd(5).encode()) == OK
        for pair in range(4):
            await machine.loop(b"packet", pair=pair)
        shown = device.net.settings()
        await machine.log(log)
        assert device.net.settings() == shown
        assert settings(on)["vlans"] == [5]
        assert await machine.stop() == [0] * 9
    guest.close()


async def test_where_the_vmm_keeps_the_control_queue(log: int) -> None:
    device = NeverResumed()
    async with (
        back_end(device, card_mac=OTHER_MAC) as on,
        vmm(on, queues=8, features=KEPT) as machine,
    ):
        await machine.set_up()
        await machine.front_end.enable(0, 1, 2, 3)
        await machine.front_end.done(SET_STATUS, u64(0xF))
        shown = device.net.settings()
        assert shown["queue_pairs"] == 2
        await machine.log(log)
        assert (way(on), device.net.settings()) == ("relay", shown)
        assert await machine.loop(b"packet", pair=1) == b"packet"
        await machine.log_no_more()
        assert device.net.settings() == shown


# --- where it is not done ---


async def test_one_whose_settings_are_not_all_known_is_not_reset(log: int) -> None:
    device = NeverResumed()
    guest = Guest(9)
    async with back_end(device) as on, vmm(on, guest=guest) as machine:
        await machine.start()
        await machine.loop(b"packet")
        await machine.stop()
    async with back_end(device := NeverResumed()) as on, vmm(on, guest=guest) as machine:
        # It goes on where nobody knows of it.
        await machine.start([1, 1] + [0] * 7)
        device.net.command(VlanAdd(8).encode())
        await machine.log(log)
        assert way(on) == "everything"
        assert device.net.settings()["vlans"] == [8]
        assert await machine.loop(b"packet") == b"packet"
        await machine.stop()
        assert pages_in(log) == guest.pages
    guest.close()


async def test_one_that_has_failed_is_not_brought_up_again(log: int) -> None:
    async with back_end(NeverResumed()) as on, vmm(on) as machine:
        await machine.start()
        machine.control.send([b"?"], [1])
        await until_failed(on)
        await machine.log(log)
        assert (way(on), on.device.status) == ("everything", Status.FAILED)
        assert await machine.loop(b"packet") == b"packet"


async def test_one_that_has_failed_while_it_is_relayed_is_left_reset(log: int) -> None:
    device, heard = NeverResumed(), Heard()
    async with back_end(device, heard) as on, vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        machine.control.send([b"?"], [1])
        await until_failed(on)
        assert await machine.loop(b"packet") == b"packet"
        await machine.log_no_more()
        assert (way(on), on.device.status, on.device.needs_reset) == (None, Status.FAILED, True)
        assert not on.device.is_running
        assert len([each for each in heard.events if isinstance(each, DeviceFailed)]) == 1
        assert await machine.pause() == [1, 1] + [0] * 7
        assert await machine.loop(b"again") == b"again"


async def test_one_that_cannot_be_suspended_is_not_reset(log: int) -> None:
    device = NeverSuspended()
    async with back_end(device, in_order=True) as on, vmm(on) as machine:
        await machine.start()
        up = device._up
        await machine.log(log)
        assert device._up is up
        assert way(on) == "everything"


@pytest.mark.parametrize("kind", [NeverResumed, LoopDevice])
async def test_a_ring_that_no_relay_reaches(
    kind: type[LoopDevice], log: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a guest's may be that lies across two regions, which is nothing to the device."""

    def queue_in(*_: Any, **_more: Any) -> None:
        raise BadGeometry("expected a ring within one region, it is not")

    monkeypatch.setattr(relay, "queue_in", queue_in)
    async with back_end(kind()) as on, vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        assert way(on) == "everything"
        assert not on.device.failure
        assert await machine.loop(b"packet") == b"packet"
        await machine.stop()
        assert pages_in(log) == machine.guest.pages


class NoRoom(NeverResumed):
    """Reaches no rings of ours."""

    def spare_addresses(self, size: int) -> Region:
        raise PacketDeviceRefused("expected some addresses")


async def test_a_device_that_reaches_no_rings_of_ours_has_the_guest_s(log: int) -> None:
    async with back_end(NoRoom()) as on, vmm(on) as machine:
        await machine.start()
        for _ in range(2):
            await machine.log(log)
            assert way(on) == "everything"
            assert await machine.loop(b"packet") == b"packet"
            await machine.pause()
        assert not on.device.failure


# --- where it fails ---


async def steps_of_a_beginning(log: int) -> list[str]:
    """That the device takes when logging begins."""
    device = Faulty()
    async with back_end(device) as on, vmm(on) as machine:
        await machine.start()
        await set_much(machine)
        device.steps.clear()
        await machine.log(log)
        assert way(on) == "relay"
        return list(device.steps)


async def test_whatever_step_fails_the_guest_goes_on(log: int) -> None:
    steps = await steps_of_a_beginning(log)
    ways = set()
    for number in range(1, 1 + len(steps)):
        device = Faulty()
        async with back_end(device) as on, vmm(on) as machine:
            await machine.start()
            await set_much(machine)
            shown = device.net.settings()
            device.fail_at(number)
            async with traffic(machine):
                await machine.log(log)
                assert not on.device.failure, (number, steps[number - 1])
                assert device.net.settings() == shown
                ways.add(way(on))
                assert await machine.command(VlanAdd(9).encode()) == OK
            await machine.log_no_more()
            device.before = lambda step: None
            await machine.log(log)
            # It is not tried again.
            assert way(on) == "everything", (number, steps[number - 1])
            await machine.stop()
            assert pages_in(log) == machine.guest.pages
    assert ways == {"everything"}


async def test_where_it_comes_up_no_more_its_guest_is_told(log: int) -> None:
    device, heard = Faulty(), Heard()

    def refuse(step: str) -> None:
        if step == "start":
            raise BadGeometry("expected another one")

    async with back_end(device, heard) as on, vmm(on) as machine:
        await machine.start()
        assert await machine.loop(b"packet") == b"packet"
        device.before = refuse
        await machine.log(log)
        assert on.device.needs_reset
        assert on.device.failure == (
            "loop was reset to log memory, and does not come up again: expected another one; "
            "reset the guest's device"
        )
        assert pages_in(log) == machine.guest.pages
        device.before = lambda step: None
        assert await machine.pause() == [1, 1] + [0] * 7
        assert not on.device.failure
        assert await machine.loop(b"again") == b"again"
    assert len([each for each in heard.events if isinstance(each, DeviceFailed)]) == 1


async def test_logging_that_ends_and_a_device_that_comes_up_no_more(log: int) -> None:
    device = Faulty()

    def refuse(step: str) -> None:
        if step == "set_vring":
            raise BadGeometry("expected another one")

    async with back_end(device) as on, vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        assert await machine.loop(b"packet") == b"packet"
        device.before = refuse
        await machine.log_no_more()
        assert way(on) is None
        assert on.device.needs_reset
        device.before = lambda step: None
        assert await machine.pause() == [1, 1] + [0] * 7
        assert await machine.loop(b"again") == b"again"


async def test_a_switch_and_a_load_wait_for_its_end(log: int) -> None:
    device = Faulty()
    async with back_end(device) as on, vmm(on) as machine:
        await machine.start()
        await set_much(machine)
        gate = device.wait_at("negotiate")
        going = asyncio.create_task(machine.log(log))
        await asyncio.to_thread(gate.reached.wait)
        switched = asyncio.create_task(on.device.switching.switch(LoopDevice))
        loaded = asyncio.create_task(on.device.moving.take(MovedState(None, (), {}), tried=True))
        await asyncio.sleep(0.05)
        assert not loaded.done()
        gate.open()
        await going
        await switched
        with pytest.raises(DeviceRuns):
            await loaded
        assert way(on) == "relay"
        assert settings(on)["vlans"] == [5, 7]
        assert await machine.loop(b"packet") == b"packet"
