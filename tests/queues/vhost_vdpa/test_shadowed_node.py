"""A node with a guest's data queues: what the kernel is told; what devices do is in tests/vm."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.descriptors import no_descriptor_left
from vdpad.queues.shadowed_device import Vring
from vdpad.queues.vhost_vdpa import uapi
from vdpad.queues.vhost_vdpa.errors import (
    NoNetworkDevice,
    OutOfOrder,
    PackedRingsOnly,
    Unsupported,
    VhostVdpaError,
)
from vdpad.queues.vhost_vdpa.shadowed_node import ShadowedNode
from vdpad.queues.vhost_vdpa.uapi import BackendFeature
from vdpad.virtio.features import Feature
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitAddresses

from .fake_kernel import EVERYTHING, OFFERED, FakeKernel, FakeNode

GUEST = Region(0x4000_0000, 4 * mmap.PAGESIZE)
PLACE = SplitAddresses(64, 0x4000_0000, 0x4000_1000, 0x4000_2000)
RING = Vring(PLACE, kick=8, call=9)
CONTROL = 4


@pytest.fixture
def node(kernel: FakeKernel) -> Iterator[ShadowedNode]:
    with no_descriptor_left():
        node = ShadowedNode(FakeNode(kernel))
        yield node
        node.close()
    assert kernel.closed == 1


@pytest.fixture
def memory() -> Iterator[memoryview]:
    with mmap.mmap(-1, GUEST.size) as mapping, memoryview(mapping) as view:
        yield view


def bring_up(node: ShadowedNode) -> None:
    node.negotiate(OFFERED)
    node.set_vring(0, RING)
    node.start()


def enabled(kernel: FakeKernel) -> list[tuple[int, int]]:
    return [uapi.VRING_STATE.unpack(each) for each in kernel.told("SET_VRING_ENABLE")]


def mapped(kernel: FakeKernel) -> list[tuple[int, int, int]]:
    """Address space, device address and size of each mapping."""
    messages = [uapi._MSG_V2.unpack(each) for each in kernel.messages]
    return [(asid, iova, size) for _, asid, iova, size, *_ in messages]


def test_it_runs_with_the_control_queue_alone_first(kernel: FakeKernel, node: ShadowedNode) -> None:
    bring_up(node)
    assert node.control_queue_index == CONTROL
    assert enabled(kernel) == [(CONTROL, 1)]
    assert kernel.steps()[-2:] == ["SET_VRING_ENABLE", "SET_STATUS"]
    node.enable(0)
    assert enabled(kernel) == [(CONTROL, 1), (0, 1)]


def test_the_guest_s_memory_is_mapped_where_it_lies(
    kernel: FakeKernel, node: ShadowedNode, memory: memoryview
) -> None:
    node.map(GUEST, memory)
    (message,) = kernel.messages
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert message == uapi.push_iotlb_update(0, GUEST, address)
    node.unmap(GUEST)
    assert kernel.messages[1:] == [uapi.push_iotlb_invalidate(0, GUEST)]


def test_the_control_queue_has_an_address_space_of_its_own(
    kernel: FakeKernel, node: ShadowedNode
) -> None:
    bring_up(node)
    assert not node.shares_address_space
    geometry = node.control_geometry
    assert mapped(kernel) == [(1, geometry.memory.iova, geometry.memory.size)]
    assert geometry.memory.iova == mmap.PAGESIZE


def test_without_one_it_lies_as_high_as_can_be(kernel: FakeKernel) -> None:
    kernel.backend_features = EVERYTHING & ~BackendFeature.IOTLB_ASID
    node = ShadowedNode(FakeNode(kernel))
    bring_up(node)
    assert node.shares_address_space
    geometry = node.control_geometry
    assert mapped(kernel) == [(0, geometry.memory.iova, geometry.memory.size)]
    assert geometry.memory.end == 1 << 40
    node.close()


def test_a_start_that_has_it_elsewhere_maps_it_anew(kernel: FakeKernel, node: ShadowedNode) -> None:
    bring_up(node)
    own = node.control_geometry.memory
    node.reset()
    bring_up(node)
    assert len(mapped(kernel)) == 1
    node.reset()
    # Without MQ the CVQ is queue 2, which this device has in the group of the data queues.
    node.negotiate(OFFERED - {Feature.MQ})
    assert node.shares_address_space
    node.start()
    shared = node.control_geometry.memory
    assert mapped(kernel) == [(1, *own), (1, *own), (0, *shared)]


def test_each_start_begins_with_an_empty_ring(node: ShadowedNode) -> None:
    for _ in range(2):
        bring_up(node)
        queue = node.control_queue()
        assert queue.next_index == 0
        queue.ring.publish(5)
        queue.close()
        node.reset()


def test_a_device_that_has_packed_rings_only_is_named(
    kernel: FakeKernel, node: ShadowedNode
) -> None:
    # What it offers it was asked when it was opened.
    kernel.demanded = frozenset({Feature.RING_PACKED})
    with pytest.raises(VhostVdpaError, match="EINVAL") as refused:
        node.negotiate(OFFERED)
    assert not isinstance(refused.value, PackedRingsOnly)
    kernel.offered = OFFERED | kernel.demanded
    another = ShadowedNode(FakeNode(kernel))
    with pytest.raises(PackedRingsOnly, match=r"EINVAL.* offers RING_PACKED"):
        another.negotiate(OFFERED)
    another.reset()
    another.close()
    kernel.closed -= 1


def test_there_is_no_control_queue_before_it_was_started(node: ShadowedNode) -> None:
    node.negotiate(OFFERED)
    with pytest.raises(OutOfOrder, match="control_queue"):
        node.control_queue()
    with pytest.raises(OutOfOrder, match="control_geometry"):
        _ = node.control_geometry


def test_it_stops_where_it_stands(kernel: FakeKernel, node: ShadowedNode) -> None:
    bring_up(node)
    node.suspend()
    assert node.base(0) == 7
    node.reset()
    assert node.status() == 0


def test_a_ring_moves_while_it_is_suspended(kernel: FakeKernel, node: ShadowedNode) -> None:
    assert node.can_resume
    bring_up(node)
    node.enable(0)
    node.suspend()
    kernel.said.clear()
    ring = replace(PLACE, used=0x7000)
    moved = replace(RING, ring=ring, base=7)
    node.move_vring(0, moved, enabled=True)
    node.resume()
    (told,) = kernel.told("SET_VRING_ADDR")
    assert uapi.VRING_ADDR.unpack(told) == (0, 0, ring.descriptors, ring.used, ring.available, 0)
    # Some drivers take a ring's addresses when its queue is enabled.
    assert enabled(kernel) == [(0, 0), (0, 1)]
    assert [step for step in kernel.steps() if "VRING_C" not in step and "KICK" not in step] == [
        "SET_VRING_NUM",
        "SET_VRING_BASE",
        "SET_VRING_ADDR",
        "SET_VRING_ENABLE",
        "SET_VRING_ENABLE",
        "RESUME",
    ]


def test_a_queue_that_is_not_enabled_stays_so_when_its_ring_moves(
    kernel: FakeKernel, node: ShadowedNode
) -> None:
    bring_up(node)
    node.suspend()
    node.move_vring(0, RING, enabled=False)
    assert enabled(kernel) == [(CONTROL, 1)]


@pytest.mark.parametrize("lacking", [BackendFeature.SUSPEND, BackendFeature.RESUME])
def test_without_either_half_it_cannot_go_on(kernel: FakeKernel, lacking: BackendFeature) -> None:
    kernel.backend_features = EVERYTHING & ~lacking
    node = ShadowedNode(FakeNode(kernel))
    assert not node.can_resume
    node.close()


def test_spare_addresses_are_the_highest_that_nothing_has(kernel: FakeKernel) -> None:
    for features, end in ((EVERYTHING, 1 << 40), (EVERYTHING & ~BackendFeature.IOTLB_ASID, None)):
        kernel.backend_features = features
        node = ShadowedNode(FakeNode(kernel))
        bring_up(node)
        spare = node.spare_addresses(2 * mmap.PAGESIZE)
        assert spare.size == 2 * mmap.PAGESIZE
        assert spare.end == (end or node.control_geometry.memory.iova)
        node.close()


def test_a_driver_that_cannot_be_suspended_says_so(kernel: FakeKernel, node: ShadowedNode) -> None:
    kernel.unsupported = frozenset({"SUSPEND"})
    bring_up(node)
    with pytest.raises(Unsupported):
        node.suspend()


def test_another_kind_of_device_leaves_nothing_open(kernel: FakeKernel) -> None:
    kernel.device_id = 2
    with no_descriptor_left(), pytest.raises(NoNetworkDevice):
        ShadowedNode(FakeNode(kernel))
    assert kernel.closed == 1
