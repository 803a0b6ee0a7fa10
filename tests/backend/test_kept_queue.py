"""A VMM that keeps the control queue to itself: queue pairs are heard, the filter is open."""

import pytest

from tests.backend.vmm import PLAIN, back_end, breaks_with_a_command, vmm, waits_for_ever
from tests.vhost_user.front_end import (
    SET_STATUS,
    SET_VRING_ENABLE,
    state,
    u64,
)
from vdpad.backend.device_lifecycle import Status
from vdpad.queues.software.loop_device import LoopDevice
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
