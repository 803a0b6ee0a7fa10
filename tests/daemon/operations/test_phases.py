"""A commit under way, and those who wait for it."""

import asyncio

import pytest

from tests.daemon.records.recording import failure, success
from vdpad.daemon.operations.phases import _MAX_WAITING, Commit, outcome
from vdpad.daemon.records.endings import Failure, Success
from vdpad.service.refusal import Kind, Refusal


class Ending:
    """A commit that ends when it is told to."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Success | Failure] = asyncio.get_running_loop().create_future()
        self.commit = Commit(asyncio.create_task(self._run()))

    async def _run(self) -> Success | Failure:
        return await self.future


async def test_all_who_wait_get_the_same_end() -> None:
    ending = Ending()
    waiting = [asyncio.create_task(outcome(ending.commit)) for _ in range(_MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Refusal, match="ask for its status") as caught:
        await outcome(ending.commit)
    assert caught.value.kind is Kind.OVERLOADED
    ending.future.set_result(success())
    assert await asyncio.gather(*waiting) == [success().report] * _MAX_WAITING


async def test_who_gives_up_leaves_it_running_and_makes_room() -> None:
    ending = Ending()
    waiting = [asyncio.create_task(outcome(ending.commit)) for _ in range(_MAX_WAITING)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    assert not ending.commit.task.done()
    waiting[0] = asyncio.create_task(outcome(ending.commit))
    await asyncio.sleep(0)
    ending.future.set_result(success())
    assert await asyncio.gather(*waiting) == [success().report] * _MAX_WAITING


async def test_a_failure_is_refused_with_its_report() -> None:
    failed = failure("the device refused 1 of 200 commands")
    assert failed.report is not None
    with pytest.raises(Refusal, match="refused 1 of 200") as caught:
        await outcome(failed)
    assert caught.value.kind is Kind.REJECTED
    assert caught.value.data == {"report": failed.report.to_json()}


async def test_a_fault_of_ours_is_refused_without_one() -> None:
    with pytest.raises(Refusal) as caught:
        await outcome(Failure(failure=(Kind.INTERNAL, "see the journal")))
    assert (caught.value.kind, caught.value.data) == (Kind.INTERNAL, {})
