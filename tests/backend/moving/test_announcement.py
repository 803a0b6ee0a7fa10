"""A guest that has moved is asked to announce itself, and answers."""

import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.availability import skip_or_fail
from tests.backend.vmm import ERR, OK, OTHER_MAC, PLAIN, BackEnd, Heard, Vmm, back_end, vmm
from tests.support.guest import Guest
from tests.support.namespaces import taps, why_no_taps
from tests.support.tap_ends import HostEnd, tap_ends
from tests.support.waiting import until
from tests.vhost_user import front_end as page
from vdpad.backend.events import AnnouncementAsked, GuestAnnounced
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_offer import PACKET_CONFIG
from vdpad.queues.software.packet_queues import PacketDeviceRefused
from vdpad.queues.software.tap_device import TapDevice
from vdpad.virtio.commands import MacAddrSet, VlanAdd
from vdpad.virtio.config import pull_config
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.mac import format_mac

KEPT: FeatureSet = frozenset({Feature.VERSION_1, Feature.MAC, Feature.STATUS})
"""Of a guest whose VMM keeps its control queue, and which cannot be asked."""
ANNOUNCES: FeatureSet = PLAIN | {Feature.GUEST_ANNOUNCE}
# virtio 1.4, 5.1.6.5.4 and 5.1.4, by hand.
ACK = bytes((3, 0))
LINK_UP, ANNOUNCE = 1, 2


class Hearing(LoopDevice):
    """Counts the guest's answers, and refuses them unless it has asked, as QEMU's device does."""

    def __init__(self, *, asks: bool = False) -> None:
        super().__init__(replace(PACKET_CONFIG, status=LINK_UP | ANNOUNCE if asks else LINK_UP))
        self.answer = OK if asks else ERR
        self.answers = 0

    def negotiate(self, features: FeatureSet) -> None:
        super().negotiate(features)
        serve = self.net.command
        self.net.command = (  # type: ignore[method-assign]
            lambda readable: self._hear() if readable == ACK else serve(readable)
        )

    def _hear(self) -> int:
        self.answers += 1
        return self.answer[0]


async def status(machine: Vmm) -> int:
    """Of the config space, as the VMM reads it for its guest."""
    reply = await machine.front_end.ask(page.GET_CONFIG, page.config(6, bytes(2)))
    (value,) = struct.unpack("<H", reply[-2:])
    return int(value)


async def interrupts(back_channel: socket.socket) -> int:
    """Config interrupts that the VMM was asked for since."""
    back_channel.setblocking(False)
    try:
        said = back_channel.recv(4096)
    except BlockingIOError:
        return 0
    assert {struct.unpack_from("=III", said, at)[0] for at in range(0, len(said), 12)} == {
        page.BACKEND_CONFIG_CHANGE_MSG
    }
    return len(said) // 12


@asynccontextmanager
async def moved(
    source: BackEnd, destination: BackEnd, guest: Guest, features: FeatureSet
) -> AsyncIterator[tuple[Vmm, socket.socket]]:
    """A guest that has sent one command where it was, and goes on at its destination."""
    async with vmm(source, guest=guest, features=features) as machine:
        await machine.start()
        assert await machine.command(VlanAdd(7).encode()) == OK
        bases = await machine.stop()
        data = await machine.save()
    ours, theirs = socket.socketpair()
    async with vmm(destination, guest=guest, features=features) as machine:
        with ours, theirs:
            # No acks over it.
            protocol = page.ALL_SERVED & ~page.REPLY_ACK
            await machine.front_end.send(page.SET_PROTOCOL_FEATURES, page.u64(protocol))
            await machine.front_end.send(page.SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
            await machine.agree()
            assert await machine.load(data) == 0
            await machine.set_up(bases)
            await machine.enable_all()
            yield machine, ours


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest(9)
    yield made
    made.close()


async def test_it_is_asked_and_its_answer_is_no_business_of_the_device(guest: Guest) -> None:
    heard, device = Heard(), Hearing()
    async with (
        back_end() as source,
        back_end(device, heard) as destination,
        moved(source, destination, guest, ANNOUNCES) as (machine, back_channel),
    ):
        assert await status(machine) == LINK_UP | ANNOUNCE
        assert await interrupts(back_channel) == 1
        assert [each for each in heard.events if isinstance(each, AnnouncementAsked)]
        counted = destination.device.settings.counts
        assert await machine.command(ACK) == OK
        assert await status(machine) == LINK_UP
        assert destination.device.settings.counts == counted
        assert device.answers == 0
        # The next one is the device's to answer, which has not asked.
        assert await machine.command(ACK) == ERR
        assert device.answers == 1
        # And it is not asked again.
        await machine.pause()
        assert await status(machine) == LINK_UP


async def test_it_is_asked_until_it_has_answered(guest: Guest) -> None:
    async with back_end() as source, back_end() as destination:
        async with moved(source, destination, guest, ANNOUNCES) as (machine, back_channel):
            assert await interrupts(back_channel) == 1
            await machine.pause()
            assert await interrupts(back_channel) == 1
            assert await status(machine) == LINK_UP | ANNOUNCE
            assert await machine.command(VlanAdd(8).encode()) == OK
            assert await machine.command(ACK) == OK
            assert await status(machine) == LINK_UP
        # A driver that begins anew makes itself known.
        async with vmm(destination, features=ANNOUNCES) as machine:
            await machine.start()
            assert await status(machine) == LINK_UP


async def test_where_the_device_has_asked_too_it_hears_the_answer(guest: Guest) -> None:
    device = Hearing(asks=True)
    async with (
        back_end() as source,
        back_end(device) as destination,
        moved(source, destination, guest, ANNOUNCES) as (machine, _),
    ):
        assert await machine.command(ACK) == OK
        assert device.answers == 1


@pytest.mark.parametrize("lacks", [Feature.GUEST_ANNOUNCE, Feature.STATUS])
async def test_a_guest_that_cannot_is_not_asked(guest: Guest, lacks: Feature) -> None:
    heard = Heard()
    async with back_end() as source, back_end(heard=heard) as destination:
        features = ANNOUNCES - {lacks}
        async with moved(source, destination, guest, features) as (machine, back_channel):
            assert await status(machine) == LINK_UP
            assert await interrupts(back_channel) == 0
            assert not [each for each in heard.events if isinstance(each, AnnouncementAsked)]


# --- by the device ---

EVERYBODY = bytes.fromhex("ffffffffffff8035")


@asynccontextmanager
async def on_a_tap(
    heard: Heard, card_mac: bytes | None = None
) -> AsyncIterator[tuple[BackEnd, HostEnd]]:
    """A back end whose device has a network."""
    skip_or_fail(why_no_taps())
    with taps("tap0") as within, tap_ends(within, "tap0") as (tap, host):
        async with back_end(TapDevice(tap), heard, card_mac=card_mac) as on:
            yield on, host


async def announced(host: HostEnd) -> bytes:
    """The address that is made known."""
    heard: list[bytes] = []
    await until(lambda: host.has_received(heard))
    (frame,) = heard
    assert frame[:6] + frame[12:14] == EVERYBODY
    return frame[6:12]


def told_of(heard: Heard) -> list[str]:
    """Whom the device has announced."""
    return [each.mac for each in heard.events if isinstance(each, GuestAnnounced)]


async def test_one_that_cannot_be_asked_is_announced_by_a_device_that_can(guest: Guest) -> None:
    heard = Heard()
    async with back_end() as source, on_a_tap(heard) as (destination, host):
        async with moved(source, destination, guest, PLAIN) as (machine, back_channel):
            # The loop's: it had set none of its own, and goes on with what it saw there.
            own = pull_config(await destination.device.config()).mac
            assert await announced(host) == own
            assert told_of(heard) == [format_mac(own)]
            assert await interrupts(back_channel) == 0
            await machine.pause()
        assert host.received() == []


async def test_one_with_an_address_of_its_own_is_announced_by_that(guest: Guest) -> None:
    async with back_end() as source, on_a_tap(Heard()) as (destination, host):
        async with vmm(source, guest=guest, features=PLAIN) as machine:
            await machine.start()
            assert await machine.command(MacAddrSet(OTHER_MAC).encode()) == OK
            bases = await machine.stop()
            data = await machine.save()
        async with vmm(destination, guest=guest, features=PLAIN) as machine:
            await machine.agree()
            assert await machine.load(data) == 0
            await machine.set_up(bases)
            await machine.enable_all()
            assert await announced(host) == OTHER_MAC


async def test_one_that_can_be_asked_is_asked_also_where_the_device_could(guest: Guest) -> None:
    heard = Heard()
    async with back_end() as source, on_a_tap(heard) as (destination, host):
        async with moved(source, destination, guest, ANNOUNCES) as (machine, back_channel):
            assert await interrupts(back_channel) == 1
            assert await machine.command(ACK) == OK
        assert (host.received(), told_of(heard)) == ([], [])


async def test_a_frame_that_did_not_go_goes_at_the_next_start(guest: Guest) -> None:
    class Deaf(TapDevice):
        hears = False

        def announce(self, mac: bytes) -> None:
            if not self.hears:
                raise PacketDeviceRefused("expected an interface that is up, it is down")
            super().announce(mac)

    skip_or_fail(why_no_taps())
    with taps("tap0") as within, tap_ends(within, "tap0") as (tap, host):
        device = Deaf(tap)
        async with (
            back_end() as source,
            back_end(device) as destination,
            moved(source, destination, guest, PLAIN) as (machine, _),
        ):
            assert host.received() == []
            device.hears = True
            await machine.pause()
            await announced(host)


async def test_a_vmm_that_keeps_the_control_queue_says_whom_to_announce() -> None:
    heard = Heard()
    async with on_a_tap(heard) as (on, host), vmm(on, queues=2, features=KEPT) as machine:
        offered = await machine.front_end.number(page.GET_PROTOCOL_FEATURES)
        assert offered == page.ALL_SERVED | page.RARP
        await machine.set_up()
        await machine.front_end.done(page.SET_PROTOCOL_FEATURES, page.u64(offered))
        await machine.enable_all()
        await machine.front_end.done(page.SEND_RARP, OTHER_MAC + bytes(2))
        assert await announced(host) == OTHER_MAC
        assert told_of(heard) == [format_mac(OTHER_MAC)]


@pytest.mark.parametrize("card_mac", [None, OTHER_MAC])
async def test_where_another_takes_over_the_device_announces_whom_it_knows(
    card_mac: bytes | None,
) -> None:
    skip_or_fail(why_no_taps())
    heard = Heard()
    with taps("tap0") as within, tap_ends(within, "tap0") as (tap, host):
        async with (
            back_end(heard=heard, card_mac=card_mac) as on,
            vmm(on, queues=2, features=KEPT) as machine,
        ):
            await machine.start()
            await on.device.switching.switch(lambda: TapDevice(tap))
            expected = [] if card_mac is None else [format_mac(card_mac)]
            assert told_of(heard) == expected
            if card_mac is not None:
                assert await announced(host) == card_mac


async def test_a_device_without_a_network_is_offered_none_and_sends_none() -> None:
    async with back_end() as on, vmm(on) as machine:
        assert await machine.front_end.number(page.GET_PROTOCOL_FEATURES) == page.ALL_SERVED
        await machine.start()
        with pytest.raises(PacketDeviceRefused, match="expected a device with a network"):
            await on.device.announce(OTHER_MAC)
