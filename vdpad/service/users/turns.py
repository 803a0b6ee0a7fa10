"""Turns: one user at a time, and next of those that wait whoever has had the least time.

What keeps the event loop keeps it from everybody. So whoever is about to do so waits for a turn,
which lasts until the loop has gone round once (`step`): others are served in between, and one
user's long pieces of work wait behind another's short ones. Short ones share a turn. Other things
that only one may have at a time go by turns too (`of`).

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

# How long a turn takes in more work of the same user's, in seconds: much less than anybody notices,
# and many times what a small request takes.
_SHARED = 0.001

# How many are woken for one turn; those for which it does not last wait again, first of all.
_TOGETHER = 16


class Turns:
    """Who has the turn, and who waits for one."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._user: int | None = None
        """Whose turn it is; somebody's if anybody waits."""
        self._began = 0.0
        self._had: dict[int, float] = {}
        """Seconds since nobody waited, by user."""
        self._waiting: dict[int, deque[asyncio.Future[bool]]] = {}
        self._sent_back = 0
        """How many that were woken wait again, since the turn had been long enough."""

    async def step(self, user: int) -> None:
        """Returns in the user's turn, which lasts until the loop has gone round.

        On cancellation there is no turn.
        """
        if self._user is None:
            self._user = user
        elif self._waiting or not self._lasts(user):
            begins = await self._wait(user)
            while not (begins or self._lasts(user)):
                self._sent_back += 1
                begins = await self._wait(user, self._sent_back - 1)
            if not begins:
                return
        else:
            return
        self._began = self._clock()
        asyncio.get_running_loop().call_soon(self._end, _TOGETHER)

    @asynccontextmanager
    async def of(self, user: int) -> AsyncIterator[None]:
        """The user's turn lasts for as long as the context. On cancellation it ends."""
        if self._user is None:
            self._user = user
        else:
            await self._wait(user)
        self._began = self._clock()
        try:
            yield
        finally:
            self._end(1)

    def _lasts(self, user: int) -> bool:
        """Whether this user's turn takes in one more short piece."""
        return self._user == user and self._clock() - self._began < _SHARED

    async def _wait(self, user: int, behind: int | None = None) -> bool:
        """Returns whether the user's turn begins; else it is to be shared, if it still lasts.

        Args:
            user: whose turn it will be.
            behind: how many of this user's come before it; None for all that wait.
        """
        come: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if user not in self._waiting:
            self._had[user] = max(self._had.get(user, 0.0), self._least() - _CREDIT)
            self._waiting[user] = deque()
        waiting = self._waiting[user]
        waiting.insert(len(waiting) if behind is None else behind, come)
        try:
            return await come
        except asyncio.CancelledError:
            if not come.cancelled() and come.result():
                self._pass_on(1)
            raise

    def _least(self) -> float:
        return min((self._had[each] for each in self._waiting), default=0.0)

    def _end(self, together: int) -> None:
        assert self._user is not None
        self._had[self._user] = self._had.get(self._user, 0.0) + self._clock() - self._began
        self._pass_on(together)

    def _pass_on(self, together: int) -> None:
        """Begins the next turn, and wakes so many of its user's."""
        self._sent_back = 0
        while self._waiting:
            user = min(self._waiting, key=self._had.__getitem__)
            begins = True
            for come in self._next(user, together):
                come.set_result(begins)
                begins = False
            if not begins:
                self._user = user
                return
        self._user = None
        self._had.clear()

    def _next(self, user: int, count: int) -> list[asyncio.Future[bool]]:
        """So many of a user's that still wait, or all; they wait no more."""
        waiting = self._waiting[user]
        found: list[asyncio.Future[bool]] = []
        while waiting and len(found) < count:
            come = waiting.popleft()
            if not come.done():
                found.append(come)
        if not waiting:
            del self._waiting[user]
        return found
