"""The memory that a device of ours works on: its rings, and the room for the CVQ's buffers.

One memfd, mapped shared, as drivers that go by virtual addresses take nothing else. It has two
parts, each in whole pages and each mapped for the device by itself, since the CVQ may have an
address space of its own: the CVQ's ring and buffers, and the rings of the data queues, which stay
empty. Both parts keep one distance between device address and place in the memfd.
"""

import ctypes
import mmap
import os
from dataclasses import dataclass
from typing import Self

from vdpad.errors import VdpadError, why
from vdpad.virtio.layouts import AnyGeometry, lay_out_own, own_ring_bytes
from vdpad.virtio.rings import Region, align_up

PAGE = mmap.PAGESIZE
"""What is mapped is in whole pages of so many bytes."""

LARGEST_RING = 256
"""A ring this large takes any batch with one or two doorbells (docs/benchmarks.md)."""

# Room for two banks with the largest RSS table that there is (131 KiB), which the ring's halves
# would otherwise not both take.
_BUFFERS = 512 * 1024


class NoMemory(VdpadError):
    """The ring's memory cannot be had."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies, in device addresses."""

    control: AnyGeometry
    """The CVQ; its `memory` is the first part."""
    data: tuple[AnyGeometry, ...]
    """The rings of the data queues, in their order."""
    data_memory: Region
    """The second part."""

    @property
    def size(self) -> int:
        """Bytes of both parts."""
        return self.data_memory.end - self.control.memory.iova


def control_geometry(largest: int, iova: int = PAGE, *, packed: bool = False) -> AnyGeometry:
    """The CVQ's ring and buffers.

    Args:
        largest: how many entries the device takes.
        iova: where they begin, on a page.
        packed: RING_PACKED is negotiated.
    """
    size = _size(largest)
    memory = Region(iova, _control_bytes(size, packed=packed))
    return lay_out_own(size, memory, packed=packed)


def topmost_control_geometry(largest: int, reachable: Region) -> AnyGeometry:
    """A split one, on the last pages of what is reachable: as far from a guest's memory as can be.

    Raises:
        NoMemory: it does not fit into what is reachable.
    """
    iova = reachable.end // PAGE * PAGE - _control_bytes(_size(largest), packed=False)
    if iova < reachable.iova:
        raise NoMemory(
            f"expected room for the CVQ's ring in the device addresses {reachable}, got too little"
        )
    return control_geometry(largest, iova)


def plan_layout(
    reachable: Region, largest: int, data: list[int], *, packed: bool = False
) -> Layout:
    """Places all rings.

    Args:
        reachable: the device addresses that may be used.
        largest: how many entries the CVQ's ring may have.
        data: the same for each data queue.
        packed: RING_PACKED is negotiated.

    Raises:
        NoMemory: they do not fit into what is reachable.
    """
    first = max(PAGE, align_up(reachable.iova, PAGE))
    control = control_geometry(largest, first, packed=packed)
    begin = at = control.memory.end
    rings = []
    for most in data:
        size = _size(most)
        memory = Region(at, align_up(own_ring_bytes(size, packed=packed), PAGE))
        rings.append(lay_out_own(size, memory, packed=packed))
        at = memory.end
    layout = Layout(control, tuple(rings), Region(begin, at - begin))
    if at > reachable.end:
        raise NoMemory(f"expected {layout.size} bytes of device addresses, got {reachable}")
    return layout


def ring_room(iova: int) -> Region:
    """Room for the largest ring alone, from a page on: whole pages."""
    return Region(iova, align_up(own_ring_bytes(LARGEST_RING, packed=False), PAGE))


def _size(largest: int) -> int:
    """A power of two, as vhost wants it of packed rings too (VHOST_SET_VRING_NUM)."""
    return 1 << (min(largest, LARGEST_RING).bit_length() - 1)


def _control_bytes(size: int, *, packed: bool) -> int:
    return align_up(own_ring_bytes(size, packed=packed) + _BUFFERS, PAGE)


class SharedMemory:
    """A memfd mapped into this process."""

    def __init__(self, size: int) -> None:
        """Makes it, all zero and all in place, so that a commit meets no page fault.

        Raises:
            NoMemory: the system has none.
        """
        try:
            self.fd = os.memfd_create("vdpad-cvq", os.MFD_CLOEXEC)
            try:
                os.ftruncate(self.fd, size)
                self._map = mmap.mmap(self.fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE)
            except BaseException:
                os.close(self.fd)
                raise
        except OSError as error:
            raise NoMemory(
                f"expected {size} bytes of memory for the rings, got {why(error)}"
            ) from (error)
        self.view = memoryview(self._map)
        """Its bytes."""

    @property
    def address(self) -> int:
        """Where it lies in this process."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def close(self) -> None:
        """Unmaps it. No slice of the view may be left."""
        self.view.release()
        self._map.close()
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
