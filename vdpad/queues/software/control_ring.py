"""The CVQ of a software device with data queues: its ring lies in memory of the device's own.

As of devices whose CVQ has an address space for itself: no descriptor of a guest's can name it. All
but `queue` is called on the device's thread (worker.py).
"""

import mmap
import os
from contextlib import ExitStack

from vdpad.errors import VdpadError
from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.owned_queue import OwnedQueue
from vdpad.queues.software.net import NetDevice
from vdpad.virtio.device_ring import DeviceRing
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitGeometry, lay_out

# Ring and buffers, which take the largest RSS command (131 KiB) many times over.
_SIZE = 64
_MEMORY = Region(mmap.PAGESIZE, 1 << 20)


class NotStarted(VdpadError):
    """The device is not at DRIVER_OK."""


class ControlRing:
    """Both sides of the ring, from each `begin` to an `end`."""

    def __init__(self) -> None:
        """
        Raises:
            OSError: the system gives no descriptors, or no memory.
        """
        self.geometry: SplitGeometry = lay_out(_SIZE, _MEMORY)
        with ExitStack() as undo:
            self.doorbell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, self.doorbell)
            self._call = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, self._call)
            self._map = mmap.mmap(-1, _MEMORY.size)
            undo.pop_all()
        self._view = memoryview(self._map)
        self._memory = GuestMemory()
        self._memory.add(_MEMORY, self._view)
        self._device: DeviceRing | None = None
        self._in_order = False
        self._driver: DriverRing | None = None

    @property
    def is_up(self) -> bool:
        """Whether it has begun and not ended."""
        return self._device is not None

    def queue(self) -> ControlQueue:
        """For who drives the device.

        Raises:
            NotStarted: it has not begun.
        """
        if self._driver is None:
            raise NotStarted("expected a device that was started, it was not")
        return OwnedQueue(self._driver, self.doorbell, self._call, worth_polling=False)

    def begin(self, features: FeatureSet) -> None:
        """An empty ring that begins at 0."""
        self._view[:] = bytes(len(self._view))
        event_idx = Feature.RING_EVENT_IDX in features
        self._device = DeviceRing(
            self._memory,
            self.geometry.addresses,
            next_available=0,
            event_idx=event_idx,
            indirect=Feature.RING_INDIRECT_DESC in features,
        )
        self._in_order = Feature.IN_ORDER in features
        self._driver = DriverRing(
            self._view, self.geometry, event_idx=event_idx, in_order=self._in_order
        )
        self._device.idle()

    def serve(self, net: NetDevice) -> bool:
        """Carries out the commands that are there; whether there are more.

        Raises:
            BadChain: the ring makes no sense.
        """
        ring = self._device
        assert ring is not None
        chains = ring.take()
        returned = []
        for chain in chains:
            answer = net.answer(chain.readable, chain.room)
            ring.answer(chain, answer)
            returned.append((chain.head, len(answer)))
        ring.put_all(returned, in_order=self._in_order)
        if chains and ring.wants_interrupt():
            os.eventfd_write(self._call, 1)
        return bool(chains) or not ring.idle()

    def end(self) -> None:
        """Lets go of the ring. May be called where it has not begun."""
        device, self._device = self._device, None
        driver, self._driver = self._driver, None
        if device is not None:
            device.release()
        if driver is not None:
            driver.release()

    def close(self) -> None:
        """Lets go of memory and descriptors; it has ended."""
        self._memory.release()
        self._map.close()
        os.close(self.doorbell)
        os.close(self._call)
