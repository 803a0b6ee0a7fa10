"""Frames that the host sends through a TAP interface reach testpmd, which sends them back."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.dpdk.test_packets import Loop, looping
from tests.dpdk.test_relaying import SWITCHES, some_log
from tests.dpdk.testpmd import run_testpmd
from tests.support.namespaces import taps, why_no_taps
from tests.support.tap_ends import HostEnd, tap_ends
from tests.support.waiting import GUARD, until
from vdpad.backend.device import BackEndDevice
from vdpad.queues.software.tap import Tap
from vdpad.queues.software.tap_device import TapDevice

ONE, OTHER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
EXPERIMENT = bytes.fromhex("88b5")
FRAMES = 20_000
AT_ONCE = 100
CARDS = {"": "mergeable", ",mrg_rxbuf=0": "not-mergeable"}


def frame(number: int, destination: bytes, source: bytes) -> bytes:
    """One that can be told from others, of another length than its neighbours."""
    said = number.to_bytes(4, "big") + bytes(50 + number % 1400)
    return destination + source + EXPERIMENT + said


async def sent_and_heard(host: HostEnd, more: Callable[[int], bool]) -> Counter[bytes]:
    """Sends frames, no more at once than the interface has room for; what came back.

    Args:
        host: where they are sent.
        more: says by their number whether there are any.
    """
    heard: Counter[bytes] = Counter()
    number = 0
    async with asyncio.timeout(GUARD):
        while more(number) or heard.total() < number:
            while more(number) and number - heard.total() < AT_ONCE:
                host.send(frame(number, ONE, OTHER))
                number += 1
            heard.update(host.received())
            await asyncio.sleep(0)
    return heard


@dataclass(frozen=True)
class Swapping:
    """A testpmd that sends back what comes by the interface, and the interface's other end."""

    loop: Loop
    host: HostEnd


@asynccontextmanager
async def swapping(folder: Path, card: str = "") -> AsyncIterator[Swapping]:
    """One that has begun; nothing is dropped until the end of the context."""
    skip_or_fail(why_no_taps())
    with taps("tap0") as within, tap_ends(within, "tap0") as (tap, host):
        async with (
            looping(folder / "back-end", lambda: _on_a_copy_of(tap)) as loop,
            run_testpmd(loop.path, card=card, options=("--forward-mode=macswap",)) as running,
        ):
            await running.tell("start")
            yield Swapping(loop, host)
            assert loop.device.dropped == 0
        tap.close()


def _on_a_copy_of(tap: Tap) -> TapDevice:
    return TapDevice(Tap(os.dup(tap.fd), tap.name))


def check_each_came_once(heard: Counter[bytes]) -> None:
    """None is lost, none comes twice, and none is another."""
    assert heard == Counter(frame(number, OTHER, ONE) for number in range(heard.total()))


@pytest.mark.parametrize("card", CARDS, ids=CARDS.values())
async def test_frames_come_back_with_their_addresses_swapped(tmp_path: Path, card: str) -> None:
    async with swapping(tmp_path, card) as on:
        heard = await sent_and_heard(on.host, lambda number: number < FRAMES)
        check_each_came_once(heard)


async def test_each_comes_once_while_memory_is_logged_and_is_not(tmp_path: Path) -> None:
    """A hundred times there and back, of which the guest hears nothing."""
    async with swapping(tmp_path) as on:
        switching = asyncio.create_task(_log_again_and_again(on.loop.on.device))
        heard = await sent_and_heard(on.host, lambda _number: not switching.done())
        await switching
        check_each_came_once(heard)
        assert heard.total() > SWITCHES


async def _log_again_and_again(device: BackEndDevice) -> None:
    for _ in range(SWITCHES):
        with some_log() as log:
            await device.log(log)
            logged = device.logged
            assert logged is not None
            assert logged.way == "relay"
            await until(lambda: log.marked > 0)
            await device.log(None)
        await asyncio.sleep(0.01)
