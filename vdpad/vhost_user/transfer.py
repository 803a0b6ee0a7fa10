"""A device's state on its way, in or out, beside the messages of its session.

It begins by SET_DEVICE_STATE_FD and is asked for by CHECK_DEVICE_STATE, which waits for its end:
the front end has read or written all of it by then. One that nobody asked for ends when the next
one begins.

Whoever gave the descriptor chooses whether it ever ends: others may hold a pipe's other end, and
datagrams have no end. So who waits for it waits for the front end's going away as well.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from vdpad.vhost_user.faults import FrontEndGone, NotServed
from vdpad.wire.descriptors import CLOSER

Move = Callable[[int], Coroutine[None, None, None]]
Gone = Callable[[], Coroutine[Any, Any, object]]


class Transfer:
    """At most one at a time."""

    def __init__(self, gone: Gone) -> None:
        """None so far.

        Args:
            gone: returns once the front end is gone.
        """
        self._gone = gone
        self._task: asyncio.Task[None] | None = None

    async def begin(self, move: Move, fd: int, uid: int) -> None:
        """Has it go on by itself; one before is cancelled.

        Args:
            move: called with the descriptor.
            fd: taken over; closed when `move` has ended, which is the end for who reads it.
            uid: of whoever sent it.
        """
        try:
            await self.close()
        except BaseException:
            _close(fd, uid)
            raise
        self._task = asyncio.create_task(move(fd))
        # Not in the task: one that is cancelled before its first step runs nothing of its own.
        self._task.add_done_callback(lambda _: _close(fd, uid))

    async def ended(self) -> None:
        """Returns when it has ended well. On cancellation it goes on until `close`.

        Raises:
            NotServed: there is none.
            FrontEndGone: nobody waits for it any more; it was cancelled.
            VdpadError: what the device says.
        """
        if self._task is None:
            raise NotServed("expected a state that was transferred, got none; send its descriptor")
        await self._ended_or_gone(self._task)
        if not self._task.done():
            await self.close()
            raise FrontEndGone("the front end is gone before its state's end")
        task, self._task = self._task, None
        await task

    async def _ended_or_gone(self, task: asyncio.Task[None]) -> None:
        gone = asyncio.create_task(self._gone())
        try:
            await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            await asyncio.wait([gone])

    async def close(self) -> None:
        """Ends it, whatever it has come to."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _close(fd: int, uid: int) -> None:
    CLOSER.close(uid, [fd])
    # The guest stands still until its reader sees the end.
    CLOSER.flush()
