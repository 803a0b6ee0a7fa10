"""A terminal of its own for a command: a pty of some width, and what was written to it."""

import fcntl
import os
import pty
import select
import struct
import termios
import time
import tty
from types import TracebackType
from typing import Self

from tests.support.waiting import GUARD

# In seconds: whatever takes longer hangs. Nothing that passes ever waits for it.


class Terminal:
    """One end is a command's stream; the other is read here."""

    def __init__(self, columns: int = 80) -> None:
        self._ours, self.stream = pty.openpty()
        """The command's end."""
        tty.setraw(self.stream)  # bytes come as they were written
        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(self.stream, termios.TIOCSWINSZ, size)
        self._seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._ours)
        os.close(self.stream)

    def seen(self) -> str:
        """All that was written so far."""
        while select.select([self._ours], [], [], 0)[0]:
            self._seen += os.read(self._ours, 65536)
        return self._seen.decode()

    def until(self, text: str) -> str:
        """All that was written, once this is among it."""
        deadline = time.monotonic() + GUARD
        while text not in self.seen():
            assert time.monotonic() < deadline, self.seen()
            select.select([self._ours], [], [], 1)
        return self.seen()
