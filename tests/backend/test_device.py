"""A back end's device, started and stopped by the tests' front end, on the software device."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.backend.vmm import PLAIN, BackEnd, Heard, back_end, vmm
from tests.support.descriptors import no_descriptor_left
from tests.support.waiting import until
from tests.vhost_user.conftest import mappings
from vdpad.backend.device import Status
from vdpad.backend.events import DeviceFailed, GuestRestored
from vdpad.virtio.commands import ACK_ERR, ACK_OK, MacAddrSet, MqPairsSet, RxPromisc, VlanAdd
from vdpad.virtio.config import pull_config
from vdpad.virtio.features import Feature

OK = bytes((ACK_OK,))
ERR = bytes((ACK_ERR,))
OTHER_MAC = bytes.fromhex("525400aabbcc")


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def on(heard: Heard) -> AsyncIterator[BackEnd]:
    before = mappings()
    with no_descriptor_left():
        async with back_end(heard=heard) as on:
            yield on
    assert mappings() == before


def settings(on: BackEnd) -> Any:
    """What the guest has set, as the back end has it."""
    found = on.device.settings.found()
    assert found is not None
    assert found.state is not None
    return found.state.model_dump(mode="json", exclude_none=True)


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
        await machine.stop()
        assert pull_config(await on.device.config()).mac == OTHER_MAC
    async with vmm(on) as machine:
        await machine.start()
        assert pull_config(await on.device.config()) == before


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


async def until_failed(on: BackEnd) -> None:
    await until(lambda: on.device.status is Status.FAILED)
