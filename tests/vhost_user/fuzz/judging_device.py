"""A device that fails where it is asked for what device.py does not permit."""

import asyncio
import os
from collections.abc import Mapping

from tests.vhost_user.recording_device import RecordingDevice
from vdpad.errors import VdpadError
from vdpad.vhost_user.device import GuestVring, Start
from vdpad.vhost_user.dirty_log import DirtyLog
from vdpad.vhost_user.memory_table import MappedRegion
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import Region


class JudgingDevice(RecordingDevice):
    """Records, and judges what it is asked for."""

    def __init__(self, queues: int) -> None:
        super().__init__(queues=queues)
        self.touches_memory = True
        """Whether its files are as long as they were when they came."""

    async def add_memory(self, mapped: MappedRegion) -> None:
        if self.touches_memory:
            mapped.view[0] = mapped.view[-1] = 0xFF
        await super().add_memory(mapped)

    async def remove_memory(self, mapped: MappedRegion) -> None:
        used = [vring.addresses.parts().values() for vring in self._vrings.values()]
        for part in (part for parts in used for part in parts):
            assert part.end <= mapped.guest.iova or part.iova >= mapped.guest.end
        await super().remove_memory(mapped)

    async def start(self, start: Start) -> None:
        assert start.features <= self.features
        indices = [vring.index for vring in start.vrings]
        assert indices
        assert indices == sorted({*indices} & {*range(self.queues)})
        for vring in start.vrings:
            assert 0 <= vring.base <= 0xFFFF
            for part in vring.addresses.parts().values():
                self._check_part(start.memory, part)
            for fd in (vring.kick, vring.call, vring.error):
                assert fd is None or os.fstat(fd)
        await super().start(start)

    def _check_part(self, memory: GuestMemory, part: Region) -> None:
        try:
            memory.check(part.iova, part.size)
            if self.touches_memory:
                memory.write(part.iova, memory.read(part.iova, part.size))
        except VdpadError as error:
            # Else it would pass for what the device says of its own.
            raise AssertionError(f"expected a ring within the memory, got {part}") from error

    async def enable(self, index: int, enabled: bool) -> None:
        assert index in self._vrings
        await super().enable(index, enabled)

    async def set_call(self, index: int, call: int | None) -> None:
        assert index in self._vrings
        assert call is None or os.fstat(call)
        await super().set_call(index, call)

    async def log(self, log: DirtyLog | None) -> None:
        if log is not None:
            for mapped in self.mapped:
                assert mapped.guest.end <= log.end
            log.mark(0, log.end)
        await super().log(log)

    async def stop(self) -> Mapping[int, int]:
        for vring in self._vrings.values():
            for fd in (vring.kick, vring.error):
                assert fd is None or os.fstat(fd)
        return await super().stop()

    async def _asked(self, what: str, how: str = "") -> None:
        if what != "remove_memory":
            # Whoever cancels does it here too, but for what must be done all the same.
            await asyncio.sleep(0)
        await super()._asked(what, how)

    @property
    def _vrings(self) -> dict[int, GuestVring]:
        return {} if self.started is None else {each.index: each for each in self.started.vrings}
