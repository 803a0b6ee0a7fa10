"""What a back end does not serve: each is told to the front end, and the device is stopped."""

import pytest

from tests.backend.vmm import OK, OTHER_MAC, PLAIN, BackEnd, Heard, Vmm, back_end, vmm
from tests.support.descriptors import no_descriptor_left
from tests.vhost_user.front_end import (
    NOT_A_FLAG_OF_OURS,
    SET_CONFIG,
    SET_FEATURES,
    SET_VRING_CALL,
    SET_VRING_ENABLE,
    SET_VRING_KICK,
    config,
    state,
    u64,
)
from vdpad.backend.device_lifecycle import Status
from vdpad.backend.faults import SharedAddressSpace
from vdpad.queues.shadowed_device import Vring
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_offer import PACKET_FEATURES
from vdpad.queues.vhost_vdpa.errors import NoControlQueue, Unsupported
from vdpad.virtio.bits import mask_of
from vdpad.virtio.commands import VlanAdd
from vdpad.virtio.config import pull_config
from vdpad.virtio.features import Feature, FeatureSet


class OneAddressSpace(LoopDevice):
    """A device as vp_vdpa has it: its CVQ's ring stands among the guest's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.shares_address_space = True


async def test_a_device_with_one_address_space_is_refused() -> None:
    with no_descriptor_left(), pytest.raises(SharedAddressSpace, match="--shared-address-space"):
        async with back_end(OneAddressSpace()):
            pass


async def test_a_device_with_one_address_space_where_it_is_allowed() -> None:
    async with back_end(OneAddressSpace(), shared_address_space=True) as on, vmm(on) as machine:
        await machine.start()
        assert await machine.command(VlanAdd(9).encode()) == OK


class OneOnlyWithoutMq(LoopDevice):
    """A device whose CVQ is alone at its usual place only."""

    def negotiate(self, features: FeatureSet) -> None:
        super().negotiate(features)
        self.shares_address_space = Feature.MQ not in features


async def test_it_is_looked_at_again_with_the_features_that_the_guest_took() -> None:
    features = PLAIN - {Feature.MQ}
    async with back_end(OneOnlyWithoutMq()) as on:
        async with vmm(on, queues=3, features=features) as machine:
            await machine.set_up()
            assert await refusal(machine, 2)
            assert "address space" in on.refusals[-1]
        async with vmm(on) as machine:
            await machine.start()


class BeginsAtZero(LoopDevice):
    """A device whose driver begins a ring nowhere else, as vp_vdpa."""

    def set_vring(self, queue: int, vring: Vring) -> None:
        if vring.base:
            raise Unsupported("SET_VRING_BASE: not here")
        super().set_vring(queue, vring)


async def test_a_ring_that_was_used_on_a_device_that_begins_at_0() -> None:
    async with back_end(BeginsAtZero()) as on, vmm(on) as machine:
        await machine.start()
        await machine.loop(b"packet")
        await machine.set_up_rings(await machine.stop())
        await machine.front_end.enable(*range(8))
        assert await refusal(machine, 8)
        assert "ring 0: expected one that begins at 0, it goes on at 1" in on.refusals[-1]
        assert on.device.status is Status.STOPPED


async def test_a_device_without_a_control_queue_is_refused() -> None:
    with no_descriptor_left(), pytest.raises(NoControlQueue):
        async with back_end(LoopDevice(features=PACKET_FEATURES - {Feature.CTRL_VQ})):
            pass


async def refusal(machine: Vmm, last: int) -> bool:
    """Enables all rings; whether the last one's enabling was refused."""
    await machine.front_end.enable(*range(last))
    return await machine.front_end.acked(SET_VRING_ENABLE, state(last, 1)) != 0


class SmallRings(LoopDevice):
    """A device that takes rings of 8 entries."""

    def largest_ring(self, queue: int) -> int:
        return 8


async def test_a_ring_larger_than_the_device_s_is_refused_by_name() -> None:
    async with back_end(SmallRings()) as on, vmm(on) as machine:
        await machine.set_up()
        assert await refusal(machine, 8)
        assert "ring 0: expected at most 8 entries" in on.refusals[-1]
        assert on.device.status is Status.STOPPED


async def test_a_kick_that_is_no_eventfd_is_refused(on: BackEnd) -> None:
    async with vmm(on) as machine:
        await machine.set_up()
        memory = machine.guest.regions[0].fd
        await machine.front_end.done(SET_VRING_KICK, u64(3), [memory])
        assert await refusal(machine, 8)
        assert "ring 3's kick" in on.refusals[-1]


async def test_a_call_that_is_no_eventfd_is_refused(on: BackEnd) -> None:
    async with vmm(on) as machine:
        await machine.start()
        for ring in (0, 8):
            memory = machine.guest.regions[0].fd
            assert await machine.front_end.acked(SET_VRING_CALL, u64(ring), [memory]) != 0
        assert await machine.loop(b"packet") == b"packet"


async def test_a_driver_of_before_virtio_1_is_refused(on: BackEnd) -> None:
    async with vmm(on, features=PLAIN - {Feature.VERSION_1}) as machine:
        await machine.set_up()
        assert await refusal(machine, 8)
        assert "expected VERSION_1" in on.refusals[-1]


async def test_a_guest_cannot_go_on_with_other_features(on: BackEnd) -> None:
    async with vmm(on) as machine:
        await machine.start()
        await machine.stop()
        features = mask_of(PLAIN - {Feature.CTRL_VLAN}) | NOT_A_FLAG_OF_OURS
        await machine.front_end.send(SET_FEATURES, u64(features))
        await machine.set_up_rings([1] * 9)
        assert await refusal(machine, 8)
        assert "CTRL_VLAN" in on.refusals[-1]


async def test_nobody_writes_to_the_config_space(on: BackEnd) -> None:
    async with vmm(on) as machine:
        await machine.set_up()
        assert await machine.front_end.acked(SET_CONFIG, config(0, OTHER_MAC)) != 0
        assert pull_config(await on.device.config()).mac != OTHER_MAC


class Forgetful(LoopDevice):
    """A device that takes no second VLAN after its first start."""

    starts = 0

    def start(self) -> None:
        super().start()
        self.starts += 1
        if self.starts > 1:
            self.net.command(VlanAdd(6).encode())


async def test_a_device_that_does_not_take_the_state_again_does_not_start(heard: Heard) -> None:
    async with back_end(Forgetful(), heard) as on, vmm(on) as machine:
        await machine.start()
        for vid in (5, 6, 7):
            assert await machine.command(VlanAdd(vid).encode()) == OK
        await machine.set_up_rings(await machine.stop())
        assert await refusal(machine, 8)
        assert "expected the device to take 3 commands, it has taken 2" in on.refusals[-1]
        assert "VLAN_ADD vid=6" in on.refusals[-1]
        assert on.device.status is Status.STOPPED
        assert heard.events == []
