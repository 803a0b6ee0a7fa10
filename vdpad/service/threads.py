"""Threads for calls that sleep in the kernel for as long as a driver pleases."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from vdpad.wire.user_threads import start_thread

T = TypeVar("T")


def on_a_thread(call: Callable[[], T], name: str) -> "asyncio.Future[T]":
    """Runs a call that may sleep in the kernel.

    The thread does not keep the process from ending, and the future cannot be cancelled away from
    it: its owner looks at it when it is done.

    Raises:
        NoThread: there is none, and the call is not made.
    """
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

    start_thread(work, name)
    return ended
