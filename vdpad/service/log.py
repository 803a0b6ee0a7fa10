"""The log: structlog to the journal where systemd runs us, and to standard error elsewhere.

On standard error it is readable on a terminal, and JSON lines elsewhere.

A log must never hold up or fail a commit. So what is not taken at once is dropped and counted, and
the next that gets through tells.
"""

import contextlib
import logging
import os
import select
import sys
from collections.abc import Mapping
from typing import Protocol

import structlog
from structlog.typing import EventDict, Processor

from vdpad.service.systemd import journald

# What a pipe that polls as writable takes without blocking (POSIX PIPE_BUF); longer lines are cut.
_MAX_AT_ONCE = select.PIPE_BUF

# How much of a list, and of each text in it, a line shows. The journal has all.
_LISTED = 8
_LISTED_TEXT = 200

# Texts come from clients and devices too. Stops one from filling the journal.
_MAX_TEXT = 4096
_MAX_TRACEBACK = 64 * 1024


class Sink(Protocol):
    """Where events go once they are rendered."""

    dropped: int
    """How many did not get through, ever."""


class _Lines:
    """Standard error, as a logger that never blocks and never raises."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._lost = 0
        self.dropped = 0

    def msg(self, line: str) -> None:
        """Writes a line, or counts it."""
        if self._lost:
            line = f"{line}\n(log lines dropped before this: {self._lost})"
        data = f"{line}\n".encode(errors="backslashreplace")
        if len(data) > _MAX_AT_ONCE:
            data = data[: _MAX_AT_ONCE - 2].rstrip(b"\n") + b"\n"
        with contextlib.suppress(OSError):
            if self._poll.poll(0):
                os.write(self._fd, data)
                self._lost = 0
                return
        self._lost += 1
        self.dropped += 1

    debug = info = warning = error = critical = exception = msg


class _Configured:
    sink: Sink | None = None


def dropped() -> int:
    """How many log entries or lines did not get through since this process began."""
    sink = _Configured.sink
    return 0 if sink is None else sink.dropped


def configure(*, verbose: bool = False, environ: Mapping[str, str] = os.environ) -> None:
    """Sets the log up for this process."""
    sink, processors = _journal(environ) or _lines()
    _Configured.sink = sink
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if verbose else logging.INFO
        ),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=True,
    )


_Way = tuple[Sink, list[Processor]]


def _journal(environ: Mapping[str, str]) -> _Way | None:
    if not journald.is_the_journal(sys.stderr.fileno(), environ):
        return None
    sink = journald.Journald(journald.JOURNAL_SOCKET)
    if not sink.is_present():
        sink.close()
        return None
    return sink, journal_processors()


def journal_processors() -> list[Processor]:
    """From an event to an entry of the journal, which knows the time itself."""
    return [
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        printable,
        journald.render,
    ]


def _lines() -> _Way:
    renderer: Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    return _Lines(sys.stderr.fileno()), [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        printable,
        _short,
        renderer,
    ]


# --- processors ---


def printable(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Texts without control characters, line breaks and the like, and of bounded length.

    Only a traceback keeps its line breaks.
    """
    for key, value in event.items():
        if key == "exception":
            lines = value[-_MAX_TRACEBACK:].split("\n")
            event[key] = "\n".join(map(_printable, lines))
        elif isinstance(value, str):
            event[key] = _printable(value[:_MAX_TEXT])
        elif isinstance(value, tuple | list):
            event[key] = [_printable(str(each)[:_MAX_TEXT]) for each in value]
    return event


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def _short(_logger: object, _method: str, event: EventDict) -> EventDict:
    """What a line has no room or no use for goes: the journal's own fields, and long lists."""
    event.pop("message", None)
    event.pop("message_id", None)
    for key, value in event.items():
        if isinstance(value, list):
            event[key] = [each[:_LISTED_TEXT] for each in value[:_LISTED]]
    return event
