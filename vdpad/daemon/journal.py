"""The log: structlog to standard error, readable on a terminal and JSON lines elsewhere.

A log must never hold up or fail a commit. So a line is written only when standard error takes it
at once; one that it does not take is dropped and counted, and the next that gets through tells.
"""

import contextlib
import logging
import os
import select
import sys

import structlog

# What a pipe that polls as writable takes without blocking (POSIX PIPE_BUF); longer lines are cut.
_MOST_AT_ONCE = select.PIPE_BUF


class _Lines:
    """Standard error, as a logger that never blocks and never raises."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._dropped = 0

    def msg(self, line: str) -> None:
        """Writes a line, or counts it."""
        if self._dropped:
            line = f"{line}\n(log lines dropped before this: {self._dropped})"
        data = f"{line}\n".encode(errors="backslashreplace")
        if len(data) > _MOST_AT_ONCE:
            data = data[: _MOST_AT_ONCE - 2].rstrip(b"\n") + b"\n"
        with contextlib.suppress(OSError):
            if self._poll.poll(0):
                os.write(self._fd, data)
                self._dropped = 0
                return
        self._dropped += 1

    debug = info = warning = error = critical = exception = msg


def configure(*, verbose: bool = False) -> None:
    """Sets the log up for this process."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    lines = _Lines(sys.stderr.fileno())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if verbose else logging.INFO
        ),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
