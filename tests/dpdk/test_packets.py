"""Packets that testpmd sends go round the software device and come back, all of them."""

import asyncio
import re
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.backend.devices import NeverSuspended
from tests.backend.vmm import BackEnd, back_end
from tests.dpdk.testpmd import Testpmd, run_testpmd
from tests.support.descriptors import no_descriptor_left
from tests.support.waiting import GUARD, until
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_device import PacketDevice
from vdpad.virtio.features import Feature

BURST = 32
"""How many packets `start tx_first` sends on each queue pair. They go round from then on."""
SOME = 50_000
CARDS = ("mergeable", "not-mergeable")
TWO_BUFFERS = (
    *("--txpkts=1500,1500", "--tx-offloads=0x8000"),  # of two segments each
    *("--rx-offloads=0x2000", "--max-pkt-len=4000"),  # that a receiver may scatter
)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What testpmd has counted of its port since it began."""

    received: int
    received_bytes: int
    sent: int
    sent_bytes: int
    wrong: int
    """Missed, without a buffer, or in error."""


async def statistics(running: Testpmd) -> Statistics:
    """What it says of its port."""
    said = await running.tell("show port stats all")
    counted = {name: int(number) for name, number in re.findall(r"([RT]X-\w+):\s*(\d+)", said)}
    return Statistics(
        received=counted["RX-packets"],
        received_bytes=counted["RX-bytes"],
        sent=counted["TX-packets"],
        sent_bytes=counted["TX-bytes"],
        wrong=sum(counted[name] for name in ("RX-missed", "RX-errors", "RX-nombuf", "TX-errors")),
    )


async def received(running: Testpmd, number: int) -> None:
    """Returns once it has received so many packets."""
    async with asyncio.timeout(GUARD):
        while (await statistics(running)).received < number:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.1)


@dataclass
class Loop:
    """A back end on a software device, which listens."""

    path: Path
    device: PacketDevice
    on: BackEnd


@asynccontextmanager
async def looping(
    path: Path, begin: Callable[[], PacketDevice] = LoopDevice
) -> AsyncIterator[Loop]:
    """One that serves front ends one after the other; at the end nothing is left of it.

    Args:
        path: where front ends connect.
        begin: makes its device.
    """
    with no_descriptor_left(), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        device = begin()
        async with back_end(device) as on:
            serving = asyncio.create_task(_serve(on, listener))
            yield Loop(path, device, on)
            serving.cancel()
            await asyncio.wait([serving])
            assert serving.cancelled(), serving.exception()
        assert on.refusals == []


async def _serve(on: BackEnd, listener: socket.socket) -> None:
    while True:
        await on.front_ends.serve_next(listener)


def has_in_order(loop: Loop) -> bool:
    """Whether testpmd has taken IN_ORDER."""
    session = loop.on.front_ends.session
    assert session is not None
    return Feature.IN_ORDER in session.features


async def check_loop(loop: Loop, running: Testpmd, pairs: int, size: int = 64) -> None:
    """Packets go round on each pair; none is lost, and none gets longer or shorter."""
    await running.tell("start tx_first")
    await received(running, SOME)
    streams = await running.tell("show fwd stats all")
    counted = [int(number) for number in re.findall(r"RX-packets: (\d+) +TX-packets", streams)]
    assert len(counted) == (pairs if pairs > 1 else 0)
    assert all(number > 0 for number in counted)
    assert "TX-dropped: 0 " in await running.tell("stop")
    # Those that were on their way come round, and stay in the receive rings.
    told = await statistics(running)
    assert told.sent - told.received == pairs * BURST
    assert (told.sent_bytes, told.received_bytes) == (size * told.sent, size * told.received)
    assert told.wrong == 0
    await until(lambda: loop.device.packets == told.sent)
    # Those are read first, and all goes on.
    await running.tell("start")
    await received(running, told.received + SOME // 10)


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize("card", ["", ",mrg_rxbuf=0"], ids=CARDS)
async def test_packets_go_round(tmp_path: Path, pairs: int, card: str) -> None:
    async with looping(tmp_path / "back-end") as loop:
        for _ in range(2):
            async with run_testpmd(loop.path, pairs=pairs, card=card) as running:
                await check_loop(loop, running, pairs)
                assert has_in_order(loop)
                await running.quit()
            await until(lambda: loop.on.front_ends.session is None)


@pytest.mark.parametrize("card", [",mrg_rxbuf=1", ",mrg_rxbuf=0"], ids=CARDS)
async def test_without_in_order(tmp_path: Path, card: str) -> None:
    async with (
        looping(tmp_path / "back-end") as loop,
        run_testpmd(loop.path, card=f"{card},in_order=0") as running,
    ):
        await check_loop(loop, running, 1)
        assert not has_in_order(loop)


async def test_one_in_order_tells_where_it_has_left_its_queues(tmp_path: Path) -> None:
    """Although it cannot be suspended, and nobody has said that it works so."""
    async with looping(tmp_path / "back-end", NeverSuspended) as loop:
        for _ in range(2):
            async with run_testpmd(loop.path) as running:
                await check_loop(loop, running, 1)
                assert has_in_order(loop)
                await running.quit()
            await until(lambda: loop.on.front_ends.session is None)
            bases = loop.on.device.settings.bases
            assert len(bases) == 2
            assert all(bases.values())


async def test_a_packet_in_two_buffers(tmp_path: Path) -> None:
    async with (
        looping(tmp_path / "back-end") as loop,
        run_testpmd(loop.path, options=TWO_BUFFERS) as running,
    ):
        await check_loop(loop, running, 1, size=3000)


async def test_killed_amid_packets(tmp_path: Path) -> None:
    random = Random(14)
    async with looping(tmp_path / "back-end") as loop:
        for _ in range(8):
            async with run_testpmd(loop.path, pairs=2) as running:
                await running.tell("start tx_first")
                await asyncio.sleep(random.uniform(0, 0.2))
            await until(lambda: loop.on.front_ends.session is None)
        async with run_testpmd(loop.path, pairs=2) as running:
            await check_loop(loop, running, 2)


async def test_a_back_end_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "front-end"
    async with run_testpmd(path, pairs=2, card=",server=1") as running:
        for number in range(4):
            await until(path.exists)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.backend.back_end_process", path), stderr=PIPE
            )
            if number == 0:
                await running.tell("start tx_first")
            told = await statistics(running)
            await received(running, told.received + SOME)
            process.kill()
            await process.communicate()
        told = await statistics(running)
        # Frames that were on their way may come twice or be lost, but no more than there were.
        assert abs(told.sent - told.received - 2 * BURST) <= 4 * 2 * BURST
        assert told.wrong == 0
