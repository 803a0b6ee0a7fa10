"""A device for tests: it serves nothing, and writes down what a session has it do."""

import asyncio
import os
import select
from collections.abc import Callable, Mapping

from vdpad.errors import VdpadError
from vdpad.vhost_user.device import Start
from vdpad.vhost_user.dirty_log import DirtyLog
from vdpad.vhost_user.memory_table import MappedRegion
from vdpad.virtio.features import Feature, FeatureSet

FEATURES: FeatureSet = frozenset(
    {
        Feature.CTRL_VQ,
        Feature.CTRL_RX,
        Feature.MAC,
        Feature.MQ,
        Feature.MRG_RXBUF,
        Feature.RING_EVENT_IDX,
        Feature.RING_INDIRECT_DESC,
        Feature.STATUS,
        Feature.VERSION_1,
    }
)
CONFIG = bytes(range(24))


class Unwilling(VdpadError):
    """The device does not want to."""


class RecordingDevice:
    """Implements VhostUserDevice."""

    def __init__(self, *, queues: int = 3, features: FeatureSet = FEATURES) -> None:
        self.features = features
        self.queues = queues
        self.can_move = True
        self.can_announce = False
        self.needs_reset = False
        self.did: list[str] = []
        """What it was asked for, in order."""
        self.config_space = CONFIG
        self._did_something = asyncio.Event()
        self.unwilling: set[str] = set()
        """Methods that raise."""
        self.gate: asyncio.Event | None = None
        """Where there is one, methods wait for it."""
        self.started: Start | None = None
        """What it runs with."""
        self.starts: list[Start] = []
        self.bases: dict[int, int] = {}
        """What a stop tells; a ring that is not in here stays where it began."""
        self.mapped: list[MappedRegion] = []
        self.marks_in: DirtyLog | None = None
        self.state = b""
        self.waits_for_state = False
        """Whether it loads, and there is nothing to read and no end either."""
        self._ring: memoryview | None = None

    @property
    def announced(self) -> list[str]:
        """The addresses that it was asked to announce."""
        return [each.split()[1] for each in self.did if each.startswith("announce")]

    async def until(self, true: Callable[[], object]) -> None:
        """Returns once something holds that changes with what the device is asked for."""
        while not true():
            self._did_something.clear()
            await self._did_something.wait()

    def last_queue(self, features: FeatureSet) -> int:
        if Feature.CTRL_VQ not in features:
            return 1
        return self.queues - 1 if Feature.MQ in features else 2

    async def config(self) -> bytes:
        return self.config_space

    async def set_config(self, offset: int, data: bytes, *, moving: bool) -> None:
        await self._asked("set_config", f"{offset} {data.hex()} {'moving' if moving else 'guest'}")

    async def add_memory(self, mapped: MappedRegion) -> None:
        assert len(mapped.view) == mapped.region.size
        await self._asked("add_memory")
        self.mapped.append(mapped)

    async def remove_memory(self, mapped: MappedRegion) -> None:
        await self._asked("remove_memory")
        self.mapped.remove(mapped)

    async def start(self, start: Start) -> None:
        assert self.started is None
        await self._asked("start", " ".join(str(vring.index) for vring in start.vrings))
        # As the control queue of a real one does it.
        self._ring = start.memory.stretch(start.vrings[-1].addresses.parts()["descriptors"])
        self.started = start
        self.starts.append(start)
        self._did_something.set()

    async def enable(self, index: int, enabled: bool) -> None:
        await self._asked("enable", f"{index} {int(enabled)}")

    async def set_call(self, index: int, call: int | None) -> None:
        await self._asked("set_call", f"{index}")

    async def log(self, log: DirtyLog | None) -> None:
        await self._asked("log", "on" if log is not None else "off")
        self.marks_in = log

    async def announce(self, mac: bytes) -> None:
        await self._asked("announce", mac.hex())

    async def stop(self) -> Mapping[int, int]:
        assert self.started is not None
        assert self._ring is not None
        started, self.started = self.started, None
        self._ring.release()
        await self._asked("stop")
        return {vring.index: self.bases.get(vring.index, vring.base) for vring in started.vrings}

    async def reset(self) -> None:
        assert self.started is None
        await self._asked("reset")

    async def save(self, fd: int) -> None:
        await self._asked("save")
        try:
            if self.state:
                os.write(fd, self.state)
        except OSError as error:
            raise Unwilling(f"expected a pipe, got {error}") from error

    async def load(self, fd: int) -> None:
        await self._asked("load")
        data = b""
        try:
            while some := await self._read(fd):
                data += some
        except OSError as error:
            raise Unwilling(f"expected a pipe, got {error}") from error
        self.state = data

    async def _read(self, fd: int) -> bytes:
        """Not on a thread: on cancellation nothing may use the descriptor afterwards."""
        try:
            while not select.select([fd], [], [], 0)[0]:
                self.waits_for_state = True
                self._did_something.set()
                await asyncio.sleep(0.001)
        finally:
            self.waits_for_state = False
        return os.read(fd, 4096)

    async def _asked(self, what: str, how: str = "") -> None:
        self.did.append(f"{what} {how}".rstrip())
        self._did_something.set()
        if self.gate is not None:
            await self.gate.wait()
        if what in self.unwilling:
            raise Unwilling(f"expected nobody to ask for {what}, somebody did")
