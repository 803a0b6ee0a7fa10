"""How far something is that takes its time: a line on standard error, where that is a terminal.

The line comes after two seconds, is written anew twice a second, and is gone before anything else
is said. A thread of its own writes it: what it tells of may sleep in a read, an ioctl or an event
loop meanwhile. So what it looks at must bear being looked at from another thread.
"""

import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from typing import TYPE_CHECKING

from vdpad.cli.terminal import is_terminal, printable, width_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_AFTER = 2.0
_EVERY = 0.5

_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


@contextmanager
def shown(how_far: Callable[[], str]) -> Iterator[None]:
    """Shows how far something is while it is done in the context.

    Args:
        how_far: gives it in a few words, on another thread.
    """
    if not is_terminal(sys.stderr):
        yield
        return
    over = threading.Event()
    shower = threading.Thread(target=_show_while_taken, args=(how_far, over), daemon=True)
    shower.start()
    try:
        yield
    finally:
        over.set()
        shower.join()


@contextmanager
def waiting(what: str, most_seconds: float) -> Iterator[None]:
    """Shows for how long something is waited for, which is for so many seconds at the most."""
    began = time.monotonic()

    def how_far() -> str:
        return f"{what}: {time.monotonic() - began:.0f} of at most {most_seconds:.0f} s"

    with shown(how_far):
        yield


def _show_while_taken(how_far: Callable[[], str], over: threading.Event) -> None:
    with suppress(OSError):  # the terminal is gone
        _show(how_far, over)


def _show(how_far: Callable[[], str], over: threading.Event) -> None:
    wait = _AFTER
    written = 0
    while not over.wait(wait):
        wait = _EVERY
        # One column stays free, so that no terminal goes to the next line by itself.
        line = printable(how_far())[: (width_of(sys.stderr) or 1) - 1]
        sys.stderr.write(f"\r{line.ljust(written)}")
        sys.stderr.flush()
        written = len(line)
    if written:
        sys.stderr.write(f"\r{' ' * written}\r")
        sys.stderr.flush()


class CountedFile(FileIO):
    """A file or a pipe that knows how far it has been read."""

    _read = 0

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        """As FileIO has it."""
        count = super().readinto(buffer)
        self._read += count or 0
        return count

    def how_far(self) -> str:
        """Of a file "1.2 GiB of 7.9 GiB", of a pipe, whose end nobody knows, "1.2 GiB"."""
        status = os.fstat(self.fileno())
        if not stat.S_ISREG(status.st_mode):
            return _size(self._read)
        return f"{_size(self.tell())} of {_size(status.st_size)}"


def _size(count: int) -> str:
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
