"""What a back end is just now: its front end, its device and its guest, put together.

Two know parts of it: the session what the front end has set up, the device what has become of it
and of its guest. Nothing is kept here but who watches.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

from vdpad.backend.control.results import (
    BackEndPhase,
    BackEndStatusResult,
    CaptureResult,
    CommandsResult,
    FrontEndResult,
    LoggingResult,
    MissingResult,
    QueueResult,
    RingResult,
)
from vdpad.backend.shown import ShownDevice
from vdpad.state.found import Found
from vdpad.vhost_user.session import Session
from vdpad.virtio.features import FEATURES


class Overview:
    """Tells of one back end."""

    def __init__(
        self,
        device: ShownDevice,
        session: Callable[[], Session | None],
        with_filter: Callable[[Found | None], Found | None] = lambda found: found,
    ) -> None:
        """
        Args:
            device: the back end's.
            session: of the front end that is served, if one is.
            with_filter: adds to what a guest's commands tell what its VMM tells.
        """
        self._device = device
        self._session = session
        self._with_filter = with_filter
        self._watches: set[asyncio.Event] = set()

    @property
    def phase(self) -> BackEndPhase:
        """How far it is."""
        device = self._device
        if device.failure:
            return BackEndPhase.FAILED
        if device.is_running:
            return BackEndPhase.RUNNING
        if self._session() is None:
            return BackEndPhase.WAITING
        return BackEndPhase.STOPPED if device.settings.are_known else BackEndPhase.CONNECTED

    def status(self) -> BackEndStatusResult:
        """How it is."""
        device, session = self._device, self._session()
        counts = device.settings.counts
        front_end = None if session is None else session.front_end
        features = () if session is None else session.features
        logged = device.logged
        return BackEndStatusResult(
            phase=self.phase,
            device=device.device_name,
            front_end=front_end and FrontEndResult(pid=front_end.pid, uid=front_end.uid),
            features=tuple(FEATURES.names(sorted(features))),
            queues=() if session is None else self._queues(session),
            commands=CommandsResult(
                forwarded=counts.forwarded, acked=counts.acked, refused=counts.refused
            ),
            logging=logged and LoggingResult(way=logged.way, pages=logged.pages),
            report=device.report,
            reason=device.failure or None,
        )

    def capture(self) -> CaptureResult:
        """What the guest has set so far."""
        settings = self._device.settings
        found = self._with_filter(settings.found())
        return CaptureResult(
            state=None if found is None else found.state,
            missing=() if found is None else _missing(found),
            rings=tuple(
                RingResult(queue=queue, base=base) for queue, base in sorted(settings.bases.items())
            ),
            running=self._device.is_running,
        )

    def changed(self) -> None:
        """Something that `status` tells is not what it was."""
        for each in self._watches:
            each.set()

    async def changes(self) -> AsyncGenerator[BackEndStatusResult]:
        """How it is, and then each time that this is something else, until it is closed.

        Who reads slowly is given what is the case when he reads.
        """
        with self._watched() as news:
            last = None
            while True:
                news.clear()
                status = self.status()
                if status != last:
                    yield status
                    last = status
                else:
                    await news.wait()

    @contextmanager
    def _watched(self) -> Iterator[asyncio.Event]:
        news = asyncio.Event()
        self._watches.add(news)
        try:
            yield news
        finally:
            self._watches.discard(news)

    def _queues(self, session: Session) -> tuple[QueueResult, ...]:
        return tuple(
            QueueResult(index=each.index, size=each.size, base=each.base, enabled=each.is_enabled)
            for each in session.vrings
            if each.size
        )


def _missing(found: Found) -> tuple[MissingResult, ...]:
    """What no state tells; where what was set makes none, why."""
    missing = [MissingResult(part=each.part, why=each.why) for each in found.missing]
    problems = [MissingResult(part=each.path, why=each.message) for each in found.problems]
    return (*missing, *problems)
