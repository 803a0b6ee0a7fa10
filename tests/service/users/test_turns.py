"""Turns: one at a time, and next who has had the least."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.waiting import GUARD
from vdpad.service.users.turns import Turns

ALICE, BOB, CAROL = 1000, 1001, 1002


class Clock:
    """Goes on as it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Crowd:
    """Work of users, each of so many seconds, and the order in which it is done."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock)
        self.done: list[int] = []
        self.rounds: list[int] = []
        """The loop's round in which each was done."""
        self._round = 0

    async def work(self, user: int, seconds: float) -> None:
        await self.turns.step(user)
        self.clock.now += seconds
        self.done.append(user)
        self.rounds.append(self._round)

    async def until_done(self, count: int) -> None:
        """Returns once so many are done."""
        while len(self.done) < count:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def count(self) -> None:
        while True:
            self._round += 1
            await asyncio.sleep(0)


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    made = Crowd()
    counting = asyncio.create_task(made.count())
    yield made
    counting.cancel()


async def test_who_is_alone_waits_for_nothing(crowd: Crowd) -> None:
    step = crowd.turns.step(ALICE)
    with pytest.raises(StopIteration):
        step.send(None)


async def test_the_loop_goes_round_between_two(crowd: Crowd) -> None:
    await asyncio.gather(*(crowd.work(ALICE, 0.01) for _ in range(20)))
    assert all(b > a for a, b in zip(crowd.rounds, crowd.rounds[1:], strict=False))


async def test_short_work_of_one_user_shares_a_turn(crowd: Crowd) -> None:
    await asyncio.gather(*(crowd.work(ALICE, 0.0002) for _ in range(20)))
    per_turn = [crowd.rounds.count(each) for each in sorted(set(crowd.rounds))]
    assert per_turn == [5] * 4


async def test_one_user_s_work_is_done_in_its_order(crowd: Crowd) -> None:
    order: list[int] = []

    async def work(number: int, seconds: float) -> None:
        await crowd.work(ALICE, seconds)
        order.append(number)

    await asyncio.gather(*(work(at, 0.0004 if at % 5 else 0.01) for at in range(100)))
    assert order == list(range(100))


async def test_long_work_of_one_waits_behind_the_short_work_of_another(crowd: Crowd) -> None:
    long = [crowd.work(ALICE, 0.05) for _ in range(100)]
    short = [crowd.work(BOB, 0.0001) for _ in range(20)]
    await asyncio.gather(*long, *short)
    # One of hers was begun before he came.
    assert crowd.done[1:21] == [BOB] * 20


async def test_equal_users_have_equal_time(crowd: Crowd) -> None:
    await asyncio.gather(
        *(crowd.work(ALICE, 0.03) for _ in range(30)), *(crowd.work(BOB, 0.01) for _ in range(90))
    )
    # For each of hers three of his.
    assert 6 <= crowd.done[:40].count(ALICE) <= 14


async def test_who_comes_late_does_not_make_up_for_all_that_was(crowd: Crowd) -> None:
    early = [asyncio.create_task(crowd.work(ALICE, 0.04)) for _ in range(200)]
    await crowd.until_done(100)
    late = [asyncio.create_task(crowd.work(BOB, 0.04)) for _ in range(100)]
    await asyncio.gather(*early, *late)
    assert 40 <= crowd.done[100:200].count(BOB) <= 60


async def test_who_has_asked_for_little_comes_soon(crowd: Crowd) -> None:
    """However many others there are, and whatever they have had."""
    for user in (ALICE, BOB):
        for _ in range(100):
            asyncio.create_task(crowd.work(user, 0.05))  # noqa: RUF006
    await crowd.until_done(100)
    await crowd.work(CAROL, 0.001)
    assert crowd.done.index(CAROL) <= 103


async def test_one_that_gives_up_holds_up_nobody(crowd: Crowd) -> None:
    first, second, third = (asyncio.create_task(crowd.work(ALICE, 0.01)) for _ in range(3))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, third)
    # And when its turn has come in the same moment.
    first, second, third = (asyncio.create_task(crowd.work(ALICE, 0.01)) for _ in range(3))
    await first
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(third)


@pytest.mark.parametrize("after", range(12))
async def test_whenever_one_gives_up_the_next_has_its_turn(crowd: Crowd, after: int) -> None:
    tasks = [asyncio.create_task(crowd.work(user, 0.01)) for user in (ALICE, BOB, ALICE, BOB)]
    for _ in range(after):
        await asyncio.sleep(0)
    tasks[1].cancel()
    async with asyncio.timeout(GUARD):
        await asyncio.gather(*tasks, return_exceptions=True)
        await crowd.work(CAROL, 0.01)


async def test_a_turn_lasts_as_long_as_its_context() -> None:
    turns, log = Turns(), []

    async def use(user: int) -> None:
        async with turns.of(user):
            log.append(("in", user))
            await asyncio.sleep(0)
            log.append(("out", user))

    await asyncio.gather(use(ALICE), use(BOB), use(ALICE))
    assert [what for what, _ in log] == ["in", "out"] * 3
    assert [user for _, user in log[::2]] == [ALICE, BOB, ALICE]
