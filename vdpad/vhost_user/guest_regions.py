"""The guest's memory as messages change it: checked, mapped, in the table, and with the device.

What a device is given it has until it is taken away again, running or not. A region in which a ring
of a device that runs lies is not taken away.

QEMU 7.2 has one vhost device for each queue pair, and each of them adds all regions and removes
them. So a region that is there may be added again, and goes when it was removed as often.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack
from functools import partial

from vdpad.service.threads import give_back
from vdpad.vhost_user.channel import Attached
from vdpad.vhost_user.device import VhostUserDevice
from vdpad.vhost_user.faults import NotServed
from vdpad.vhost_user.memory_table import (
    MappedRegion,
    MemoryTable,
    check_regions,
    file_identity,
    map_region,
)
from vdpad.vhost_user.payloads import MemoryRegion
from vdpad.vhost_user.to_its_end import to_its_end
from vdpad.virtio.rings import Region


class GuestRegions:
    """The memory of one session. One call at a time."""

    def __init__(self, device: VhostUserDevice) -> None:
        """No memory at all."""
        self.table = MemoryTable()
        self._device = device
        self._again: Counter[MappedRegion] = Counter()
        """How often each was added beyond the first time."""

    async def add(self, region: MemoryRegion, attached: Attached) -> None:
        """ADD_MEM_REG.

        Raises:
            VdpadError: it cannot be had, or the device does not take it; nothing has changed.
        """
        for there in self.table:
            if there.region == region and there.file == file_identity(attached.fds[0]):
                self._again[there] += 1
                return
        self.table.check(region)
        await to_its_end(self._add(map_region(region, attached.fds[0])))

    async def remove(self, region: MemoryRegion, in_use: Sequence[Region]) -> None:
        """REM_MEM_REG.

        Args:
            region: which; its place in a file says nothing.
            in_use: where rings of a device that runs lie.

        Raises:
            VdpadError: there is none, it is in use, or the device keeps it; nothing has changed.
        """
        mapped = self.table.find(region)
        if self._again[mapped]:
            self._again[mapped] -= 1
            return
        _check_unused([mapped], in_use)
        await to_its_end(self._remove(mapped))

    async def replace(
        self, regions: Sequence[MemoryRegion], attached: Attached, in_use: Sequence[Region]
    ) -> None:
        """SET_MEM_TABLE. What is the same as before stays as it is.

        Args:
            regions: all that there are to be.
            attached: the file of each.
            in_use: where rings of a device that runs lie.

        Raises:
            VdpadError: they cannot be had, or the device does not take one. Then nothing has
                changed, or where it was the device, some are taken away and some are not yet there.
        """
        check_regions(regions)
        wanted = [
            (region, file_identity(fd), fd)
            for region, fd in zip(regions, attached.fds, strict=True)
        ]
        there = {(each.region, each.file) for each in self.table}
        kept = {(region, file) for region, file, _ in wanted} & there
        gone = [each for each in self.table if (each.region, each.file) not in kept]
        _check_unused(gone, in_use)
        with ExitStack() as unmapping:
            new = []
            for region, file, fd in wanted:
                if (region, file) not in kept:
                    new.append(map_region(region, fd))
                    unmapping.callback(new[-1].unmap)
            for mapped in gone:
                await to_its_end(self._remove(mapped))
            unmapping.pop_all()
        self._again.clear()
        await to_its_end(self._add_all(new))

    async def release(self) -> None:
        """Takes everything away, from the device first, whatever it says to that."""
        async with AsyncExitStack() as stack:
            for mapped in self.table:
                stack.push_async_callback(self._release, mapped)

    async def _add_all(self, new: list[MappedRegion]) -> None:
        while new:
            await self._add(new.pop(0), *new)

    async def _add(self, mapped: MappedRegion, *others: MappedRegion) -> None:
        """Adds one that was mapped; where that fails, unmaps it and the others."""
        try:
            self.table.add(mapped)
            try:
                await self._device.add_memory(mapped)
            except BaseException:
                self.table.take_out(mapped)
                raise
        except BaseException:
            await _unmap(mapped, *others)
            raise

    async def _remove(self, mapped: MappedRegion) -> None:
        await self._device.remove_memory(mapped)
        await self._take_out(mapped)

    async def _release(self, mapped: MappedRegion) -> None:
        try:
            await to_its_end(self._device.remove_memory(mapped))
        finally:
            await to_its_end(self._take_out(mapped))

    async def _take_out(self, mapped: MappedRegion) -> None:
        self.table.take_out(mapped)
        del self._again[mapped]
        await _unmap(mapped)


async def _unmap(*regions: MappedRegion) -> None:
    """Unmaps what the table does not have, on a thread."""
    await give_back(partial(_unmap_all, regions), "unmap")


def _unmap_all(regions: Iterable[MappedRegion]) -> None:
    for mapped in regions:
        mapped.unmap()


def _check_unused(gone: Iterable[MappedRegion], in_use: Sequence[Region]) -> None:
    for mapped in gone:
        for part in in_use:
            if part.iova < mapped.guest.end and mapped.guest.iova < part.end:
                raise NotServed(
                    f"memory region {mapped.guest}: expected no ring there, got one that the "
                    f"device runs with, at {part}; stop it first"
                )
