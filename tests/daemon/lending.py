"""A VMM's side: a device in this process, and its control queue lent to a daemon."""

import asyncio
import fcntl
import mmap
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tests.daemon.support import FEATURES, Caller, Json, until_state, vlans
from tests.support.lent import lent_target
from tests.support.waiting import GUARD
from vdpad.queues.software.device import SoftwareConfig, SoftwareDevice
from vdpad.virtio.features import FEATURES as FEATURE_NAMES


class Lender:
    """A device's owner. It serves its ring only once it is started."""

    def __init__(self, features: list[str] = FEATURES, **config: Any) -> None:
        bits = frozenset(map(FEATURE_NAMES.bit, features))
        self.device = SoftwareDevice(SoftwareConfig(features=bits, **config))
        lent = self.device.lend()
        self.fds = [lent.memory, lent.kick, lent.call]
        self.target: Json = lent_target(features, self.device.geometry)

    @property
    def ring(self) -> Json:
        """Where the ring lies, as the target says."""
        ring: Json = self.target["ring"]
        return ring

    def target_with(self, **ring: Any) -> Json:
        """The target with other things said of the ring."""
        return {**self.target, "ring": {**self.ring, **ring}}

    def indices(self) -> tuple[int, int]:
        """The ring's available and used index."""
        with self.mapped() as memory:
            words = [
                memory[at + 2 : at + 4]
                for at in (self.offset(self.ring["available"]), self.offset(self.ring["used"]))
            ]
        available, used = (int.from_bytes(word, "little") for word in words)
        return available, used

    def offset(self, iova: int) -> int:
        """Where in the memory a device address is."""
        return iova - int(self.ring["memory"]["iova"])

    @contextmanager
    def mapped(self) -> Iterator[mmap.mmap]:
        """The memory."""
        with mmap.mmap(self.fds[0], self.ring["memory"]["size"]) as memory:
            yield memory

    def close(self) -> None:
        """Closes what was lent."""
        for fd in self.fds:
            os.close(fd)


@asynccontextmanager
async def lending(
    features: list[str] = FEATURES, *, start: bool = True, **config: Any
) -> AsyncIterator[Lender]:
    """A lender whose device works unless it is told not to."""
    lender = Lender(features, **config)
    if start:
        lender.device.start()
    try:
        yield lender
    finally:
        lender.close()
        await lender.device.stop()
        await asyncio.sleep(0)


class Held:
    """A commit that lasts until it is let go: its device looks at nothing before."""

    def __init__(self, lender: Lender, reply: asyncio.Task[Json]) -> None:
        self.lender = lender
        self._reply = reply
        self._held = True

    async def let_go(self) -> Json:
        """Lets the device work, and gives the report."""
        if self._held:
            self._held = False
            self.lender.device.start()
        reply = await self._reply
        assert "result" in reply, reply
        report: Json = reply["result"]
        return report


def held_wish(lender: Lender, migration: str = "vm-1") -> Json:
    """What is held; to send with the lender's descriptors."""
    return {
        "migration": migration,
        "state": vlans(1, 2),
        "target": lender.target,
        "deadline_ms": int(1000 * GUARD),
    }


def moved(**changes: Any) -> Callable[[Json], Json]:
    """Changes to the ring; a number is added to what is there."""

    def change(ring: Json) -> Json:
        return {
            key: ring[key] + by if isinstance(by, int) else {**ring[key], **by}
            for key, by in changes.items()
        }

    return change


@asynccontextmanager
async def held(path: Path) -> AsyncIterator[Held]:
    """A commit under way, of `vm-1`."""
    async with lending(start=False) as lender:
        with Caller(path) as caller, Caller(path) as other:
            wish = held_wish(lender)
            commit = Held(lender, asyncio.create_task(caller.call("restore", lender.fds, **wish)))
            try:
                await until_state(other, "vm-1", "committing")
                yield commit
            finally:
                await commit.let_go()


def memfd(size: int, *seals: int) -> int:
    """A memfd of this size with these seals."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.pwrite(fd, bytes(size), 0)
    for seal in seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seal)
    return fd
