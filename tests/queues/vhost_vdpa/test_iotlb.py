"""What is mapped for a device, and what of it the kernel would leave unsaid."""

from __future__ import annotations

import mmap

import pytest

from vdpad.queues.vhost_vdpa import iotlb as iotlb_module
from vdpad.queues.vhost_vdpa.errors import BadMapping, MemoryLimit, OutOfOrder, VhostVdpaError
from vdpad.queues.vhost_vdpa.open_device import OpenDevice
from vdpad.queues.vhost_vdpa.uapi import (
    BackendFeature,
    push_iotlb_invalidate,
    push_iotlb_update,
)
from vdpad.virtio.rings import Region

from .fake_kernel import FakeKernel, FakeNode

PAGE = mmap.PAGESIZE
LOW = Region(PAGE, 4 * PAGE)
HIGH = Region(1 << 32, 2 * PAGE)
HERE = 0x7F00_0000_0000


def test_map_and_unmap_are_a_pair(kernel: FakeKernel, device: OpenDevice) -> None:
    device.iotlb.map(0, LOW, HERE)
    device.iotlb.map(1, HIGH, HERE + LOW.size)
    device.iotlb.unmap(0, LOW)
    device.iotlb.map(0, LOW, HERE)
    assert kernel.messages == [
        push_iotlb_update(0, LOW, HERE),
        push_iotlb_update(1, HIGH, HERE + LOW.size),
        push_iotlb_invalidate(0, LOW),
        push_iotlb_update(0, LOW, HERE),
    ]


@pytest.mark.parametrize(
    ("asid", "region"),
    [
        (0, HIGH),
        (1, LOW),
        (0, Region(LOW.iova, PAGE)),
        (0, Region(LOW.iova, LOW.size + PAGE)),
        (0, Region(LOW.iova + PAGE, LOW.size - PAGE)),
    ],
    ids=["another", "another space's", "its start", "it and more", "its end"],
)
def test_only_what_was_mapped_is_unmapped(
    kernel: FakeKernel, device: OpenDevice, asid: int, region: Region
) -> None:
    """The kernel would unmap all of what is touched, or nothing, and say nothing."""
    device.iotlb.map(0, LOW, HERE)
    with pytest.raises(BadMapping, match=f"mapped in address space {asid}, got "):
        device.iotlb.unmap(asid, region)
    assert kernel.messages == [push_iotlb_update(0, LOW, HERE)]


@pytest.mark.parametrize(
    "region",
    [
        LOW,
        Region(LOW.iova, PAGE),
        Region(LOW.end - PAGE, PAGE),
        Region(LOW.end - PAGE, 8 * PAGE),
    ],
)
def test_what_overlaps_is_refused_and_what_touches_is_not(
    kernel: FakeKernel, device: OpenDevice, region: Region
) -> None:
    device.iotlb.map(0, LOW, HERE)
    with pytest.raises(BadMapping, match="is mapped there"):
        device.iotlb.map(0, region, HERE)
    device.iotlb.map(1, region, HERE)
    device.iotlb.map(0, Region(LOW.end, PAGE), HERE)
    assert len(kernel.messages) == 3


@pytest.mark.parametrize(
    ("asid", "region", "address", "why"),
    [
        (2, LOW, HERE, "address space below 2, got 2"),
        (-1, LOW, HERE, "address space below 2, got -1"),
        (0, Region(PAGE + 1, PAGE), HERE, "whole pages"),
        (0, Region(PAGE, PAGE + 1), HERE, "whole pages"),
        (0, Region(PAGE, 0), HERE, "whole pages"),
        (0, LOW, HERE + 1, "whole pages"),
        (0, Region(0, PAGE), HERE, "device addresses inside"),
        (0, Region((1 << 40) - PAGE, 2 * PAGE), HERE, "device addresses inside"),
    ],
)
def test_what_cannot_be_mapped(
    kernel: FakeKernel, device: OpenDevice, asid: int, region: Region, address: int, why: str
) -> None:
    with pytest.raises(BadMapping, match=why):
        device.iotlb.map(asid, region, address)
    assert kernel.messages == []


def test_without_asid_there_is_one_address_space(kernel: FakeKernel) -> None:
    """The kernel would map into space 0 whatever it is told."""
    kernel.backend_features = BackendFeature.IOTLB_MSG_V2
    device = OpenDevice(FakeNode(kernel))
    with pytest.raises(BadMapping, match="address space below 1, got 1"):
        device.iotlb.map(1, LOW, HERE)


# --- refused by the kernel, which says EFAULT for everything ---


def test_a_limit_that_is_too_small_is_told(
    kernel: FakeKernel, device: OpenDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.maps = False
    monkeypatch.setattr(iotlb_module, "_most_pinned_bytes", lambda: LOW.size - 1)
    with pytest.raises(MemoryLimit, match=f"got a limit of {LOW.size - 1} "):
        device.iotlb.map(0, LOW, HERE)
    monkeypatch.setattr(iotlb_module, "_most_pinned_bytes", lambda: LOW.size)
    with pytest.raises(VhostVdpaError, match="mapping 16384 bytes: Bad address") as caught:
        device.iotlb.map(0, LOW, HERE)
    assert type(caught.value) is VhostVdpaError
    # It is not mapped.
    kernel.maps = True
    device.iotlb.map(0, LOW, HERE)


# --- a reset ---


def test_a_kernel_that_keeps_mappings_is_not_told_twice(
    kernel: FakeKernel, device: OpenDevice
) -> None:
    device.iotlb.map(0, LOW, HERE)
    device.reset()
    assert kernel.messages == [push_iotlb_update(0, LOW, HERE)]
    device.iotlb.unmap(0, LOW)


def test_one_that_does_not_is_told_again(kernel: FakeKernel) -> None:
    kernel.backend_features &= ~BackendFeature.IOTLB_PERSIST
    device = OpenDevice(FakeNode(kernel))
    device.iotlb.map(0, LOW, HERE)
    device.iotlb.map(1, HIGH, HERE)
    device.iotlb.map(0, HIGH, HERE)
    device.iotlb.unmap(0, HIGH)
    kernel.messages.clear()
    device.reset()
    assert kernel.messages == [
        push_iotlb_invalidate(0, LOW),
        push_iotlb_update(0, LOW, HERE),
        push_iotlb_invalidate(1, HIGH),
        push_iotlb_update(1, HIGH, HERE),
    ]


def test_memory_that_cannot_be_mapped_again_fails_the_reset(kernel: FakeKernel) -> None:
    kernel.backend_features &= ~BackendFeature.IOTLB_PERSIST
    device = OpenDevice(FakeNode(kernel))
    device.iotlb.map(0, LOW, HERE)
    kernel.maps = False
    with pytest.raises(VhostVdpaError, match="mapping"):
        device.reset()
    with pytest.raises(OutOfOrder, match="it is failed"):
        device.negotiate(device.offered)
