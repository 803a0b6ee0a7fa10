"""testpmd's packets go on while its memory begins and ends to be logged, again and again."""

import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.backend.devices import NeverResumed
from tests.dpdk.test_packets import BURST, Loop, looping, received, statistics
from tests.dpdk.testpmd import run_testpmd
from tests.support.waiting import until
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.vhost_user.dirty_log import DirtyLog

SWITCHES = 100

_LOG = 1 << 40 >> 12 >> 3
"""Of all addresses below 1 TiB, of which testpmd has some; one bit a page."""


@contextmanager
def some_log() -> Iterator[DirtyLog]:
    """One of nobody's; at the end of the context nothing marks in it."""
    log = DirtyLog(mmap.mmap(-1, _LOG))
    yield log
    log.close()


async def gone_round(loop: Loop, pairs: int) -> None:
    """Returns once packets have gone round in this start, more than were on their way."""
    before = loop.device.packets
    await until(lambda: loop.device.packets > before + 2 * pairs * BURST)


@pytest.mark.parametrize("kind", [LoopDevice, NeverResumed])
@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize("card", ["", ",mrg_rxbuf=0"], ids=["mergeable", "not-mergeable"])
async def test_nothing_is_lost_or_doubled_over_a_hundred_switches(
    tmp_path: Path, pairs: int, card: str, kind: type[LoopDevice]
) -> None:
    async with (
        looping(tmp_path / "back-end", kind) as loop,
        run_testpmd(loop.path, pairs=pairs, card=card) as running,
    ):
        await running.tell("start tx_first")
        await received(running, 1000)
        device = loop.on.device
        for _ in range(SWITCHES):
            with some_log() as log:
                await device.log(log)
                logged = device.logged
                assert logged is not None
                assert logged.way == "relay"
                await gone_round(loop, pairs)
                await device.log(None)
                assert log.marked > 0
            await gone_round(loop, pairs)
        assert re.search("TX-dropped: 0 ", await running.tell("stop"))
        told = await statistics(running)
        # Those that were on their way stay in the receive rings, and are no more and no fewer.
        assert told.sent - told.received == pairs * BURST
        assert (told.sent_bytes, told.received_bytes) == (64 * told.sent, 64 * told.received)
        assert told.wrong == 0
        if kind is LoopDevice:  # the other counts anew at each restart
            await until(lambda: loop.device.packets == told.sent)
        await running.tell("start")
        await received(running, told.received + 1000)
