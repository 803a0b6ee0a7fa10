"""Changes: whoever watches is told of each operation that comes, and of each change of one.

    Registry.add, Operation.enter ──tell──▶ Changes ──▶ Watch ──▶ who reads it
                                                   └──▶ Watch ──▶ …

Telling costs a commit next to nothing: where anybody watches, a snapshot of references, which is
put into words when it is read. Who does not read in time loses his watch, and nobody waits for him.
Who may watch is asked again whenever the settings change: who may no more, or is no operator any
more, is told nothing from then on, not even what waits for him.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

from vdpad.daemon.operations.operation import Operation, Snapshot
from vdpad.daemon.operations.requester import Requester
from vdpad.service.refusal import Kind, Refusal

# Changes that wait for one who watches. Stops one who does not read from filling memory.
_MAX_WAITING = 4096

_IS_STOPPING = "the daemon is stopping; ask the next one"


class Watch:
    """All changes from one moment on that one reader may see."""

    def __init__(self, who: Callable[[], Requester]) -> None:
        """
        Args:
            who: the reader, by the settings of the moment; refuses where he may not watch.
        """
        self._who = who
        self.reader = who()
        self._waiting: deque[Snapshot] = deque()
        self._news = asyncio.Event()
        self._end: Refusal | None = None
        """Why there are no more, where that is so."""
        self._is_revoked = False

    def tell(self, snapshot: Snapshot) -> None:
        """One more; where too many wait already, no more."""
        if self._end is not None:
            return
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append(snapshot)
            self._news.set()
        else:
            self.end("changes came faster than they were read; ask for all that there is again")

    def end(self, why: str) -> None:
        """The reader gets what waits, and then a refusal."""
        self._end = self._end or Refusal(Kind.OVERLOADED, why)
        self._news.set()

    def ask_again(self) -> None:
        """Ends where the reader may not see any more what he might when it began."""
        try:
            reader = self._who()
        except Refusal as refusal:
            self._revoke(refusal)
            return
        if self.reader.is_operator and not reader.is_operator:
            why = f"{reader} is no operator any more (setting operators); watch what is yours anew"
            self._revoke(Refusal(Kind.NOT_ALLOWED, why))

    def _revoke(self, refusal: Refusal) -> None:
        self._end = refusal
        self._is_revoked = True
        self._waiting.clear()
        self._news.set()

    def refuse_if_revoked(self) -> None:
        """Raises where the reader may see nothing any more.

        Raises:
            Refusal: not-allowed.
        """
        if self._end is not None and self._is_revoked:
            raise _as_told(self._end)

    async def changes(self) -> AsyncGenerator[Snapshot]:
        """Each, for as long as they are read.

        Raises:
            Refusal: overloaded, not-allowed: why there are no more.
        """
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._end is not None:
                raise _as_told(self._end)
            self._news.clear()
            await self._news.wait()


def _as_told(end: Refusal) -> Refusal:
    """Why there are no more, to be raised: an error of its own each time."""
    return Refusal(end.kind, str(end))


class Changes:
    """Who watches, and tells them of operations that they may have to do with."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self._is_over = False

    def tell(self, operation: Operation) -> None:
        """An operation has come, or changed."""
        owners = operation.details.owners
        watches = [each for each in self._watches if each.reader.may(owners)]
        if watches:
            snapshot = operation.snapshot()
            for each in watches:
                each.tell(snapshot)

    @contextmanager
    def watched(self, who: Callable[[], Requester]) -> Iterator[Watch]:
        """What comes while the context lasts.

        Args:
            who: the reader, by the settings of the moment; refuses where he may not watch.
        """
        watch = Watch(who)
        self._watches.add(watch)
        if self._is_over:
            watch.end(_IS_STOPPING)
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    def ask_again(self) -> None:
        """The settings have changed: who may not watch any more is told so."""
        for each in self._watches:
            each.ask_again()

    def end(self) -> None:
        """There will be no more, as the daemon ends."""
        self._is_over = True
        for each in self._watches:
            each.end(_IS_STOPPING)
