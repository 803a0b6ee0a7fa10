"""A device's state on its way, in or out, beside the messages of its session.

It begins by SET_DEVICE_STATE_FD and is asked for by CHECK_DEVICE_STATE, which waits for its end:
the front end has read or written all of it by then. One that nobody asked for ends when the next
one begins.
"""

import asyncio
from collections.abc import Callable, Coroutine

from vdpad.vhost_user.faults import NotServed
from vdpad.wire.descriptors import CLOSER

Move = Callable[[int], Coroutine[None, None, None]]


class Transfer:
    """At most one at a time."""

    def __init__(self) -> None:
        """None so far."""
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
        """Returns when it has ended well. On cancellation it is cancelled too.

        Raises:
            NotServed: there is none.
            VdpadError: what the device says.
        """
        task, self._task = self._task, None
        if task is None:
            raise NotServed("expected a state that was transferred, got none; send its descriptor")
        await task

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
