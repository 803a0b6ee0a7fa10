"""testpmd's packets go on while one device takes another's place, again and again."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.backend.moving.faulty_device import FaultyDevice
from tests.backend.process import BackEndProcess
from tests.dpdk.test_packets import BURST, Loop, looping, received, statistics
from tests.dpdk.test_relaying import some_log
from tests.dpdk.testpmd import Testpmd, run_testpmd
from tests.support.forker import forker_of
from tests.support.waiting import until
from vdpad.backend.device_lifecycle import Status
from vdpad.errors import VdpadError
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_device import PacketDevice

PAIRS = 2
SWITCHES, COMMANDED = 50, 4
FAILS_WITH = {"negotiate", "map", "set_vring", "start", "control_queue", "enable"}
"""Steps of a device that is to take over."""


async def gone_round(device: PacketDevice) -> None:
    """Returns once packets have gone round by a device, more than were on their way."""
    before = device.packets
    await until(lambda: device.packets > before + 2 * PAIRS * BURST)


async def check_all_there(running: Testpmd) -> None:
    """Those that were on their way stay in the receive rings, and are no more and no fewer."""
    assert re.search("TX-dropped: 0 ", await running.tell("stop"))
    told = await statistics(running)
    assert told.sent - told.received == PAIRS * BURST
    assert (told.sent_bytes, told.received_bytes) == (64 * told.sent, 64 * told.received)
    assert told.wrong == 0
    await running.tell("start")
    await received(running, told.received + 1000)


async def begin(running: Testpmd) -> None:
    """Packets go round from now on."""
    await running.tell("start tx_first")
    await received(running, 1000)


@pytest.mark.parametrize("card", ["", ",mrg_rxbuf=0"], ids=["mergeable", "not-mergeable"])
async def test_nothing_is_lost_or_doubled_over_many_switches(tmp_path: Path, card: str) -> None:
    """Every other while memory is logged."""
    async with (
        looping(tmp_path / "back-end") as loop,
        run_testpmd(loop.path, pairs=PAIRS, card=card) as running,
    ):
        await begin(running)
        for turn in range(SWITCHES):
            with some_log() as log:
                await loop.on.device.log(log if turn % 2 else None)
                other = LoopDevice()
                report = await loop.on.device.switching.switch(lambda: other)  # noqa: B023
                assert report.paused_us > 0
                await gone_round(other)
                await loop.on.device.log(None)
            assert loop.device.dropped == other.dropped == 0
        await check_all_there(running)


async def _fails(loop: Loop, other: LoopDevice) -> bool:
    try:
        await loop.on.device.switching.switch(lambda: other)
    except VdpadError:
        return True
    return False


async def test_wherever_the_other_fails_packets_go_on_by_the_first(tmp_path: Path) -> None:
    async with (
        looping(tmp_path / "back-end") as loop,
        run_testpmd(loop.path, pairs=PAIRS) as running,
    ):
        await begin(running)
        failed: list[str] = []
        other = FaultyDevice()
        other.fail_at(1)
        while await _fails(loop, other):
            failed.append(other.steps[len(failed)])
            assert loop.on.device.status is Status.RUNNING
            await gone_round(loop.device)
            other = FaultyDevice()
            other.fail_at(len(failed) + 1)
        # What comes once it has taken over is of no matter.
        other.before = lambda step: None
        assert {*failed} >= FAILS_WITH
        await gone_round(other)
        await check_all_there(running)


async def test_wherever_the_first_fails_packets_go_on_by_it(tmp_path: Path) -> None:
    async with (
        looping(tmp_path / "back-end", FaultyDevice) as loop,
        run_testpmd(loop.path, pairs=PAIRS) as running,
    ):
        first = loop.device
        assert isinstance(first, FaultyDevice)
        await begin(running)
        failed: list[str] = []
        first.fail_at(1)
        while await _fails(loop, other := LoopDevice()):
            failed.append(first.steps[len(failed)])
            first.fail_at(len(failed) + 1)
            await gone_round(first)
        assert failed == ["suspend", *["base"] * 2 * PAIRS]
        await gone_round(other)
        await check_all_there(running)


# --- as an operator has it ---


def switched(back_end: BackEndProcess) -> Any:
    """What `vdpactl switch` prints of a switch to another software device."""
    asked = ("--backend", back_end.control, "switch", "--software", "loop", "--json")
    done = forker_of("vdpad.cli.vdpactl").text(*asked)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


async def test_by_the_command_line(tmp_path: Path) -> None:
    process = BackEndProcess(tmp_path, "--stay").ready()
    try:
        async with run_testpmd(process.front_end, pairs=PAIRS) as running:
            await begin(running)
            for _ in range(COMMANDED):
                told = await statistics(running)
                report = await asyncio.to_thread(switched, process)
                assert (report["outcome"], report["paused_us"] > 0) == ("restored", True)
                await received(running, told.received + 1000)
            await check_all_there(running)
        assert len(process.events("device-switched")) == COMMANDED
    finally:
        process.stop()
