"""A VMM that keeps the control queue to itself: queue pairs are heard, the filter is open."""

import pytest

from tests.backend.vmm import OTHER_MAC, PLAIN, back_end, breaks_with_a_command, vmm, waits_for_ever
from tests.vhost_user.front_end import (
    SET_STATUS,
    SET_VRING_ENABLE,
    state,
    u64,
)
from vdpad.backend.device_lifecycle import Status
from vdpad.backend.faults import CannotStart
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_offer import PACKET_CONFIG, PACKET_FEATURES
from vdpad.virtio.commands import ACK_ERR
from vdpad.virtio.features import Feature

KEPT = PLAIN - {
    Feature.CTRL_VQ,
    Feature.CTRL_RX,
    Feature.CTRL_RX_EXTRA,
    Feature.CTRL_VLAN,
    Feature.CTRL_MAC_ADDR,
}


async def test_a_vmm_that_keeps_the_control_queue() -> None:
    device = LoopDevice()
    async with back_end(device) as on, vmm(on, queues=8, features=KEPT) as machine:
        await machine.set_up()
        await machine.front_end.enable(0, 1)
        await machine.front_end.done(SET_STATUS, u64(0xF))
        assert on.device.status is Status.RUNNING
        assert not on.device.shadows
        assert await machine.loop(b"packet") == b"packet"
        assert device.net.settings()["queue_pairs"] == 1
        assert device.net.settings()["rx"]["promisc"] is True
        assert Feature.CTRL_VLAN not in device._up.features
        await machine.front_end.enable(2, 3)
        assert device.net.settings()["queue_pairs"] == 2
        assert await machine.loop(b"packet", pair=1) == b"packet"
        await machine.front_end.enable(2, on=0)
        assert device.net.settings()["queue_pairs"] == 1
        assert await machine.stop() == [1, 1, 1, 1, 0, 0, 0, 0]


async def test_the_device_has_the_address_of_the_guest_s_card() -> None:
    device, other = LoopDevice(), LoopDevice()
    async with back_end(device, card_mac=OTHER_MAC) as on:
        async with vmm(on, queues=8, features=KEPT) as machine:
            for _ in range(2):
                await machine.set_up()
                await machine.front_end.enable(0, 1)
                await machine.front_end.done(SET_STATUS, u64(0xF))
                assert device.net.settings()["mac"] == OTHER_MAC.hex(":")
                assert await machine.loop(b"packet") == b"packet"
                await machine.stop()
        # One that hands the queue over sets what it likes.
        async with vmm(on) as machine:
            await machine.start()
            assert device.net.settings()["mac"] == PACKET_CONFIG.mac.hex(":")
        async with vmm(on, queues=8, features=KEPT) as machine:
            await machine.set_up()
            await machine.front_end.enable(0, 1)
            await machine.front_end.done(SET_STATUS, u64(0xF))
            await on.device.switching.switch(lambda: other)
            assert other.net.settings()["mac"] == OTHER_MAC.hex(":")


async def test_a_device_that_takes_no_address_must_have_that_of_the_card() -> None:
    features = PACKET_FEATURES - {Feature.CTRL_MAC_ADDR}
    own = PACKET_CONFIG.mac
    with pytest.raises(CannotStart, match="expected a device that takes an address") as refused:
        async with back_end(LoopDevice(features=features), card_mac=OTHER_MAC):
            pass
    assert f"or has {OTHER_MAC.hex(':')} (--mac), got one that has {own.hex(':')}" in str(
        refused.value
    )
    async with back_end(LoopDevice(features=features), card_mac=own):
        pass


async def test_a_device_that_refuses_to_be_opened_wide_does_not_start() -> None:
    class Closed(LoopDevice):
        def start(self) -> None:
            super().start()
            self.net.command = lambda readable: ACK_ERR  # type: ignore[method-assign]

    async with back_end(Closed()) as on, vmm(on, queues=8, features=KEPT) as machine:
        await machine.set_up()
        assert await machine.front_end.acked(SET_STATUS, u64(0xF)) != 0
        assert "RX_PROMISC" in on.refusals[-1]
        assert on.device.status is Status.STOPPED


async def test_a_device_that_breaks_with_a_command_does_not_hold_the_vmm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits_for_ever(monkeypatch)
    async with back_end() as on, vmm(on, queues=8, features=KEPT) as machine:
        await machine.set_up()
        await machine.front_end.enable(0, 1, 2)
        assert await machine.front_end.acked(SET_STATUS, u64(0xF)) == 0
        breaks_with_a_command(monkeypatch)
        assert await machine.front_end.acked(SET_VRING_ENABLE, state(3, 1)) != 0
        assert "says that it needs a reset" in on.refusals[-1]
