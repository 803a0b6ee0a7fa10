"""The caller of the steps: it gives a device the guest's memory and rings, and shadows its CVQ."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from tests.support.waiting import GUARD
from vdpad.queues.owned_queue import OwnedQueue
from vdpad.queues.shadowed_device import Vring
from vdpad.queues.vhost_vdpa.device import to_negotiate
from vdpad.queues.vhost_vdpa.memory import (
    SharedMemory,
    control_geometry,
    topmost_control_geometry,
)
from vdpad.queues.vhost_vdpa.open_device import OpenDevice
from vdpad.restore.program import encode
from vdpad.restore.replay import Replayed, replay
from vdpad.virtio.commands import Command
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.features import Feature, FeatureSet

from .guest import RECEIVE, TRANSMIT, Guest
from .telling import until


class Shadow:
    """The CVQ's ring, in memory of its own; mapped once, for all starts."""

    def __init__(self, device: OpenDevice) -> None:
        self.space = device.isolate_control_queue()
        largest = device.vrings.largest(device.control_queue)
        if self.space:
            self.geometry = control_geometry(largest)
        else:
            self.geometry = topmost_control_geometry(largest, device.iova_range)
        self.memory = SharedMemory(self.geometry.memory.size)
        self.kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.call = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        device.iotlb.map(self.space, self.geometry.memory, self.memory.address)

    def begin(self, device: OpenDevice) -> None:
        """An empty ring, in the address space that it is mapped in."""
        assert device.isolate_control_queue() == self.space
        self.memory.view[:] = bytes(len(self.memory.view))
        vring = Vring(self.geometry.addresses, kick=self.kick, call=self.call)
        device.vrings.set(device.control_queue, vring)


class Vmm:
    """One device, one guest."""

    def __init__(self, device: OpenDevice) -> None:
        """Maps the guest's memory, which a VMM may do before anything is negotiated."""
        self.device = device
        self.guest = Guest()
        for each in (self.guest.low, self.guest.high):
            device.iotlb.map(0, each.region, each.address)
        self.shadow: Shadow | None = None

    @property
    def features(self) -> FeatureSet:
        """What is negotiated: for a guest that has all that the device offers."""
        return to_negotiate(self.device.offered, self.device.offered)

    def bring_up(self, bases: Sequence[int] = (0, 0)) -> None:
        """From a reset to DRIVER_OK with only the CVQ enabled."""
        device = self.device
        device.negotiate(self.features)
        self.shadow = self.shadow or Shadow(device)
        self.shadow.begin(device)
        for index, (queue, base) in enumerate(zip(self.guest.queues, bases, strict=True)):
            device.vrings.set(index, queue.begin_at(base))
        device.vrings.enable(device.control_queue)
        device.start()

    def replay(self, *commands: Command) -> str:
        """Sends commands; how that ended."""
        return asyncio.run(self._replay(commands)).outcome

    def enable_data_queues(self) -> None:
        """Lets them work, and has the device look at what is there already."""
        for index, queue in enumerate(self.guest.queues):
            self.device.vrings.enable(index)
            queue.ring_doorbell()

    def used_until(self, *indices: int) -> list[int]:
        """How far the device has come, once it has come this far."""
        until(lambda: self.guest.used() == list(indices))
        return self.guest.used()

    def bases(self) -> tuple[int, int]:
        """Where the data queues stand."""
        return self.device.vrings.base(RECEIVE), self.device.vrings.base(TRANSMIT)

    async def _replay(self, commands: tuple[Command, ...]) -> Replayed:
        assert self.shadow is not None
        event_idx = Feature.RING_EVENT_IDX in self.features
        geometry = self.shadow.geometry
        ring = DriverRing(self.shadow.memory.view, geometry, event_idx=event_idx)
        queue = OwnedQueue(ring, self.shadow.kick, self.shadow.call)
        deadline = asyncio.get_running_loop().time() + GUARD
        program = encode(commands, geometry, event_idx=event_idx)
        try:
            return await replay(program, queue, deadline=deadline, poll_ns=1_000_000)
        finally:
            queue.close()
            ring.release()
