"""Threads for calls that sleep in the kernel for as long as a driver pleases.

The event loop's own executor is for none of them: one that gets no thread raises what nobody
expects, keeps the call, and may make it yet.
"""

import asyncio
import contextlib
import queue
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from vdpad.wire.user_threads import NoThread, UserThreads, Work, start_thread

T = TypeVar("T")


def on_a_thread(call: Callable[[], T], name: str) -> "asyncio.Future[T]":
    """Runs a call that may sleep in the kernel.

    The thread does not keep the process from ending, and the future cannot be cancelled away from
    it: its owner looks at it when it is done.

    Raises:
        NoThread: there is none, and the call is not made.
    """
    work, ended = _settling(call)
    start_thread(work, name)
    return ended


def on_a_user_s_thread(
    threads: UserThreads, uid: int, call: Callable[[], T]
) -> "asyncio.Future[T]":
    """Runs a call that may sleep for as long as a user pleases; else as of `on_a_thread`.

    Args:
        threads: one for each user.
        uid: of whoever it may sleep for.
        call: it waits for all that this user's thread has to do before.

    Raises:
        NoThread: there is none, and the call is not made.
    """
    work, ended = _settling(call)
    threads.do(uid, work)
    return ended


async def give_back(call: Callable[[], None], name: str) -> None:
    """Runs a call that gives something back, and may take long: on a thread, or else here.

    What is not given back stays taken, so the event loop stands still rather than that. On
    cancellation it goes on.
    """
    try:
        ended = on_a_thread(call, name)
    except NoThread:
        call()
    else:
        await asyncio.shield(ended)


class OwnThread:
    """A thread that its owner has from the start, so that no call fails for want of one."""

    def __init__(self, name: str) -> None:
        """It waits for calls.

        Raises:
            NoThread: there is none.
        """
        self._calls: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        start_thread(partial(_make_all, self._calls), name)

    def run(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Runs a call when those before it have ended; else as of `on_a_thread`."""
        work, ended = _settling(call)
        self._calls.put(work)
        return ended

    def end(self) -> None:
        """Ends it when the calls before have ended. Nothing may follow; may be called again."""
        self._calls.put(None)


def _make_all(calls: "queue.SimpleQueue[Work | None]") -> None:
    while (call := calls.get()) is not None:
        call()
        # What it has stays no longer than it.
        del call


def _settling(call: Callable[[], T]) -> "tuple[Work, asyncio.Future[T]]":
    """A call for a thread, and the future that it settles in the running loop."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        try:
            settle = partial(ended.set_result, call())
        except BaseException as error:
            settle = partial(ended.set_exception, error)
        # The loop may have been closed by then.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)

    return work, ended
