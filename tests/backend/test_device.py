"""A back end's device, started and stopped by the tests' front end, on the software device."""

import asyncio
import threading

import pytest

from tests.backend.vmm import (
    ERR,
    OK,
    OTHER_MAC,
    PLAIN,
    USER,
    BackEnd,
    Heard,
    back_end,
    breaks_with_a_command,
    settings,
    until_failed,
    vmm,
    waits_for_ever,
)
from tests.support.guest import Guest, shared_region
from tests.support.waiting import until
from tests.vhost_user.front_end import (
    ADD_MEM_REG,
    REM_MEM_REG,
    RESET_DEVICE,
    single,
)
from vdpad.backend.device import Status
from vdpad.backend.events import DeviceFailed, GuestRestored
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.vhost_vdpa.errors import Unsupported
from vdpad.virtio.commands import MacAddrSet, MqPairsSet, RxPromisc, VlanAdd
from vdpad.virtio.config import pull_config
from vdpad.virtio.features import Feature, FeatureSet


async def test_packets_go_round_and_commands_are_captured(on: BackEnd) -> None:
    async with vmm(on) as machine:
        await machine.start()
        assert on.device.status == Status.RUNNING
        assert await machine.loop(b"packet") == b"packet"
        for command in (MqPairsSet(2), RxPromisc(on=False), VlanAdd(7), MacAddrSet(OTHER_MAC)):
            assert await machine.command(command.encode()) == OK
        assert await machine.loop(b"second", pair=1) == b"second"
        captured = settings(on)
        assert captured["queue_pairs"] == 2
        assert captured["rx"] == {"promisc": False}
        assert captured["vlans"] == [7]
        assert captured["mac"] == "52:54:00:aa:bb:cc"
    assert on.refusals == []
    assert on.device.status.value == "stopped"


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


async def test_the_config_space_has_the_address_that_the_guest_has_set(on: BackEnd) -> None:
    async with vmm(on) as machine:
        before = pull_config(await on.device.config())
        await machine.start()
        assert pull_config(await on.device.config()) == before
        assert await machine.command(MacAddrSet(OTHER_MAC).encode()) == OK
        assert pull_config(await on.device.config()).mac == OTHER_MAC
        await machine.pause()
        assert pull_config(await on.device.config()).mac == OTHER_MAC
        await machine.stop()
        assert pull_config(await on.device.config()) == before
    async with vmm(on) as machine:
        await machine.start()
        assert pull_config(await on.device.config()) == before


class Remembering(LoopDevice):
    """A device that keeps its address through a reset, as mlx5_vdpa and vdpa_sim_net do."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = super().config()[:6]

    def negotiate(self, features: FeatureSet) -> None:
        super().negotiate(features)
        self.net.command(MacAddrSet(self.kept).encode())

    def config(self) -> bytes:
        return self.kept + super().config()[6:]

    def reset(self) -> None:
        if self._was_up is not None:
            self.kept = bytes.fromhex(self.net.settings()["mac"].replace(":", ""))
        super().reset()


FIRMWARE = frozenset({Feature.VERSION_1, Feature.MAC, Feature.STATUS})
"""What a guest takes that has no control queue."""


@pytest.mark.parametrize(
    ("features", "queues"),
    [(PLAIN, 9), (FIRMWARE, 2), (PLAIN - {Feature.CTRL_MAC_ADDR}, 9)],
)
async def test_the_next_guest_has_the_device_s_own_address(
    features: FeatureSet, queues: int
) -> None:
    device = Remembering()
    own = device.kept
    async with back_end(device) as on:
        async with vmm(on) as machine:
            await machine.start()
            assert await machine.command(MacAddrSet(OTHER_MAC).encode()) == OK
            await machine.stop()
            assert device.kept == OTHER_MAC
        async with vmm(on, queues=queues, features=features) as machine:
            assert pull_config(await on.device.config()).mac == own
            await machine.start()
            await machine.stop()
        assert device.kept == own


@pytest.mark.parametrize(
    "hidden",
    [
        Feature.ACCESS_PLATFORM,
        Feature.IN_ORDER,
        Feature.NOTIFICATION_DATA,
        Feature.ORDER_PLATFORM,
        Feature.RING_PACKED,
        Feature.RING_RESET,
    ],
)
def test_what_no_guest_is_offered(on: BackEnd, hidden: Feature) -> None:
    assert hidden not in on.device.features


async def test_a_guest_without_mq_has_its_control_queue_at_2(on: BackEnd) -> None:
    async with vmm(on, queues=3, features=PLAIN - {Feature.MQ}) as machine:
        await machine.start()
        assert await machine.command(VlanAdd(9).encode()) == OK
        assert await machine.loop(b"packet") == b"packet"
        assert settings(on)["vlans"] == [9]


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


class Unsuspendable(LoopDevice):
    """A device that cannot be suspended."""

    def suspend(self) -> None:
        raise Unsupported("SUSPEND: not here")


async def test_without_suspend_the_used_rings_say_where_it_stands() -> None:
    async with back_end(Unsuspendable()) as on, vmm(on) as machine:
        await machine.start()
        for _ in range(3):
            await machine.loop(b"packet")
        await machine.loop(b"packet", pair=1)
        assert await machine.pause() == [3, 3, 1, 1, 0, 0, 0, 0, 0]
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


async def test_memory_comes_and_goes_while_it_runs(on: BackEnd) -> None:
    more = shared_region(0x9000_0000)
    try:
        async with vmm(on) as machine:
            await machine.start()
            shared = single(more.start, more.size, USER + more.start, 0)
            await machine.front_end.done(ADD_MEM_REG, shared, [more.fd])
            assert await machine.loop(b"packet") == b"packet"
            await machine.front_end.done(REM_MEM_REG, shared)
            assert await machine.loop(b"packet") == b"packet"
    finally:
        more.close()
