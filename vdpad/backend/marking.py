"""What is written to the guest's memory is marked while its front end logs: relayed, or all of it.

How it works. vhost-vdpa has no dirty log, and a device that writes to the guest's rings by itself
tells nobody where. So while memory is logged its receive queues are *relayed* (relaying.py), where
that can be: then each page is marked when the guest is given what was written there. Else, and
where the relay has failed, all memory that the device reaches is marked once it is stopped: what it
could write it may have written. That is correct and slow, as the front end sends all of it once
more while the guest stands still. What this process writes, to the guest's CVQ, is marked when it
is written.

One thread marks at any time: the relay's while there is one, and the event loop hands over to it;
else the event loop; and at a stop or a switch a step of the device's (steps.py).

A process that is killed leaves some of what its device has written unmarked. The next one is told
of the log before its device starts, and knows nothing of the one before: so it marks everything at
that start, where nothing else would, and the front end sends it while the guest runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from vdpad.backend.relaying import Relaying
from vdpad.backend.steps import Steps
from vdpad.vhost_user.dirty_log import DirtyLog
from vdpad.vhost_user.to_its_end import to_its_end
from vdpad.virtio.rings import Region

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

    def __init__(self, steps: Steps, relaying: Relaying) -> None:
        """Nothing is logged, and there is no memory.

        Args:
            steps: the device's.
            relaying: the device's, for others to begin and end.
        """
        self._steps = steps
        self._relaying = relaying
        self._log: DirtyLog | None = None
        self._before = 0
        """Pages marked in logs before this one."""
        self._reached: set[Region] = set()
        self._sees_all = False
        """It knows of all that has been written since the logging began."""

    @property
    def logged(self) -> Logged | None:
        """How memory is logged, if it is."""
        if self._log is None:
            return None
        relaying = self._relaying
        relays = relaying.has_marked_all or (relaying.is_on and not relaying.has_failed)
        return Logged("relay" if relays else "everything", self._before + self._log.marked)

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

    @property
    def log(self) -> DirtyLog | None:
        """Where it is marked."""
        return self._log

    def set_log(self, log: DirtyLog | None, *, running: bool) -> None:
        """Marks in this one from now on, or no more; of a device that runs, or not."""
        if log is None or self._log is None:
            self._before = 0
            self._sees_all = running
        else:
            self._before += self._log.marked
        self._log = log

    def go_on_from(self, before: "Marking") -> None:
        """Marks what this device writes where another's was marked so far, if it was."""
        self._log, self._before = before._log, before._before
        self._sees_all = before._sees_all
        # Of one that is stopped; one that runs leaves first, and the other begins anew.
        self._relaying.has_marked_all = before._relaying.has_marked_all

    def started(self) -> None:
        """A device runs from now on, and is relayed where it can be."""
        if not self._sees_all and self._relaying.is_on:
            for region in self._reached:
                self.wrote(region)
        self._sees_all = True

    def wrote(self, region: Region) -> None:
        """This process has written there."""
        if self._log is None:
            return
        if self._relaying.is_on:
            self._log.hand_over(region.iova, region.size)
        else:
            self._log.mark(region.iova, region.size)

    async def stopped(self) -> None:
        """The device writes no more: marks what it may have written and nobody has marked.

        Ends also if cancelled.
        """
        if self._log is not None:
            left = frozenset() if self._relaying.has_marked_all else frozenset(self._reached)
            await to_its_end(self._steps.take(partial(_mark, self._log, left)))


def _mark(log: DirtyLog, regions: frozenset[Region]) -> None:
    log.take_over()
    for region in regions:
        log.mark(region.iova, region.size)
