"""A testpmd starts a device, stops it, starts it anew, is killed, and sees its back end go."""

import asyncio
import socket
from pathlib import Path
from random import Random

import pytest

from tests.dpdk.testpmd import RING_SIZE, Testpmd, run_testpmd
from tests.support.waiting import until
from tests.vhost_user.back_end import back_end
from tests.vhost_user.recording_device import FEATURES, RecordingDevice
from vdpad.vhost_user.device import Start
from vdpad.vhost_user.front_ends import FrontEnds
from vdpad.virtio.features import Feature

BURST = 32
"""How many packets `start tx_first` sends of its own."""


def card() -> RecordingDevice:
    """Two queue pairs, a control queue that testpmd keeps to itself, and an offload to choose."""
    return RecordingDevice(queues=5, features=FEATURES | {Feature.CSUM, Feature.GUEST_CSUM})


def check_start(start: Start, pairs: int) -> None:
    """All rings of a driver that begins."""
    assert [vring.index for vring in start.vrings] == [*range(2 * pairs)]
    assert start.is_fresh
    assert Feature.CTRL_VQ not in start.features
    assert {Feature.VERSION_1, Feature.MRG_RXBUF} <= start.features
    for vring in start.vrings:
        assert vring.addresses.size == RING_SIZE
        assert vring.is_enabled == (vring.index < 2)
        assert None not in (vring.kick, vring.call)


def available(start: Start, index: int) -> int:
    """How many chains the driver has made available in a ring."""
    return int.from_bytes(
        start.memory.read(start.vrings[index].addresses.available + 2, 2), "little"
    )


async def check_memory(running: Testpmd, start: Start) -> None:
    """What testpmd writes to its rings stands where its messages say."""
    assert available(start, 1) == 0
    await running.tell("start tx_first")
    assert available(start, 0) == RING_SIZE
    assert available(start, 1) == BURST
    assert f"TX-packets: {BURST}" in await running.tell("stop")


@pytest.mark.parametrize("pairs", [1, 2])
async def test_start_stop_and_start_again(tmp_path: Path, pairs: int) -> None:
    async with back_end(tmp_path / "back-end", card()) as served:
        for number in (1, 3):
            async with run_testpmd(served.path, pairs=pairs) as running:
                check_start(await served.start(number), pairs)
                await check_memory(running, served.device.starts[-1])
                await running.tell("port stop all")
                # Another feature, so that it negotiates anew.
                await running.tell("port config 0 rx_offload udp_cksum on")
                await running.tell("port start all")
                start = await served.start(number + 1)
                check_start(start, pairs)
                assert Feature.GUEST_CSUM in start.features
                assert Feature.GUEST_CSUM not in served.device.starts[-2].features
                await running.quit()
            await served.stop(number + 1)


async def test_without_mergeable_buffers(tmp_path: Path) -> None:
    async with back_end(tmp_path / "back-end", card()) as served:
        async with run_testpmd(served.path, card=",mrg_rxbuf=0") as running:
            start = await served.start(1)
            assert Feature.MRG_RXBUF not in start.features
            await check_memory(running, start)
        await served.stop(1)


async def test_killed_at_random_moments(tmp_path: Path) -> None:
    random = Random(14)
    async with back_end(tmp_path / "back-end", card()) as served:
        for _ in range(20):
            async with run_testpmd(served.path, pairs=2):
                # It starts the device after about a fifth of a second, where nobody else works.
                await asyncio.sleep(random.uniform(0.05, 0.4))
            await until(lambda: served.front_ends.session is None)
        number = len(served.device.starts) + 1
        async with run_testpmd(served.path, pairs=2) as running:
            await served.start(number)
            await check_memory(running, served.device.starts[-1])


async def test_its_back_end_goes_and_comes_back(tmp_path: Path) -> None:
    device, path = card(), tmp_path / "front-end"
    refusals: list[str] = []
    front_ends = FrontEnds(device, lambda request, error: refusals.append(f"{request}: {error}"))
    async with run_testpmd(path, card=",server=1") as running:
        for number in range(1, 5):
            session = asyncio.create_task(front_ends.serve(await connected(path)))
            start = await started(device, number)
            check_start(start, 1)
            if number == 1:
                await check_memory(running, start)
            # The rings are where they were, with all that is in them.
            assert available(start, 1) == BURST
            session.cancel()
            await asyncio.wait([session])
            assert device.started is None
    assert refusals == []


async def started(device: RecordingDevice, number: int) -> Start:
    """The device's start of this number, once it has come."""
    await until(lambda: len(device.starts) == number)
    return device.starts[-1]


async def connected(path: Path) -> socket.socket:
    """A connection to a testpmd that listens, as soon as it does."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await until(lambda: connection.connect_ex(str(path)) == 0)
    return connection
