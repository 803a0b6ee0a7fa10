"""Steps on threads: one at a time, also where whoever asked is gone."""

import asyncio
import errno
import threading

import pytest

from vdpad.backend.faults import BackEndError
from vdpad.backend.steps import Steps
from vdpad.vhost_user.faults import NoMeans


async def test_a_step_gives_what_came_of_it() -> None:
    steps = Steps()
    assert await steps.take(lambda: 7) == 7
    here = threading.get_ident()
    assert await steps.take(threading.get_ident) != here


async def test_what_a_step_raises_is_its_asker_s_alone() -> None:
    def fail() -> None:
        raise BackEndError("no")

    steps = Steps()
    with pytest.raises(BackEndError, match="no"):
        await steps.take(fail)
    assert await steps.take(lambda: 7) == 7


async def test_what_the_system_refuses_a_step_is_an_error_of_ours() -> None:
    def refused() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    steps = Steps()
    with pytest.raises(NoMeans, match="got Too many open files"):
        await steps.take(refused)
    assert await steps.take(lambda: 7) == 7


async def test_a_step_whose_asker_was_cancelled_is_waited_for_by_the_next() -> None:
    steps = Steps()
    gate, began, done = threading.Event(), asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def first() -> None:
        loop.call_soon_threadsafe(began.set)
        gate.wait()
        done.append("first")

    asking = asyncio.create_task(steps.take(first))
    await began.wait()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    others = [
        asyncio.create_task(steps.take(lambda: done.append("second"))),
        asyncio.create_task(steps.take(lambda: done.append("third"))),
    ]
    await asyncio.sleep(0)
    assert done == []
    gate.set()
    await asyncio.gather(*others)
    assert done == ["first", "second", "third"]


async def test_a_step_is_taken_whose_asker_was_cancelled_before_its_turn() -> None:
    steps = Steps()
    gate, began, done = threading.Event(), asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def first() -> None:
        loop.call_soon_threadsafe(began.set)
        gate.wait()

    going = asyncio.create_task(steps.take(first))
    await began.wait()
    asking = asyncio.create_task(steps.take(lambda: done.append("second")))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    gate.set()
    await going
    await steps.take(lambda: done.append("third"))
    assert done == ["second", "third"]


async def test_a_step_that_takes_long_is_looked_after() -> None:
    """It may sleep in a notification, which another thread ends."""
    steps = Steps()
    gate = threading.Event()
    unblocked: list[int] = []

    def unblock() -> None:
        unblocked.append(threading.get_ident())
        gate.set()

    steps.unblock = unblock
    await steps.take(lambda: None)
    assert await steps.take(gate.wait)
    assert unblocked == [threading.get_ident()]
