"""A device's queues: what is told of a ring, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vdpad.errors import VdpadError
from vdpad.queues.shadowed_device import Vring
from vdpad.queues.vhost_vdpa import uapi
from vdpad.queues.vhost_vdpa.errors import BadVring, DeviceRefused, OutOfOrder
from vdpad.queues.vhost_vdpa.open_device import OpenDevice
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.packed_ring import PackedAddresses
from vdpad.virtio.rings import BadGeometry
from vdpad.virtio.split_ring import SplitAddresses

from .fake_kernel import OFFERED, FakeKernel

PLACE = SplitAddresses(64, 0x10000, 0x11000, 0x12000)
RING = Vring(PLACE, base=3, kick=8, call=9)


def test_a_ring_s_encoding(kernel: FakeKernel, negotiated: OpenDevice) -> None:
    negotiated.vrings.set(1, RING)
    assert dict(kernel.said[-5:]) == {
        "SET_VRING_CALL": uapi.VRING_FILE.pack(1, 9),
        "SET_VRING_NUM": uapi.VRING_STATE.pack(1, 64),
        "SET_VRING_BASE": uapi.VRING_STATE.pack(1, 3),
        "SET_VRING_ADDR": uapi.VRING_ADDR.pack(1, 0, 0x10000, 0x12000, 0x11000, 0),
        "SET_VRING_KICK": uapi.VRING_FILE.pack(1, 8),
    }


def test_eventfds_of_an_earlier_start_do_not_stay(
    kernel: FakeKernel, negotiated: OpenDevice
) -> None:
    """vhost keeps them through a reset."""
    negotiated.vrings.set(0, RING)
    negotiated.reset()
    negotiated.negotiate(OFFERED)
    negotiated.vrings.set(0, replace(RING, kick=None, call=None))
    for name in ("SET_VRING_KICK", "SET_VRING_CALL"):
        assert kernel.told(name)[-1] == uapi.VRING_FILE.pack(0, -1)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"size": 128}, BadVring),
        ({"size": 3}, BadGeometry),
        ({"size": 0}, BadGeometry),
        ({"used": 0x12002}, BadGeometry),
    ],
)
def test_a_ring_that_the_queue_cannot_have(
    kernel: FakeKernel, negotiated: OpenDevice, wrong: dict[str, int], error: type[VdpadError]
) -> None:
    with pytest.raises(error):
        negotiated.vrings.set(0, replace(RING, ring=replace(PLACE, **wrong)))
    assert "SET_VRING_NUM" not in kernel.steps()


@pytest.mark.parametrize("base", [64, 0x8040, 64 << 16, 0x8040_8000, -1, 1 << 32])
def test_a_base_that_no_packed_ring_has(negotiated: OpenDevice, base: int) -> None:
    ring = PackedAddresses(64, 0x10000, 0x11000, 0x11004)
    with pytest.raises(BadVring, match=f"queue 0: expected a base .* below 64 .* got {base:#x}"):
        negotiated.vrings.set(0, Vring(ring, base))


@pytest.mark.parametrize("base", [-1, 1 << 16])
def test_a_base_that_no_ring_has(negotiated: OpenDevice, base: int) -> None:
    with pytest.raises(BadVring, match=f"expected a base of 16 bits, got {base}"):
        negotiated.vrings.set(0, replace(RING, base=base))


def test_the_largest_ring_is_what_the_queue_had_before_it_was_set(
    kernel: FakeKernel, negotiated: OpenDevice
) -> None:
    negotiated.vrings.set(0, replace(RING, ring=replace(PLACE, size=2)))
    kernel.largest = 2  # as vp_vdpa answers from then on
    negotiated.vrings.set(0, RING)
    negotiated.reset()
    negotiated.negotiate(OFFERED)
    assert negotiated.vrings.largest(0) == 2


def test_an_older_kernel_tells_one_size_for_all(kernel: FakeKernel, negotiated: OpenDevice) -> None:
    kernel.unsupported = frozenset({"GET_VRING_SIZE"})
    assert negotiated.vrings.largest(0) == 256


def test_a_queue_without_a_ring_is_not_enabled(negotiated: OpenDevice) -> None:
    negotiated.vrings.set(0, RING)
    negotiated.vrings.enable(0)
    with pytest.raises(OutOfOrder, match="queue 1 to have a ring"):
        negotiated.vrings.enable(1)
    negotiated.reset()
    negotiated.negotiate(OFFERED)
    with pytest.raises(OutOfOrder, match="queue 0 to have a ring, it has none since the last res"):
        negotiated.vrings.enable(0)


def test_a_ring_is_set_anew_while_suspended(kernel: FakeKernel, negotiated: OpenDevice) -> None:
    negotiated.vrings.set(0, RING)
    negotiated.start()
    negotiated.suspend()
    assert negotiated.vrings.base(0) == 7
    negotiated.vrings.set(0, replace(RING, ring=replace(PLACE, used=0x20000), base=7))
    assert kernel.told("SET_VRING_ADDR")[-1] == uapi.VRING_ADDR.pack(
        0, 0, 0x10000, 0x20000, 0x11000, 0
    )
    with pytest.raises(OutOfOrder, match="queue 1 to have a ring"):
        negotiated.vrings.set(1, RING)


def test_a_device_that_breaks_when_a_queue_is_disabled(
    kernel: FakeKernel, negotiated: OpenDevice
) -> None:
    negotiated.vrings.set(0, RING)
    negotiated.start()
    negotiated.vrings.disable(0)
    assert kernel.told("SET_VRING_ENABLE") == [uapi.VRING_STATE.pack(0, 0)]
    kernel.bits_after_disable = DeviceStatus.NEEDS_RESET
    with pytest.raises(DeviceRefused, match="0x0f after disabling queue 0, got 0x4f"):
        negotiated.vrings.disable(0)


# --- interrupts, which drivers allocate at DRIVER_OK ---


def test_a_call_may_change_while_the_device_runs(
    kernel: FakeKernel, negotiated: OpenDevice
) -> None:
    negotiated.vrings.set(0, RING)
    negotiated.start()
    for eventfd in (None, 10):
        negotiated.vrings.set_call(0, eventfd)
        negotiated.vrings.set_kick(0, eventfd)
    for name in ("SET_VRING_KICK", "SET_VRING_CALL"):
        assert kernel.told(name)[-2:] == [
            *(uapi.VRING_FILE.pack(0, -1), uapi.VRING_FILE.pack(0, 10)),
        ]


def test_a_call_that_comes_too_late_is_told(kernel: FakeKernel, negotiated: OpenDevice) -> None:
    for queue in (0, 1):
        negotiated.vrings.set(queue, replace(RING, call=None))
    negotiated.vrings.set(2, RING)
    negotiated.vrings.set_call(1, 9)
    negotiated.vrings.set_call(2, None)
    negotiated.start()
    negotiated.vrings.set_call(1, 10)
    before = list(kernel.said)
    for queue in (0, 2):
        negotiated.vrings.set_call(queue, None)
        with pytest.raises(OutOfOrder, match=f"queue {queue} to have had a call eventfd at DRIVER"):
            negotiated.vrings.set_call(queue, 9)
    negotiated.suspend()
    with pytest.raises(OutOfOrder, match=r"^vrings.set: expected queue 0 to have had a call"):
        negotiated.vrings.set(0, RING)
    assert [name for name, _ in kernel.said[len(before) :]] == [
        *("SET_VRING_CALL", "SET_VRING_CALL", "SUSPEND"),
    ]
