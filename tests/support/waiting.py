"""Waiting for what others bring about: threads, processes, a device in shared memory."""

import asyncio
import time
from collections.abc import Callable

# In seconds: whatever takes longer hangs. Nothing that passes ever waits for it.
GUARD = 300.0


async def until(true: Callable[[], object], seconds: float = GUARD, every: float = 0.005) -> None:
    """Returns once something holds, at which it looks every so many seconds.

    Raises:
        TimeoutError: it does not hold within so many seconds.
    """
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(every)


def wait_until(
    true: Callable[[], object],
    seconds: float = GUARD,
    every: float = 0.005,
    said: Callable[[], str] = str,
) -> None:
    """The same where there is no loop; the error's text is what is `said` then."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(said())
        time.sleep(every)
