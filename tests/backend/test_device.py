"""What a back end's device serves the tests' front end, on the software device."""

import pytest

from tests.backend.vmm import (
    OK,
    OTHER_MAC,
    PLAIN,
    BackEnd,
    Heard,
    back_end,
    settings,
    vmm,
)
from vdpad.backend.device_lifecycle import Status
from vdpad.backend.events import AddressNotPutBack
from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_offer import PACKET_CONFIG, PACKET_FEATURES
from vdpad.queues.software.packet_queues import PacketDeviceRefused
from vdpad.virtio.commands import MacAddrSet, MqPairsSet, RxPromisc, VlanAdd
from vdpad.virtio.config import NetConfig, pull_config
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


OTHERS_MAC = bytes.fromhex("5254000000ee")


class Remembering(LoopDevice):
    """A device that keeps its address through a reset, as mlx5_vdpa and vdpa_sim_net do."""

    def __init__(self, net: NetConfig = PACKET_CONFIG) -> None:
        super().__init__(net)
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


async def test_the_device_has_its_own_address_once_its_back_end_has_ended(heard: Heard) -> None:
    device = Remembering()
    own = device.kept
    async with back_end(device, heard) as on, vmm(on) as machine:
        await machine.start()
        assert await machine.command(MacAddrSet(OTHER_MAC).encode()) == OK
    assert device.kept == own
    assert heard.events == []


async def test_a_device_that_does_not_take_its_own_address_is_told(heard: Heard) -> None:
    class Refusing(Remembering):
        def control_queue(self) -> ControlQueue:
            if self.kept == OTHER_MAC:
                raise PacketDeviceRefused("expected nobody any more")
            return super().control_queue()

    device = Refusing()
    own = device.kept
    async with back_end(device, heard) as on, vmm(on) as machine:
        await machine.start()
        assert await machine.command(MacAddrSet(OTHER_MAC).encode()) == OK
    (event,) = heard.events
    assert isinstance(event, AddressNotPutBack)
    assert (event.mac, event.reason) == (own.hex(":"), "expected nobody any more")


@pytest.mark.parametrize("offers", [True, False])
async def test_in_order_is_offered_where_the_device_offers_it(offers: bool) -> None:
    features = PACKET_FEATURES - (frozenset() if offers else {Feature.IN_ORDER})
    async with back_end(LoopDevice(features=features)) as on:
        assert (Feature.IN_ORDER in on.device.features) is offers


@pytest.mark.parametrize(
    "hidden",
    [
        Feature.ACCESS_PLATFORM,
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
