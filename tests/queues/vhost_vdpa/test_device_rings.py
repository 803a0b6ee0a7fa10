"""The rings of a device that we keep: of which layout, what the kernel is told of them, and their
use by one replay after the other. The device's side of the CVQ is a task of the tests."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.support.batches import vlans
from tests.support.descriptors import no_descriptor_left
from vdpad.queues.eventfds import Waiter
from vdpad.queues.vhost_vdpa import device as device_module
from vdpad.queues.vhost_vdpa import uapi
from vdpad.queues.vhost_vdpa.device import VhostVdpaDevice
from vdpad.queues.vhost_vdpa.errors import DeviceRefused, VhostVdpaError
from vdpad.restore.program import encode
from vdpad.restore.replay import Outcome, Replayed, replay
from vdpad.virtio.bits import bits_of
from vdpad.virtio.commands import ACK_OK
from vdpad.virtio.device_ring import DeviceRing
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.packed_device_ring import PackedDeviceRing
from vdpad.virtio.packed_ring import PackedGeometry

from .fake_kernel import OFFERED, PATH, FakeKernel, FakeNode

RINGS = {Feature.RING_PACKED, Feature.IN_ORDER, Feature.NOTIFICATION_DATA, Feature.RING_EVENT_IDX}
EVERYTHING = OFFERED | RINGS
GUEST = frozenset({Feature.CTRL_VQ, Feature.MQ, Feature.RING_EVENT_IDX})
PACKED = frozenset({Feature.RING_PACKED})
IN_ORDER = frozenset({Feature.IN_ORDER})
FRESH = {True: 0x8000_8000, False: 0}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """Whose device offers all."""
    kernel = FakeKernel(offered=EVERYTHING)

    def opened(path: Path) -> FakeNode:
        return FakeNode(kernel)

    monkeypatch.setattr(device_module, "Node", opened)
    return kernel


@contextmanager
def up(kernel: FakeKernel, guest: FeatureSet) -> Iterator[VhostVdpaDevice]:
    with no_descriptor_left():
        device = VhostVdpaDevice(PATH, guest)
        try:
            yield device
        finally:
            device.close()
    assert kernel.closed == 1


def negotiated(kernel: FakeKernel) -> list[FeatureSet]:
    """What was tried, one after the other."""
    return [bits_of(uapi.U64.unpack(each)[0]) for each in kernel.told("SET_FEATURES")]


def vring(kernel: FakeKernel, name: str) -> dict[int, int]:
    return dict(uapi.VRING_STATE.unpack(each) for each in kernel.told(name))


# --- which layout ---


@pytest.mark.parametrize("offered", [EVERYTHING, EVERYTHING - PACKED], ids=["both", "split"])
@pytest.mark.parametrize("guest", [GUEST, GUEST | PACKED], ids=["split-guest", "packed-guest"])
def test_the_layout_is_the_guest_s_where_the_device_has_it(
    kernel: FakeKernel, offered: FeatureSet, guest: FeatureSet
) -> None:
    kernel.offered = offered
    packed = Feature.RING_PACKED in offered & guest
    with up(kernel, guest) as device:
        assert (Feature.RING_PACKED in device.features) is packed
        assert isinstance(device.geometry, PackedGeometry) is packed
        assert negotiated(kernel) == [device.features]
        assert Feature.NOTIFICATION_DATA not in device.features


def test_a_device_that_has_packed_rings_only_gets_them(kernel: FakeKernel) -> None:
    kernel.demanded = PACKED | {Feature.NOTIFICATION_DATA}
    with up(kernel, GUEST) as device:
        split, packed = negotiated(kernel)
        assert packed - split == kernel.demanded
        assert device.features == packed
        assert isinstance(device.geometry, PackedGeometry)
    # It was reset before it was asked once more, and not opened again.
    statuses = [status[0] for status in kernel.told("SET_STATUS")]
    assert statuses == [0x1, 0x3, 0, 0x1, 0x3, 0xB, 0xF]


@pytest.mark.parametrize(
    ("offered", "guest", "tries"),
    [(EVERYTHING, GUEST, 2), (EVERYTHING, GUEST | PACKED, 1), (EVERYTHING - PACKED, GUEST, 1)],
)
def test_a_device_that_refuses_either_is_let_go_of(
    kernel: FakeKernel, offered: FeatureSet, guest: FeatureSet, tries: int
) -> None:
    kernel.offered = offered
    kernel.demanded = frozenset({Feature.ORDER_PLATFORM})
    with no_descriptor_left(), pytest.raises(VhostVdpaError, match="SET_FEATURES"):
        VhostVdpaDevice(PATH, guest)
    assert len(negotiated(kernel)) == tries
    assert kernel.closed == 1


# --- what the kernel is told ---


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "split"])
def test_all_rings_are_fresh_and_of_one_layout(kernel: FakeKernel, packed: bool) -> None:
    with up(kernel, GUEST | PACKED if packed else GUEST) as device:
        assert vring(kernel, "SET_VRING_NUM") == dict.fromkeys(range(5), 64)
        assert vring(kernel, "SET_VRING_BASE") == dict.fromkeys(range(5), FRESH[packed])
        *data, control = (uapi.VRING_ADDR.unpack(each) for each in kernel.told("SET_VRING_ADDR"))
        assert control == (4, 0, *_areas(device), 0)
        places = [each[2:5] for each in (*data, control)]
        assert len({place for each in places for place in each}) == 15
        assert all(at % mmap.PAGESIZE == 0 for at, *_ in places)
        for descriptors, device_area, driver_area in places:
            between = driver_area - descriptors
            assert between == 64 * 16
            assert device_area - driver_area == (4 if packed else 6 + 2 * 64 + 2)


def _areas(device: VhostVdpaDevice) -> tuple[int, int, int]:
    """As VHOST_SET_VRING_ADDR has them: descriptors, the device's, the driver's."""
    geometry = device.geometry
    if isinstance(geometry, PackedGeometry):
        return geometry.descriptors, geometry.device, geometry.driver
    return geometry.descriptors, geometry.used, geometry.available


def test_vhost_takes_no_ring_of_another_size_than_a_power_of_two(kernel: FakeKernel) -> None:
    kernel.largest = 100
    with up(kernel, GUEST | PACKED):
        assert set(vring(kernel, "SET_VRING_NUM").values()) == {64}


# --- one user after the other ---


@asynccontextmanager
async def served(device: VhostVdpaDevice) -> AsyncIterator[list[bytes]]:
    """Acknowledges all that comes, in the memory that the kernel was told of; what came."""
    with mmap.mmap(device.descriptors().memory, device.geometry.memory.size) as shared:
        memory, came = GuestMemory(), list[bytes]()
        memory.add(device.geometry.memory, memoryview(shared))
        ring = _device_side(device, memory)
        task = asyncio.create_task(_serve(device, ring, came))
        try:
            yield came
        finally:
            task.cancel()
            await asyncio.wait([task])
            ring.release()
            memory.release()


def _device_side(device: VhostVdpaDevice, memory: GuestMemory) -> DeviceRing | PackedDeviceRing:
    geometry, event_idx = device.geometry, device.event_idx
    if isinstance(geometry, PackedGeometry):
        return PackedDeviceRing(
            memory, geometry.addresses, position=0, event_idx=event_idx, indirect=False
        )
    return DeviceRing(
        memory, geometry.addresses, next_available=0, event_idx=event_idx, indirect=False
    )


async def _serve(
    device: VhostVdpaDevice, ring: DeviceRing | PackedDeviceRing, came: list[bytes]
) -> None:
    _, _, kick, call = device.descriptors()
    put = ring.put_in_one if IN_ORDER & device.features else ring.put_together
    kicked = Waiter(kick)
    try:
        while True:
            if chains := ring.take():
                came.extend(chain.readable for chain in chains)
                for chain in chains:
                    ring.answer(chain, bytes((ACK_OK,)))
                put([(chain.head, 1) for chain in chains])
                if ring.wants_interrupt():
                    os.eventfd_write(call, 1)
            elif ring.idle():
                await kicked.wait(60.0)
    finally:
        kicked.close()


async def sent(device: VhostVdpaDevice, count: int, *, seconds: float = 1.0) -> Replayed:
    queue = device.queue()
    program = encode(tuple(vlans(count)), device.geometry, event_idx=device.event_idx)
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        return await replay(program, queue, deadline=deadline, poll_ns=100_000)
    finally:
        queue.close()


@pytest.mark.parametrize("event_idx", [True, False], ids=["event-idx", "no-event-idx"])
@pytest.mark.parametrize("ring", [frozenset(), PACKED, IN_ORDER, PACKED | IN_ORDER])
async def test_each_user_goes_on_where_the_one_before_it_stopped(
    kernel: FakeKernel, ring: FeatureSet, event_idx: bool
) -> None:
    guest = GUEST | ring if event_idx else GUEST - {Feature.RING_EVENT_IDX} | ring
    # Of 64 descriptors, two a command: the ring wraps in the midst of batches and at their end.
    counts = (1, 30, 1, 40, 24, 0, 100, 32)
    with up(kernel, guest) as device:
        assert device.is_unused
        async with served(device) as came:
            for at, count in enumerate(counts):
                assert (await sent(device, count)).outcome is Outcome.RESTORED
                assert len(came) == sum(counts[: at + 1])
        assert not device.is_unused


@pytest.mark.parametrize("ring", [frozenset(), PACKED], ids=["split", "packed"])
async def test_one_user_may_send_one_batch_after_another(
    kernel: FakeKernel, ring: FeatureSet
) -> None:
    with up(kernel, GUEST | ring) as device:
        queue = device.queue()
        program = encode(tuple(vlans(20)), device.geometry, event_idx=device.event_idx)
        async with served(device) as came:
            for turn in range(5):
                deadline = asyncio.get_running_loop().time() + 20.0
                sent = await replay(program, queue, deadline=deadline, poll_ns=0)
                assert (sent.outcome, len(came)) == (Outcome.RESTORED, 20 * (turn + 1))
                assert sent.next_index == queue.next_index
        queue.close()


@pytest.mark.parametrize("ring", [frozenset(), PACKED], ids=["split", "packed"])
async def test_chains_that_never_came_back_leave_it_to_nobody(
    kernel: FakeKernel, ring: FeatureSet
) -> None:
    with up(kernel, GUEST | ring) as device:
        assert (await sent(device, 3, seconds=0.05)).outcome is Outcome.INCOMPLETE
        assert not device.is_unused
        with pytest.raises(DeviceRefused, match="chains in flight"):
            device.queue()
