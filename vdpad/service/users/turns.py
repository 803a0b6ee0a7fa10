"""Turns: one user at a time, and next of those that wait whoever has had the least time.

What keeps the event loop keeps it from everybody. So whoever is about to do so waits for a turn,
which lasts until the loop has gone round once (`step`): others are served in between, and one
user's long pieces of work wait behind another's short ones. Other things that only one may have at
a time go by turns too (`of`).

Time is counted while anybody waits. Who comes anew has had what those that wait have had at the
least, less a little, so that he comes soon and cannot make up for all the time that he was away.

Model: Linux's fair scheduler, which runs whoever has run the least.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

# How much less, in seconds: the longest piece of work.
_CREDIT = 0.05


class Turns:
    """Who has the turn, and who waits for one."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._user: int | None = None
        """Whose turn it is; somebody's if anybody waits."""
        self._began = 0.0
        self._had: dict[int, float] = {}
        """Seconds since nobody waited, by user."""
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}

    async def step(self, user: int) -> None:
        """Returns at the beginning of the user's turn, which lasts until the loop has gone round.

        On cancellation there is no turn.
        """
        await self._begin(user)
        asyncio.get_running_loop().call_soon(self._end)

    @asynccontextmanager
    async def of(self, user: int) -> AsyncIterator[None]:
        """The user's turn lasts for as long as the context. On cancellation it ends."""
        await self._begin(user)
        try:
            yield
        finally:
            self._end()

    async def _begin(self, user: int) -> None:
        if self._user is None:
            self._user = user
        else:
            await self._wait(user)
        self._began = self._clock()

    async def _wait(self, user: int) -> None:
        come: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if user not in self._waiting:
            self._had[user] = max(self._had.get(user, 0.0), self._least() - _CREDIT)
            self._waiting[user] = deque()
        self._waiting[user].append(come)
        try:
            await come
        except asyncio.CancelledError:
            if not come.cancelled():
                self._pass_on()
            raise

    def _least(self) -> float:
        return min((self._had[each] for each in self._waiting), default=0.0)

    def _end(self) -> None:
        assert self._user is not None
        self._had[self._user] = self._had.get(self._user, 0.0) + self._clock() - self._began
        self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            user = min(self._waiting, key=self._had.__getitem__)
            come = self._waiting[user].popleft()
            if not self._waiting[user]:
                del self._waiting[user]
            if not come.done():
                self._user = user
                come.set_result(None)
                return
        self._user = None
        self._had.clear()
