"""The back end's device on the software one, under front ends that go and front ends that lie."""

import asyncio
import threading
from collections.abc import AsyncIterator, Container, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest

from tests.backend.vmm import Heard
from tests.support.marks import in_bulk
from tests.vhost_user import front_end as page
from tests.vhost_user.fuzz.bench import Bench
from tests.vhost_user.fuzz.mutations import mutated
from tests.vhost_user.fuzz.script import HangUp, Message, Script, Shrink, Step, record
from vdpad.backend.device import BackEndDevice
from vdpad.backend.device_lifecycle import Status
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_offer import PACKET_CONFIG

_SESSIONS = 400
_AT_ONCE = 25
_SEED = 14
_A_WHILE = 20
_ABOUT_MOVING = (page.SET_DEVICE_STATE_FD, page.CHECK_DEVICE_STATE)


class CountingDevice(LoopDevice):
    """Counts its starts."""

    starts = 0

    def start(self) -> None:
        self.starts += 1
        super().start()


@asynccontextmanager
async def opened(queues: int) -> AsyncIterator[tuple[BackEndDevice, CountingDevice]]:
    """A back end's device with so many queues, and what is behind it."""
    device = CountingDevice(replace(PACKET_CONFIG, max_virtqueue_pairs=queues // 2))
    back_end = await BackEndDevice.open(device, "nic0", Heard().listeners())
    try:
        assert back_end.queues == queues
        yield back_end, device
    finally:
        await back_end.close()


async def waiting_for_state() -> None:
    """Returns when a state has been on its way for a while, which only a front end could end."""
    seen = 0
    while seen < _A_WHILE:
        on_its_way = any(thread.name == "device state" for thread in threading.enumerate())
        seen = seen + 1 if on_its_way else 0
        await asyncio.sleep(0.01)


async def check_honest(bench: Bench, device: CountingDevice, script: Script) -> None:
    """A front end that does everything right is served."""
    device.starts = 0
    held = await bench.hold(script)
    assert held.error is None
    # No field of the config space is a driver's to write.
    assert [each for each in held.refusals if "SET_CONFIG" not in each] == []
    assert device.starts > 0


async def scripts(*, moving: bool = False) -> tuple[Script, ...]:
    """What front ends say.

    Args:
        moving: with the states that were recorded too, which are none of a back end's.
    """
    left_out = () if moving else _ABOUT_MOVING
    return tuple(replace(each, steps=(*_but(left_out, each.steps),)) for each in await record())


def _but(left_out: Container[int], steps: Iterable[Step]) -> Iterable[Step]:
    for step in steps:
        assert isinstance(step, Message)
        if step.request == page.SET_VRING_BASE:
            # Nobody has used these rings, whatever was recorded.
            yield replace(step, payload=step.payload[:4] + bytes(4))
        elif step.request not in left_out:
            yield step


async def test_a_front_end_goes_at_every_message() -> None:
    for script in await scripts():
        async with opened(script.queues) as (back_end, device):
            bench = Bench(back_end)
            for said in range(len(script.steps) + 1):
                await bench.hold(replace(script, steps=(*script.steps[:said], HangUp())))
                assert back_end.status is Status.STOPPED
            await check_honest(bench, device, script)


@pytest.mark.parametrize("first", [0, *in_bulk(range(_AT_ONCE, _SESSIONS, _AT_ONCE))])
async def test_mutated_sessions(first: int) -> None:
    recorded = await scripts(moving=True)
    honest = {each.name: each for each in await scripts()}
    for number in range(first, first + _AT_ONCE):
        script = mutated(Random(f"{_SEED} {number}"), recorded)
        # Memory that shrinks ends the process (test_shrinking_memory.py).
        steps = tuple(step for step in script.steps if not isinstance(step, Shrink))
        async with opened(script.queues) as (back_end, device):
            bench = Bench(back_end, waiting_for_state)
            await bench.hold(replace(script, steps=steps))
            assert back_end.status is not Status.RUNNING
            await check_honest(bench, device, honest[script.name])
