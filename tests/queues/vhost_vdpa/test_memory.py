"""Where a device's rings lie, and the memory that they are in."""

import mmap
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.descriptors import no_descriptor_left
from vdpad.queues.vhost_vdpa.memory import (
    NoMemory,
    SharedMemory,
    control_geometry,
    plan_layout,
    topmost_control_geometry,
)
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import ring_bytes

EVERYWHERE = Region(0, 1 << 48)


@pytest.mark.parametrize("data", [[], [256, 256], [1024, 2, 64, 512]])
@pytest.mark.parametrize("largest", [2, 64, 256, 32768])
def test_all_parts_lie_in_whole_pages_one_behind_the_other(largest: int, data: list[int]) -> None:
    layout = plan_layout(EVERYWHERE, largest, data)
    memories = [layout.control.memory, *(ring.memory for ring in layout.data)]
    for memory in memories:
        assert memory.iova % mmap.PAGESIZE == memory.size % mmap.PAGESIZE == 0
    assert all(before.end == after.iova for before, after in pairwise(memories))
    assert layout.data_memory == Region(layout.control.memory.end, layout.data_memory.size)
    assert layout.size == memories[-1].end - memories[0].iova
    assert [ring.size for ring in layout.data] == [min(size, 256) for size in data]


def test_a_ring_is_no_larger_than_the_device_takes() -> None:
    assert control_geometry(64).size == 64
    assert control_geometry(1024).size == 256
    assert ring_bytes(64) == control_geometry(64).buffers.iova - control_geometry(64).memory.iova


def test_the_first_page_is_left_out_and_the_device_s_range_kept_to() -> None:
    assert plan_layout(EVERYWHERE, 64, []).control.memory.iova == mmap.PAGESIZE
    above = plan_layout(Region(0x1000001, 1 << 30), 64, [64])
    assert above.control.memory.iova == 0x1001000
    with pytest.raises(NoMemory, match="bytes of device addresses"):
        plan_layout(Region(0, 8192), 64, [64])


def test_memory_is_zero_and_in_this_process() -> None:
    with no_descriptor_left(), SharedMemory(8192) as memory:
        assert bytes(memory.view) == bytes(8192)
        maps = Path("/proc/self/maps").read_text()
        assert any(f"{memory.address:x}-" in line for line in maps.splitlines())


@pytest.mark.parametrize("end", [1 << 64, 0x7FFFFFFFF000, 0x7FFFFFFFF123])
def test_the_topmost_place_is_the_last_whole_pages(end: int) -> None:
    geometry = topmost_control_geometry(64, Region(0x1000, end - 0x1000))
    assert geometry.memory.end == end // mmap.PAGESIZE * mmap.PAGESIZE
    below = control_geometry(64)
    assert (geometry.size, geometry.memory.size) == (below.size, below.memory.size)
    assert geometry.memory.iova % mmap.PAGESIZE == 0


def test_there_is_no_topmost_place_in_a_range_that_is_too_small() -> None:
    size = control_geometry(64).memory.size
    assert topmost_control_geometry(64, Region(0x1000, size)).memory.iova == 0x1000
    with pytest.raises(NoMemory, match="room for the CVQ's ring"):
        topmost_control_geometry(64, Region(0x1001, size))
