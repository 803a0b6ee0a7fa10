"""What is written to the guest's memory is marked while its front end logs: all of it, at the stop.

How it works. vhost-vdpa has no dirty log, and a device that writes to the guest's rings by itself
tells nobody where. So once the device is stopped all memory that it reaches is marked: what it
could write it may have written. That is correct and slow, as the front end sends all of it once
more while the guest stands still. What this process writes, to the guest's CVQ, is marked when it
is written.

The event loop marks, and at a stop a step of the device's (steps.py), when nobody else writes.
Until then nothing is marked of what the device has written; a process that is killed before leaves
it to the next one, which marks everything as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from vdpad.backend.steps import Steps
from vdpad.vhost_user.dirty_log import DirtyLog
from vdpad.vhost_user.to_its_end import to_its_end
from vdpad.virtio.split_ring import Region

Wrote = Callable[[Region], None]
"""Is told where this process has written, by guest address."""


@dataclass(frozen=True, slots=True)
class Logged:
    """How memory is logged."""

    way: Literal["relay", "everything"]
    pages: int
    """Marked since the logging began, one as often as it was marked."""


class Marking:
    """That of one device."""

    def __init__(self, steps: Steps) -> None:
        """Nothing is logged, and there is no memory.

        Args:
            steps: the device's.
        """
        self._steps = steps
        self._log: DirtyLog | None = None
        self._before = 0
        """Pages marked in logs before this one."""
        self._reached: set[Region] = set()

    @property
    def logged(self) -> Logged | None:
        """How memory is logged, if it is."""
        if self._log is None:
            return None
        return Logged("everything", self._before + self._log.marked)

    @property
    def end(self) -> int:
        """An address behind all memory that the device reaches."""
        return max((each.end for each in self._reached), default=0)

    def add(self, region: Region) -> None:
        """The device reaches a region from now on."""
        self._reached.add(region)

    def remove(self, region: Region) -> None:
        """The device reaches it no more. Whoever takes memory away needs nothing of it."""
        self._reached.discard(region)

    def set_log(self, log: DirtyLog | None) -> None:
        """Marks in this one from now on, or no more. No device is being stopped."""
        if log is None or self._log is None:
            self._before = 0
        else:
            self._before += self._log.marked
        self._log = log

    def go_on_from(self, before: "Marking") -> None:
        """Marks what this device writes where another's was marked so far, if it was."""
        self._log, self._before = before._log, before._before

    def wrote(self, region: Region) -> None:
        """This process has written there."""
        if self._log is not None:
            self._log.mark(region.iova, region.size)

    async def stopped(self) -> None:
        """The device writes no more: marks all that it may have written. Ends also if cancelled."""
        if self._log is not None:
            mark = partial(_mark, self._log, frozenset(self._reached))
            await to_its_end(self._steps.take(mark))


def _mark(log: DirtyLog, regions: frozenset[Region]) -> None:
    for region in regions:
        log.mark(region.iova, region.size)
