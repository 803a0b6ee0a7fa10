"""Which commits run: whoever begins or ends one says so here, and what can wait gives way to them.

A guest is stopped while its commit runs, and a commit shares the event loop with all else that the
daemon does. So what keeps the loop for long and stops no guest waits first, until none runs: a
prepare, a check, the metrics' file, and records that are made small. It waits for a commit's first
moment only: one that runs for longer, by its lender's will perhaps, holds nobody up.
"""

import asyncio
import contextlib
import time

# How long that moment is, in seconds: longer than a commit takes on a device that works.
_MAX_COURTESY = 0.05


class RunningCommits:
    """All commits that run, by the device that each of them has to itself."""

    def __init__(self) -> None:
        self._migrations: dict[object, str] = {}
        """By what the target calls the device's identity."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._began = 0.0
        """When the last one began, by the monotonic clock."""

    def __len__(self) -> int:
        return len(self._migrations)

    def owner(self, identity: object) -> str | None:
        """The migration whose commit has a device; None where none has it."""
        return self._migrations.get(identity)

    def add(self, identity: object, migration: str) -> None:
        """The commit of a migration has this device now, which nobody had."""
        self._migrations[identity] = migration
        self._began = time.monotonic()
        self._idle.clear()

    def remove(self, identity: object) -> None:
        """The commit that had this device has ended."""
        del self._migrations[identity]
        if not self._migrations:
            self._idle.set()

    @property
    def is_waited_for(self) -> bool:
        """Whether one is in its first moment."""
        return bool(self._migrations) and self._moment_left() > 0

    async def until_idle(self) -> None:
        """Returns when none runs, or when those that run now have had their moment."""
        if not self.is_waited_for:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._moment_left()):
                await self._idle.wait()

    def _moment_left(self) -> float:
        return self._began + _MAX_COURTESY - time.monotonic()
