"""Replies that nobody has read yet: charged to the one socket that they were sent from.

When that has as many as it may have, nobody is answered any more. The kernel tells their sum
(SIOCOUTQ) and not whose they are; and it puts no bound on what a client that is connected to us
leaves unread. So they are watched:

    calm       up to a quarter of the buffer is unread: replies go as they come, nobody counts
    crowded    more is: one reply goes at a time (turns.py), and it is seen whether the sum goes
               down again in a moment. If it does not, the reply is its user's debt. A small one
               goes as it comes, and is his debt until the sum says otherwise; and so does one to
               a client that let such a moment pass a while ago, so that others of his user wait
               behind one moment, and not behind one for each of its replies

A user's debt stays within his share of the other three quarters (shares.py), so that who does not
read leaves room for those who do. What is read later shows as a sum that is less than all debts,
which then shrink to it: the smallest first, since they are those of the late and not of the deaf.
Of his share a user has half for small replies, so that whoever of his programs reads no lists
leaves the others their reports.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial

from vdpad.service.endpoints.deaf import Deaf
from vdpad.service.users.shares import permits
from vdpad.service.users.turns import Turns

# In seconds: how long a reply may take to be read where it is seen, and how often that is looked
# at. A client that waits for its reply takes some 0.1 ms.
_MOMENT = 0.005
_LOOKS = 0.0002

# How long a small reply is, in bytes: a report, an error, a short list.
SMALL = 2048

# What the kernel charges for a datagram beside its bytes, which it charges up to twice (kmalloc's
# sizes); as measured.
_OVERHEAD = 1280

Send = Callable[[], "asyncio.Future[None] | None"]


class Unread:
    """What clients have not read, and who may have more of it."""

    def __init__(self, buffer: int, unread: Callable[[], int]) -> None:
        """
        Args:
            buffer: how much the kernel lets be unread, in bytes as it charges them.
            unread: tells how much is.
        """
        self._unread = unread
        self._calm = buffer // 4
        # With the half as much again that is there beside it, three quarters.
        self._limit = buffer // 2
        self._debts: Counter[int] = Counter()
        self._on_the_way: Counter[int] = Counter()
        """What each user's replies are charged that a thread has not sent yet."""
        self._turns = Turns()
        self._deaf = Deaf()

    def is_calm(self, size: int) -> bool:
        """Whether a reply of so many bytes may go at once, whoever asked.

        Where nothing is unread it may whatever the buffer is: the kernel takes it too.
        """
        there = self._unread()
        if there > self._calm:
            return False
        self._debts.clear()
        return not there or there + _charge(size) <= self._calm

    def send_small(self, user: int, size: int, send: Send) -> bool:
        """Sends a small reply where there is room for it; whether there was. Args as of `send`."""
        self._shrink_debts()
        if not self._has_room(user, size):
            return False
        self._owes(user, _charge(size), send())
        return True

    async def send(self, user: int, client: Hashable, size: int, send: Send) -> bool:
        """Sends a reply where there is room for it; whether there was.

        On cancellation it may have been sent, and is nobody's debt.

        Args:
            user: who will have to read it.
            client: which of his; whatever tells it from others.
            size: in bytes.
            send: has it sent; what it gives ends when it was, and None says that it was.
        """
        async with self._turns.of(user):
            if self.is_calm(size):
                send()
                return True
            self._shrink_debts()
            if not self._has_room(user, size):
                return False
            before = self._unread()
            sent = send()
            if client not in self._deaf:
                await self._seen(before, sent)
                if self._left(before):
                    self._deaf.add(client)
            is_present = sent is None or sent.done()
            self._owes(user, self._left(before) if is_present else _charge(size), sent)
            return True

    def _owes(self, user: int, charge: int, sent: "asyncio.Future[None] | None") -> None:
        if sent is None or sent.done():
            self._debts[user] += charge
        else:
            self._on_the_way[user] += charge
            sent.add_done_callback(partial(self._was_sent, user, charge))

    def _has_room(self, user: int, size: int) -> bool:
        charge = _charge(size)
        owed, coming = self._debts[user], self._on_the_way[user]
        others = max(self._unread() - self._calm - owed, 0) + self._on_the_way.total() - coming
        if size > SMALL and owed + coming + charge > self._limit // 2:
            return False
        return permits(self._limit, owed + coming, others, charge)

    def _was_sent(self, user: int, charge: int, _: "asyncio.Future[None]") -> None:
        # Where it has been read by now, the debt shrinks.
        self._on_the_way[user] -= charge
        self._debts[user] += charge

    def _left(self, before: int) -> int:
        return max(self._unread() - before, 0)

    async def _seen(self, before: int, sent: "asyncio.Future[None] | None") -> None:
        """Returns when a reply was sent and read, or after a moment."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + _MOMENT
        if sent is not None:
            await asyncio.wait([sent], timeout=_MOMENT)
        while self._left(before) and loop.time() < ends:  # noqa: ASYNC110
            await asyncio.sleep(_LOOKS)

    def _shrink_debts(self) -> None:
        read = self._debts.total() - max(self._unread() - self._calm, 0)
        for user, debt in reversed(self._debts.most_common()):
            if read <= 0:
                return
            self._debts[user] -= min(debt, read)
            read -= debt
            if not self._debts[user]:
                del self._debts[user]


def _charge(size: int) -> int:
    return 2 * size + _OVERHEAD
