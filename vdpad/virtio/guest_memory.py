"""The memory of a driver that a device reaches: regions of device addresses, mapped here.

How it works. A region is a stretch of device addresses with a view of the bytes that stand there.
Only `add` and `remove` change the table, between any two accesses: a VMM plugs memory in and out
while the device runs. So nobody keeps what an address came to. `read` and `write` look it up each
time and leave no view behind, not even in an error's traceback: a mapping of which any view is left
cannot be closed (BufferError). A ring is looked at too often for that. It takes each of its parts
as one `stretch`, and a region is not removed before all of its stretches are released.

Regions may touch, and an access may go on from one to the next. Addresses and sizes are the
driver's and taken for hostile. So is what stands there, which may change at any time: what is to be
checked is `read` first, once, and the copy checked.
"""

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from vdpad.errors import VdpadError
from vdpad.virtio.rings import ADDRESS_END, DESCRIPTOR_ALIGNMENT, Region


class BadRegion(VdpadError, ValueError):
    """A region that cannot be added, or cannot be removed now."""


class OutsideMemory(VdpadError, ValueError):
    """Device addresses at which there is no memory."""


class _Stretch(NamedTuple):
    region: Region
    view: memoryview


class GuestMemory:
    """A table of regions. Not for two threads at once."""

    def __init__(self) -> None:
        """No memory at all."""
        # All in the order of addresses; the first two are what an access looks at.
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._views: list[memoryview] = []
        self._stretches: list[_Stretch] = []

    def add(self, region: Region, view: memoryview) -> None:
        """Takes a region in.

        Args:
            region: where it stands. It begins where a ring's part may begin, so that what is
                aligned for the driver is aligned here.
            view: its bytes, writable; the first is aligned as the region is. `remove` and
                `release` release it; where the region is refused, it stays the caller's.

        Raises:
            BadRegion: it is empty, misaligned, of another size than the view, past the end of
                all addresses, or overlaps one that is there.
        """
        if len(view) != region.size or not region.size:
            raise BadRegion(f"region {region}: expected as many bytes, got {len(view)}")
        if region.iova % DESCRIPTOR_ALIGNMENT or region.end > ADDRESS_END:
            raise BadRegion(
                f"region {region}: expected it at a multiple of {DESCRIPTOR_ALIGNMENT}, "
                "with an end of at most 2^64"
            )
        at = bisect_right(self._starts, region.iova)
        for other in range(max(0, at - 1), min(at + 1, len(self._starts))):
            there = self._region(other)
            if _overlap(region, there):
                raise BadRegion(f"region {region}: expected room for it, got one at {there}")
        self._starts.insert(at, region.iova)
        self._ends.insert(at, region.end)
        self._views.insert(at, view)

    def remove(self, region: Region) -> None:
        """Takes a region out and releases its view, so that its mapping can be closed.

        Raises:
            BadRegion: there is no such region, or a stretch of it is still in use; then nothing
                has changed.
        """
        at = bisect_right(self._starts, region.iova) - 1
        if at < 0 or self._region(at) != region:
            raise BadRegion(f"region {region}: expected one that was added, got another")
        self._check_unused(region)
        self._views[at].release()
        del self._starts[at], self._ends[at], self._views[at]

    def release(self) -> None:
        """Takes all regions out.

        Raises:
            BadRegion: a stretch is still in use; then nothing has changed.
        """
        self._check_unused(Region(0, ADDRESS_END))
        while self._starts:
            self.remove(self._region(-1))

    def stretch(self, part: Region) -> memoryview:
        """The bytes of a ring's part; the caller releases it, and every view made of it.

        Raises:
            OutsideMemory: not all of it is memory, or it does not lie within one region.
        """
        pieces = self._pieces(part.iova, part.size)
        if len(pieces) != 1:
            raise OutsideMemory(f"expected {part} within one region, got it in {len(pieces)}")
        ((view, start, end),) = pieces
        stretch = view[start:end]
        self._stretches = [*self._in_use(), _Stretch(part, stretch)]
        return stretch

    def regions(self) -> list[tuple[Region, memoryview]]:
        """All regions with their bytes, in the order of addresses; not to be kept."""
        return [(self._region(at), view) for at, view in enumerate(self._views)]

    def check(self, address: int, size: int) -> None:
        """Refuses what is not all memory.

        Raises:
            OutsideMemory: it is not.
        """
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address + size > self._ends[at]:
            self._pieces(address, size)

    def read(self, address: int, size: int) -> bytes:
        """A copy of so many bytes.

        Raises:
            OutsideMemory: not all of them are memory; then nothing was copied.
        """
        at = bisect_right(self._starts, address) - 1
        if at >= 0 and address + size <= self._ends[at]:
            offset = address - self._starts[at]
            return self._views[at][offset : offset + size].tobytes()
        return b"".join([view[start:end] for view, start, end in self._pieces(address, size)])

    def write(self, address: int, data: bytes) -> None:
        """Writes from an address on.

        Raises:
            OutsideMemory: not all of it is memory; then nothing was written.
        """
        at = bisect_right(self._starts, address) - 1
        if at >= 0 and address + len(data) <= self._ends[at]:
            offset = address - self._starts[at]
            self._views[at][offset : offset + len(data)] = data
            return
        done = 0
        for view, start, end in self._pieces(address, len(data)):
            view[start:end] = data[done : done + end - start]
            done += end - start

    def _pieces(self, address: int, size: int) -> list[tuple[memoryview, int, int]]:
        """Each region's view that an access meets, with where it begins and ends there."""
        end = address + size
        at = bisect_right(self._starts, address) - 1
        pieces = []
        here = address
        while here < end:
            if not 0 <= at < len(self._starts) or not self._starts[at] <= here < self._ends[at]:
                raise OutsideMemory(
                    f"{size} bytes at {address:#x} reach outside the memory: expected a region "
                    f"at {here:#x}, got none"
                )
            start, upto = self._starts[at], min(end, self._ends[at])
            pieces.append((self._views[at], here - start, upto - start))
            here = upto
            at += 1
        return pieces

    def _region(self, at: int) -> Region:
        return Region(self._starts[at], self._ends[at] - self._starts[at])

    def _check_unused(self, region: Region) -> None:
        for used in self._in_use():
            if _overlap(region, used.region):
                raise BadRegion(
                    f"region {region}: expected no ring there any more, got one that uses "
                    f"{used.region}; stop it first"
                )

    def _in_use(self) -> Iterator[_Stretch]:
        return (each for each in self._stretches if not _released(each.view))


def _overlap(one: Region, other: Region) -> bool:
    return one.iova < other.end and other.iova < one.end


def _released(view: memoryview) -> bool:
    try:
        view.nbytes  # noqa: B018
    except ValueError:
        return True
    return False
