"""The guest's CVQ of any form: what it sends is what the device is sent and the capture says."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from tests.backend.inline import InlineQueue
from tests.backend.vmm import BackEnd, back_end, called, vmm
from tests.support.guest import Guest, GuestQueue
from tests.support.split_driver import INDIRECT, NEXT, WRITE, Way
from tests.support.waiting import until
from vdpad.backend.device_lifecycle import Status
from vdpad.backend.forwarder import Forwarder
from vdpad.backend.shadow import Shadow
from vdpad.errors import VdpadError
from vdpad.queues.software.packet_offer import PACKET_FEATURES
from vdpad.state.recorder import Recorder
from vdpad.vhost_user.device import GuestVring
from vdpad.virtio.commands import (
    ACK_OK,
    CoalRxSet,
    CoalTxSet,
    CoalVqSet,
    Command,
    GuestOffloadsSet,
    HashTunnelSet,
    MacAddrSet,
    MacTableSet,
    MqHashConfig,
    MqPairsSet,
    MqRssConfig,
    RxAllMulti,
    RxAllUni,
    RxNoBcast,
    RxNoMulti,
    RxNoUni,
    RxPromisc,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.config import GuestOffload, HashType
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitAddresses

OK = bytes((ACK_OK,))
KEY = bytes(range(40))
MACS = tuple(bytes((2, 0, 0, 0, 0, n)) for n in range(1, 9))
GROUPS = tuple(bytes((1, 0, 0x5E, 0, 0, n)) for n in range(3))
EVERYTHING: FeatureSet = PACKET_FEATURES - {
    Feature.ACCESS_PLATFORM,
    Feature.ORDER_PLATFORM,
    Feature.MRG_RXBUF,
    Feature.HASH_REPORT,
}

EACH: tuple[Command, ...] = (
    MacAddrSet(MACS[0]),
    MacTableSet(MACS, GROUPS),
    MqPairsSet(4),
    MqRssConfig(frozenset({HashType.IPv4}), 0, (0, 1, 2, 3), 4, KEY),
    GuestOffloadsSet(frozenset({GuestOffload.GUEST_CSUM, GuestOffload.GUEST_TSO4})),
    CoalRxSet(max_packets=32, max_usecs=50),
    CoalTxSet(max_packets=64, max_usecs=100),
    CoalVqSet(queue=0, max_packets=16, max_usecs=25),
    VlanAdd(1),
    VlanAdd(4095),
    VlanDel(1),
    RxPromisc(on=False),
    RxAllMulti(on=True),
    RxAllUni(on=True),
    RxNoMulti(on=False),
    RxNoUni(on=False),
    RxNoBcast(on=True),
    HashTunnelSet(frozenset()),
)
"""Every command that a device takes for a state's sake."""


def cut(data: bytes, random: Random) -> list[bytes]:
    """The same in pieces, as a driver may have it."""
    places = sorted(random.sample(range(1, len(data)), min(len(data) - 1, random.randrange(4))))
    return [data[start:end] for start, end in itertools.pairwise([0, *places, len(data)])]


def captured(on: BackEnd) -> object:
    found = on.device.settings.found()
    assert found is not None
    return found


@pytest.mark.parametrize("event_idx", [False, True], ids=["flags", "event_idx"])
@pytest.mark.parametrize("way", list(Way), ids=lambda way: way.name.lower())
@pytest.mark.parametrize("regions", [1, 3])
async def test_the_capture_is_what_was_sent(event_idx: bool, way: Way, regions: int) -> None:
    features = EVERYTHING if event_idx else EVERYTHING - {Feature.RING_EVENT_IDX}
    guest = Guest(9, event_idx=event_idx, way=way, regions=regions)
    random = Random(regions)
    expected = Recorder(features)
    try:
        async with back_end() as on, vmm(on, features=features, guest=guest) as machine:
            await machine.start()
            for command in EACH:
                answer = await machine.command(*cut(command.encode(), random), room=[1, 3])
                assert answer == OK, command
                expected.fold(command.encode(), ACK_OK)
            assert captured(on) == expected.found()
            assert on.device.settings.counts.acked == len(EACH)
    finally:
        guest.close()


async def test_the_hash_that_is_reported() -> None:
    features = EVERYTHING - {Feature.RSS} | {Feature.HASH_REPORT}
    # As Linux 6.12 sends it: with reserved words that are not zero.
    command = bytearray(MqHashConfig(frozenset({HashType.IPv4}), KEY).encode())
    command[7] = 1
    expected = Recorder(features)
    expected.fold(bytes(command), ACK_OK)
    async with back_end() as on, vmm(on, features=features) as machine:
        await machine.start()
        assert await machine.command(bytes(command)) == OK
        assert captured(on) == expected.found()


async def test_4094_vlans_as_many_at_once_as_the_ring_takes() -> None:
    async with back_end() as on, vmm(on) as machine:
        await machine.start()
        answers = await machine.commands([VlanAdd(vid).encode() for vid in range(1, 4095)])
        assert set(answers) == {OK}
        state = on.device.settings.to_restore()
        assert state is not None
        assert state.vlans == tuple(range(1, 4095))
        # And all of them go back to the device.
        await machine.pause()
        assert on.device.report is not None
        assert on.device.report.applied == 4094


async def test_what_is_not_known_is_forwarded_and_missing() -> None:
    queue = InlineQueue(lambda _: OK)
    async with shadowing(queue) as (guest, recorder):
        request = guest.send([b"\x20\x05", b"what"], [1])
        await until(lambda: guest.returned)
        ((_, length, answer),) = guest.collect()
        assert (length, answer, request.readable) == (1, OK, queue.commands[0])
        (missing,) = recorder.found().missing
        assert missing.part == "class 32"


async def test_answers_longer_than_an_ack_reach_the_guest_whole() -> None:
    queue = InlineQueue(lambda command: OK + bytes(range(20)) if command[0] == 8 else OK)
    async with shadowing(queue) as (guest, recorder):
        guest.send([b"\x08\x00"], [1, 7, 100])
        await until(lambda: guest.returned)
        ((_, length, answer),) = guest.collect()
        assert answer[:length] == OK + bytes(range(20))
        assert recorder.found().missing == ()


async def test_the_guest_is_called_when_it_asks_for_it() -> None:
    async with back_end() as on, vmm(on) as machine:
        await machine.start()
        assert not called(machine.control)
        await machine.command(VlanAdd(1).encode())
        assert called(machine.control)


async def test_a_ring_without_a_kick_is_looked_at() -> None:
    queue = InlineQueue(lambda _: OK)
    async with shadowing(queue, kick=False) as (guest, _):
        guest.driver.submit([VlanAdd(1).encode()], [1], Way.DIRECT)
        guest.driver.publish()
        await until(lambda: guest.returned)


async def test_where_a_command_was_taken_and_not_returned_it_is_taken_anew() -> None:
    async with back_end() as on, vmm(on) as machine:
        await machine.start()
        machine.control.send([b"\x01"], [1])
        await until(lambda: on.device.status is Status.FAILED)
        machine.control.send([VlanAdd(1).encode()], [1])
        assert (await machine.stop())[-1] == 0


# --- what cannot be served ---


def _poke(guest: GuestQueue, *descriptors: tuple[int, int, int, int]) -> None:
    """Makes a chain of these descriptors available: address, length, flags, next."""
    driver = guest.driver
    request = driver.submit([b"\x00\x00\x00"], [1], Way.DIRECT)
    for place, (address, length, flags, following) in zip(request.heads, descriptors, strict=False):
        entry = address.to_bytes(8, "little") + length.to_bytes(4, "little")
        entry += flags.to_bytes(2, "little") + following.to_bytes(2, "little")
        driver.memory.poke(driver.descriptors + 16 * place, entry)
    guest.publish()


BAD: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "outside": ((0x666_0000, 3, NEXT, 1), (0x4000_0000, 1, WRITE, 0)),
    "no-ack": ((0x4080_0000, 3, 0, 0),),
    "loop": ((0x4080_0000, 3, NEXT, 0),),
    "past-the-ring": ((0x4080_0000, 3, NEXT, 999),),
    "huge": ((0x4080_0000, 0xFFFF_FFFF, NEXT, 1),),
    "bad-indirect": ((0x4080_0000, 7, INDIRECT, 0),),
    "empty": ((0x4080_0000, 0, NEXT, 1),),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_chain_that_makes_no_sense(name: str) -> None:
    async with back_end() as on, vmm(on) as machine:
        await machine.start()
        _poke(machine.control, *BAD[name])
        await until(lambda: on.device.status is Status.FAILED)
        assert on.device.needs_reset
        assert on.device.failure
        assert (await machine.stop())[-1] == 0


# --- a shadow by itself ---


@asynccontextmanager
async def shadowing(
    queue: InlineQueue, *, kick: bool = True
) -> AsyncIterator[tuple[GuestQueue, Recorder]]:
    """A shadow in front of a device that is served in its doorbell."""
    guest = Guest(1)
    (control,) = guest.queues
    memory = GuestMemory()
    for region in guest.regions:
        memory.add(Region(region.start, region.size), memoryview(region.mapping))
    recorder = Recorder(EVERYTHING)
    failures: list[VdpadError] = []
    shadow = Shadow(
        memory,
        _vring(control, kick=kick),
        EVERYTHING,
        Forwarder(queue, queue.geometry),
        lambda command, answer: recorder.fold(command, answer[0]),
        failures.append,
        lambda written: None,
    )
    shadow.begin()
    try:
        yield control, recorder
        assert failures == []
    finally:
        await shadow.stop()
        memory.release()
        guest.close()


async def test_a_guest_that_always_has_another_command_leaves_others_their_turn() -> None:
    left = 100

    def serve(command: bytes) -> bytes:
        nonlocal left
        left -= 1
        if left:
            control.collect()
            control.send([VlanAdd(left).encode()], [1])
        return OK

    turns = []
    async with shadowing(InlineQueue(serve)) as (control, _):
        control.send([VlanAdd(0).encode()], [1])
        while left:
            turns.append(left)
            await asyncio.sleep(0)
    assert len({*turns}) > 90


def _vring(queue: GuestQueue, *, kick: bool) -> GuestVring:
    driver = queue.driver
    addresses = SplitAddresses(driver.size, driver.descriptors, driver.available, driver.used)
    kicked = queue.kick if kick else None
    return GuestVring(queue.index, addresses, 0, True, kicked, queue.call, None)
