"""Frames that the host sends through a TAP interface reach testpmd, which sends them back."""

import asyncio
import socket
from collections import Counter
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.backend.vmm import back_end
from tests.dpdk.testpmd import Testpmd, run_testpmd
from tests.support.namespaces import taps, why_no_taps
from tests.support.tap_ends import HostEnd, tap_ends
from tests.support.waiting import GUARD
from vdpad.queues.software.tap_device import TapDevice

ONE, OTHER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
EXPERIMENT = bytes.fromhex("88b5")
FRAMES = 20_000
AT_ONCE = 100


def frame(number: int, destination: bytes, source: bytes) -> bytes:
    """One that can be told from others, of another length than its neighbours."""
    said = number.to_bytes(4, "big") + bytes(50 + number % 1400)
    return destination + source + EXPERIMENT + said


async def sent_and_heard(host: HostEnd) -> Counter[bytes]:
    """Sends all frames, no more at once than the interface has room for; what came back."""
    heard: Counter[bytes] = Counter()
    number = 0
    async with asyncio.timeout(GUARD):
        while heard.total() < FRAMES:
            while number < FRAMES and number - heard.total() < AT_ONCE:
                host.send(frame(number, ONE, OTHER))
                number += 1
            heard.update(host.received())
            await asyncio.sleep(0)
    return heard


@pytest.mark.parametrize("card", ["", ",mrg_rxbuf=0"], ids=["mergeable", "not-mergeable"])
async def test_frames_come_back_with_their_addresses_swapped(tmp_path: Path, card: str) -> None:
    skip_or_fail(why_no_taps())
    with taps("tap0") as within, tap_ends(within, "tap0") as (tap, host):
        device = TapDevice(tap)
        async with back_end(device) as on:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.bind(str(tmp_path / "back-end"))
                listener.listen()
                listener.setblocking(False)
                serving = asyncio.create_task(on.front_ends.serve_next(listener))
                swapping = ("--forward-mode=macswap",)
                async with run_testpmd(
                    tmp_path / "back-end", card=card, options=swapping
                ) as running:
                    await _check(running, host)
                    assert device.dropped == 0
                await serving


async def _check(running: Testpmd, host: HostEnd) -> None:
    await running.tell("start")
    heard = await sent_and_heard(host)
    assert heard == Counter(frame(number, OTHER, ONE) for number in range(FRAMES))
