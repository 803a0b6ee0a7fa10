"""An interrupt at the terminal: it ends a program as SIGINT does, at once, without a traceback."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

# As much as is read at once of what signals have written, a byte each.
_SIGNALS = 64


@contextmanager
def ended_by_interrupts() -> Iterator[None]:
    """Where the context is interrupted, the process ends by SIGINT, so that its shell knows."""
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def run_interruptibly(main: Coroutine[Any, Any, T]) -> T:
    """asyncio.run, whose waiting an interrupt ends whenever it comes.

    Python notes a signal and acts on it between two of its own steps. One that comes after the last
    step and before the system call that waits interrupts neither, and is heard when that wait ends.
    So signals also write into a socket that the loop waits for. They are the main thread's; in any
    other this is asyncio.run.

    Raises:
        KeyboardInterrupt: it came; the coroutine was cancelled.
    """
    is_main = threading.current_thread() is threading.main_thread()
    return asyncio.run(_woken_by_signals(main) if is_main else main)


async def _woken_by_signals(main: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    heard, written = socket.socketpair()
    with heard, written:
        heard.setblocking(False)
        written.setblocking(False)
        loop.add_reader(heard, heard.recv, _SIGNALS)
        before = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        try:
            return await main
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(heard)
