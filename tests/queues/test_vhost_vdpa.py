"""What of a vhost-vdpa device can be tried without one; the rest is in tests/vm."""

import errno
import mmap
import os
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.descriptors import no_descriptor_left
from vdpad.queues.vhost_vdpa.device import VhostVdpaDevice, to_negotiate
from vdpad.queues.vhost_vdpa.memory import NoMemory, SharedMemory, control_geometry, plan_layout
from vdpad.queues.vhost_vdpa.node import Node, NoSuchNode, NotPermitted, VhostVdpaError
from vdpad.virtio.features import Feature
from vdpad.virtio.split_ring import Region, ring_bytes

EVERYWHERE = Region(0, 1 << 48)


# --- what is negotiated ---


def test_what_the_guest_had_and_the_device_has_not_is_left_out() -> None:
    offered = frozenset({Feature.CTRL_VQ, Feature.CTRL_VLAN, Feature.VERSION_1})
    guest = frozenset({Feature.CTRL_VQ, Feature.CTRL_RX, Feature.CTRL_VLAN})
    assert to_negotiate(offered, guest) == offered


def test_what_the_device_offers_and_the_guest_had_not_is_left_out() -> None:
    offered = frozenset({Feature.CTRL_VQ, Feature.CTRL_VLAN, Feature.RSS, Feature.VERSION_1})
    assert Feature.RSS not in to_negotiate(offered, frozenset({Feature.CTRL_VLAN}))


@pytest.mark.parametrize(
    "ours",
    [Feature.VERSION_1, Feature.ACCESS_PLATFORM, Feature.ORDER_PLATFORM, Feature.CTRL_VQ],
)
def test_what_the_kernel_and_we_need_is_taken_whatever_the_guest_had(ours: Feature) -> None:
    assert to_negotiate(frozenset({ours}), frozenset()) == {ours}


@pytest.mark.parametrize(
    ("feature", "taken"),
    [
        (Feature.RING_EVENT_IDX, True),
        (Feature.RING_INDIRECT_DESC, True),
        (Feature.RING_PACKED, False),
        (Feature.IN_ORDER, False),
        (Feature.NOTIFICATION_DATA, False),
        (Feature.ADMIN_VQ, False),
    ],
)
def test_of_the_ring_s_features_only_those_that_leave_it_a_split_ring(
    feature: Feature, taken: bool
) -> None:
    both = frozenset({feature})
    assert (feature in to_negotiate(both, both)) is taken
    assert to_negotiate(both, frozenset()) == frozenset()


# --- where the rings lie ---


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


# --- errors ---


def test_no_node() -> None:
    with no_descriptor_left(), pytest.raises(NoSuchNode, match=r"/nowhere: open: .*\(ENOENT\)"):
        Node(Path("/nowhere"))


def test_another_kind_of_device() -> None:
    with no_descriptor_left(), pytest.raises(VhostVdpaError, match=r"GET_DEVICE_ID: .*\(ENOTTY\)"):
        VhostVdpaDevice(Path("/dev/null"), frozenset())


def test_a_node_that_is_not_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NotPermitted, match=r"open: Permission denied \(EACCES\)"):
        Node(Path("/dev/vhost-vdpa-0"))
