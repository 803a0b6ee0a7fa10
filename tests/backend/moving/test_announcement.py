"""A guest that has moved is asked to announce itself, and answers."""

import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.backend.vmm import ERR, OK, PLAIN, BackEnd, Heard, Vmm, back_end, vmm
from tests.support.guest import Guest
from tests.vhost_user import front_end as page
from vdpad.backend.events import AnnouncementAsked
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_offer import PACKET_CONFIG
from vdpad.virtio.commands import VlanAdd
from vdpad.virtio.features import Feature, FeatureSet

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
