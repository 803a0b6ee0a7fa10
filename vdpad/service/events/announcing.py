"""Announcing: from whoever does something to whoever listens.

    operations, api, kept … ──announce(event)──▶ Announcer ──▶ the log   (structlog)
                                                         └───▶ metrics  (where configured)

What listeners do never becomes the trouble of what they are told: a commit that went well has gone
well whatever its log says. Nor does it keep a guest waiting: what a commit tells (`soon`) is told
a moment later, when its reply is out. Everything is told in the order in which it was announced.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context

import structlog

from vdpad.service.events.event import CALLER, Event, fields_of
from vdpad.service.users.shares import Shares

Announce = Callable[[Event], None]

Later = Callable[[Event | Callable[[], Event]], None]
"""Is given an event, or what makes it."""

# Events that clients bring about at will: so many of one user's who is alone in so many seconds are
# logged, and half as many of others'. journald drops what comes faster than 10 000 in 30 s
# (RateLimitBurst=), and so would drop how commits end.
_MAX_AT_WILL = 100
_WINDOW = 10.0

# Under a number that no user has: who brought it about is not known, or asks from another host.
_NOBODY = -1

# When what can wait is told, in seconds: after a commit that goes well, and its reply.
_SOON = 0.02

log: structlog.stdlib.BoundLogger = structlog.get_logger("vdpad")


def log_event(event: Event) -> None:
    """Logs an event, with the uid that asked for it where one did."""
    _log(event)


def log_made(event: Event | Callable[[], Event]) -> None:
    """The same, of one that is yet to be made, too."""
    _log(event if isinstance(event, Event) else event())


def _log(event: Event, **more: object) -> None:
    uid = CALLER.get()
    if uid is not None:
        more["uid"] = uid
    log.log(
        event.LEVEL,
        event.NAME,
        message=event.sentence(),
        message_id=event.MESSAGE_ID,
        **fields_of(event),
        **more,
    )


class EventLog:
    """Logs events, and of those that clients bring about at will no more than so many.

    Each user has a share of these, so that none hides what another does by doing much.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._window_ends = clock()
        self._logged = Shares(_MAX_AT_WILL)
        self._suppressed = 0

    def __call__(self, event: Event) -> None:
        """Logs it, or counts it for the next that is logged."""
        if not event.CLIENTS_CHOICE:
            _log(event)
        elif not self._has_room(event):
            self._suppressed += 1
        elif self._suppressed:
            suppressed, self._suppressed = self._suppressed, 0
            _log(event, suppressed=suppressed)
        else:
            _log(event)

    def _has_room(self, event: Event) -> bool:
        now = self._clock()
        if now >= self._window_ends:
            self._window_ends = now + _WINDOW
            self._logged = Shares(_MAX_AT_WILL)
        caller = CALLER.get()
        user = event.by if caller is None else caller
        return self._logged.take(_NOBODY if user is None else user)


class Announcer:
    """Tells each listener, whatever the others make of it."""

    def __init__(self, *listeners: Announce) -> None:
        self.listeners = list(listeners)
        self.failures = 0
        """How often a listener raised, or what makes an event. A fault of ours."""
        self._waiting: deque[tuple[Event | Callable[[], Event], Context]] = deque()

    def __call__(self, event: Event) -> None:
        """Tells it now, after all that waits. Never raises."""
        self.flush()
        self._tell(event)

    def later(self, event: Event | Callable[[], Event]) -> None:
        """Tells it in a moment, as of its caller; only in a running loop.

        Args:
            event: or what makes it, which nobody waits for either.
        """
        if not self._waiting:
            asyncio.get_running_loop().call_later(_SOON, self.flush)
        self._waiting.append((event, copy_context()))

    def flush(self) -> None:
        """Tells of all events that wait, in their order."""
        while self._waiting:
            event, context = self._waiting.popleft()
            context.run(self._make_and_tell, event)

    def _make_and_tell(self, event: Event | Callable[[], Event]) -> None:
        try:
            made = event if isinstance(event, Event) else event()
        except Exception:
            self.failures += 1
        else:
            self._tell(made)

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                self.failures += 1
