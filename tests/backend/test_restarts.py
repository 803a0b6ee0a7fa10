"""What comes in the midst of a device's restart for the log of its guest's memory."""

import asyncio
import os
import socket

import pytest

from tests.backend.devices import NeverResumed
from tests.backend.moving.faulty_device import Broke, FaultyDevice, traffic
from tests.backend.test_logging import Faulty, set_much, way
from tests.backend.vmm import OK, PLAIN, Heard, Vmm, back_end, settings, until_failed, vmm
from tests.support.guest import Guest
from tests.support.no_means import few_descriptors
from tests.support.waiting import until
from tests.vhost_user import front_end as protocol
from tests.vhost_user.front_end import FrontEnd, state
from vdpad.backend.device_lifecycle import Status
from vdpad.backend.events import LoggingBegan, LoggingEnded
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.virtio.commands import VlanAdd

STEPS = ["suspend", "base", "negotiate", "set_vring", "start", "enable"]


def change(machine: Vmm, log: int, *, begins: bool) -> "asyncio.Task[None]":
    """Logging begins, or ends."""
    return asyncio.create_task(machine.log(log) if begins else machine.log_no_more())


def told(heard: Heard) -> list[str]:
    """What was told of logging."""
    log = [each for each in heard.events if isinstance(each, LoggingBegan | LoggingEnded)]
    return [type(each).__name__ for each in log]


def refuses(device: Faulty, refused: str) -> None:
    """From now on it refuses this step, each time."""

    def refuse(step: str) -> None:
        if step == refused:
            raise Broke(f"{step} was refused")

    device.before = refuse


# --- what is shown, and what comes in beside ---


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("step", STEPS)
async def test_its_guest_runs(log: int, step: str, *, begins: bool) -> None:
    """An orchestrator takes `stopped` for the end of its guest's time here."""
    device = Faulty()
    async with back_end(device) as on, vmm(on) as machine:
        await machine.start()
        if not begins:
            await machine.log(log)
        gate = device.wait_at(step)
        going = change(machine, log, begins=begins)
        await asyncio.to_thread(gate.reached.wait)
        shown = (on.device.is_running, on.device.status)
        gate.open()
        await going
        assert shown == (True, Status.RUNNING)
        await machine.stop()
        assert (on.device.is_running, on.device.status) == (False, Status.STOPPED)


async def test_a_state_that_is_none_takes_nothing_from_its_guest(log: int) -> None:
    """One that began to come before the guest was there, and ends now."""
    device = Faulty()
    async with back_end(device) as on, vmm(on) as machine:
        await machine.set_up()
        reader, writer = os.pipe()
        begun = state(1, 0)
        told = await machine.front_end.number(protocol.SET_DEVICE_STATE_FD, begun, [reader])
        assert told == protocol.NO_FD
        os.close(reader)
        await machine.enable_all()
        await set_much(machine)
        gate = device.wait_at("negotiate")
        going = change(machine, log, begins=True)
        await asyncio.to_thread(gate.reached.wait)
        os.write(writer, b"no state")
        os.close(writer)
        await asyncio.sleep(0.1)
        gate.open()
        await going
        assert settings(on)["vlans"] == device.net.settings()["vlans"] == [5, 7]


async def test_commands_that_pour_in(log: int) -> None:
    device, number = NeverResumed(), 300
    async with back_end(device) as on, vmm(on) as machine:
        await machine.start()

        async def pour() -> None:
            for vlan in range(1, 1 + number):
                assert await machine.command(VlanAdd(vlan).encode()) == OK

        pouring = asyncio.create_task(pour())
        while not pouring.done():
            await machine.log(log)
            await machine.log_no_more()
        await pouring
        assert settings(on)["vlans"] == [[1, number]]
        assert len(device.net.settings()["vlans"]) == number


# --- who ends it ---


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("step", STEPS)
async def test_the_process_is_told_to_end(log: int, step: str, *, begins: bool) -> None:
    device, heard, guest = Faulty(), Heard(), Guest(9, event_idx=True)
    async with back_end(device, heard) as on:
        ours, theirs = socket.socketpair()
        front_end = FrontEnd(theirs)
        serving = asyncio.create_task(on.front_ends.serve(ours))
        machine = Vmm(guest, front_end, PLAIN)
        await machine.start()
        if not begins:
            await machine.log(log)
        gate = device.wait_at(step)
        going = change(machine, log, begins=begins)
        await asyncio.to_thread(gate.reached.wait)
        serving.cancel()
        await asyncio.sleep(0.01)
        gate.open()
        await asyncio.wait([serving])
        await asyncio.gather(going, return_exceptions=True)
        front_end.close()
        assert not on.device.is_running
        assert on.device.logged is None
        assert told(heard) == ["LoggingBegan", "LoggingEnded"]
        async with vmm(on, guest=guest) as machine:
            await machine.start()
            await machine.log(log)
            assert way(on) == "relay"
            assert await machine.loop(b"packet") == b"packet"
    guest.close()


async def test_all_that_was_marked_is_told_at_the_end(log: int) -> None:
    heard = Heard()
    async with back_end(NeverResumed(), heard) as on, vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        assert await machine.loop(b"packet") == b"packet"
        marks_in = on.device._in_use.driven.memory.marking.log
        assert marks_in is not None
        await machine.log_no_more()
        (ended,) = (each for each in heard.events if isinstance(each, LoggingEnded))
        assert (ended.way, ended.pages) == ("relay", marks_in.marked)


# --- where something is refused for good ---


async def test_memory_that_may_not_be_mapped(log: int) -> None:
    """As where the guest's memory is all that may be pinned."""
    device = Faulty()
    async with back_end(device) as on, vmm(on) as machine:
        await machine.start()
        await set_much(machine)
        shown = device.net.settings()
        refuses(device, "map")
        await machine.log(log)
        assert not on.device.failure
        assert (way(on), device.net.settings()) == ("everything", shown)
        assert await machine.loop(b"packet") == b"packet"
        await machine.pause()
        assert await machine.loop(b"packet") == b"packet"


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("free", [2, 3, 5, 8, 13, 21])
@pytest.mark.parametrize("kind", [NeverResumed, LoopDevice])
async def test_descriptors_that_are_few(
    kind: type[LoopDevice], free: int, log: int, *, begins: bool
) -> None:
    """Whether it is restarted or not: the guest goes on, and what there is goes back."""
    async with back_end(kind()) as on, vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        if begins:
            await machine.log_no_more()
        before = await descriptors()
        with few_descriptors(free):
            # The log is there: its file takes a descriptor of its own.
            await machine._set_features(protocol.LOG_ALL if begins else 0)
        assert not on.device.failure
        assert await machine.loop(b"packet") == b"packet"
        assert await machine.command(VlanAdd(5).encode()) == OK
        await machine._set_features(0 if begins else protocol.LOG_ALL)
        assert await descriptors() <= before


async def descriptors() -> int:
    """How many this process has, once those that are being closed are."""
    await asyncio.sleep(0.05)
    return len(await asyncio.to_thread(os.listdir, "/proc/self/fd"))


async def test_what_fails_beside_the_device(log: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails on the event loop ends a start as what fails in a step does."""

    def none(*_: object) -> None:
        raise OSError(24, "Too many open files")

    async with back_end(NeverResumed()) as on, vmm(on) as machine:
        await machine.start()
        with monkeypatch.context() as patch:
            patch.setattr("vdpad.backend.running.Shadow", none)
            await machine.log(log)
        assert on.refusals == []
        assert on.device.needs_reset
        assert "Too many open files" in on.device.failure
        await machine.pause()
        assert await machine.loop(b"packet") == b"packet"


async def test_one_that_is_lost_and_has_not_told_where_it_stood(log: int) -> None:
    """The front end is not told the bases of the start."""
    device = Faulty()
    async with back_end(device) as on, vmm(on) as machine:
        await machine.start()
        assert await machine.loop(b"packet") == b"packet"
        await machine.pause()
        assert await machine.loop(b"packet") == b"packet"
        await machine.log(log)
        machine.control.send([b"?"], [1])
        await until_failed(on)
        refuses(device, "suspend")
        await machine.log_no_more()
        assert on.device.needs_reset
        reply = await machine.front_end.ask(protocol.GET_VRING_BASE, state(0, 0))
        assert reply == b""
        await until(lambda: bool(on.refusals))
        assert "it was reset without that" in on.refusals[0]


@pytest.mark.parametrize("nth", [1, 4, 5, 8])
async def test_one_that_is_resumed_and_does_not_tell_where_it_stands(log: int, nth: int) -> None:
    """It has the guest's rings again, and its guest hears of nothing."""
    device = FaultyDevice()
    async with back_end(device) as on, vmm(on) as machine:
        await machine.start()
        device.fail_at(1 + nth)
        async with traffic(machine):
            await machine.log(log)
            assert device.steps[0] == "suspend"
            assert device.steps[nth] == "base"
        assert (way(on), on.device.failure) == ("everything", "")
