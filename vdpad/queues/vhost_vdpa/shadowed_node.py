"""A vhost-vdpa device whose data queues are a guest's and whose CVQ is ours.

The steps are open_device.py's. The CVQ's ring lies in a memfd of its own: in an address space of
its own where the device has one for it, else on the last pages of everybody's, as far from the
guest's memory as can be. Which it is goes by the features, as the CVQ's index does. So it is mapped
at the first start, stays mapped as the guest's memory does, and is mapped anew only where a start
has it elsewhere.
"""

import ctypes
import mmap
import os
from contextlib import ExitStack
from dataclasses import dataclass

from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.owned_queue import OwnedQueue
from vdpad.queues.shadowed_device import Vring
from vdpad.queues.vhost_vdpa.errors import (
    OutOfOrder,
    PackedRingsOnly,
    Unsupported,
    VhostVdpaError,
)
from vdpad.queues.vhost_vdpa.memory import (
    SharedMemory,
    control_geometry,
    topmost_control_geometry,
)
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.queues.vhost_vdpa.open_device import OpenDevice
from vdpad.queues.vhost_vdpa.uapi import BackendFeature
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.layouts import AnyGeometry
from vdpad.virtio.rings import Region


@dataclass(frozen=True, slots=True)
class _Control:
    """The CVQ's ring and buffers, mapped."""

    space: int
    geometry: AnyGeometry
    memory: SharedMemory


class ShadowedNode:
    """Implements ShadowedDevice."""

    dropped = None
    """vhost-vdpa does not tell."""
    can_announce = False
    """Its transmit queues are the guest's, and vhost-vdpa has no other way to the network."""

    def __init__(self, node: Node) -> None:
        """Takes over a node that was just opened. May sleep for as long as its driver does.

        Args:
            node: closed by `close`, and where this raises.

        Raises:
            NoNetworkDevice: it is no network device.
        """
        with ExitStack() as undo:
            self._device = undo.enter_context(OpenDevice(node))
            self.name = node.path.name
            self.offered = self._device.offered
            self._kick = _eventfd(undo)
            self._call = _eventfd(undo)
            undo.pop_all()
        self._features: FeatureSet = frozenset()
        self._space = 0
        self._control: _Control | None = None
        self._ring: DriverRing | None = None

    # --- at any time ---

    def config(self) -> bytes:
        """The whole config space."""
        return self._device.config()

    def set_config_call(self, eventfd: int | None) -> None:
        """The eventfd that tells of changes, or none."""
        self._device.set_config_call(eventfd)

    def status(self) -> DeviceStatus:
        """What the device says of itself."""
        return self._device.status()

    def map(self, region: Region, view: memoryview) -> None:
        """Lets the data queues see this memory. The kernel may pin every page of it."""
        self._device.iotlb.map(0, region, ctypes.addressof(ctypes.c_char.from_buffer(view)))

    def unmap(self, region: Region) -> None:
        """Takes a region from the device."""
        self._device.iotlb.unmap(0, region)

    # --- bring-up ---

    def negotiate(self, features: FeatureSet) -> None:
        """From a reset to FEATURES_OK, and the CVQ into its address space.

        Raises:
            PackedRingsOnly: it refused split rings, and offers packed ones.
        """
        try:
            self._device.negotiate(features)
        except VhostVdpaError as error:
            if Feature.RING_PACKED in self.offered - features:
                raise PackedRingsOnly(str(error)) from error
            raise
        self._features = features
        self._space = self._device.isolate_control_queue()

    @property
    def control_queue_index(self) -> int:
        """Which queue is the CVQ."""
        return self._device.control_queue

    @property
    def shares_address_space(self) -> bool:
        """Whether the CVQ's ring stands in everybody's address space."""
        return self._space == 0

    def largest_ring(self, queue: int) -> int:
        """How many entries the queue's ring may have."""
        return self._device.vrings.largest(queue)

    def set_vring(self, queue: int, vring: Vring) -> None:
        """Places a data queue's ring."""
        self._device.vrings.set(queue, vring)

    def start(self) -> None:
        """To DRIVER_OK, with the CVQ enabled alone."""
        control = self._placed_control()
        control.memory.view[:] = bytes(len(control.memory.view))
        vring = Vring(control.geometry.addresses, kick=self._kick, call=self._call)
        self._device.vrings.set(self.control_queue_index, vring)
        self._device.vrings.enable(self.control_queue_index)
        self._device.start()
        self._ring = DriverRing(
            control.memory.view,
            control.geometry,
            event_idx=Feature.RING_EVENT_IDX in self._features,
            in_order=Feature.IN_ORDER in self._features,
        )

    # --- while it runs ---

    def control_queue(self) -> ControlQueue:
        """The CVQ."""
        if self._ring is None:
            raise OutOfOrder("control_queue: expected a device that was started, it was not")
        return OwnedQueue(self._ring, self._kick, self._call)

    @property
    def control_geometry(self) -> AnyGeometry:
        """Where the CVQ's ring and buffers lie."""
        if self._control is None:
            raise OutOfOrder("control_geometry: expected a device that was started, it was not")
        return self._control.geometry

    def enable(self, queue: int) -> None:
        """Lets the device work on a data queue."""
        self._device.vrings.enable(queue)

    def set_call(self, queue: int, eventfd: int | None) -> None:
        """Another eventfd for a data queue's interrupts, or none."""
        self._device.vrings.set_call(queue, eventfd)

    def announce(self, mac: bytes) -> None:
        """Not of this process."""
        raise Unsupported(
            f"{self.name}: expected a device that sends a frame for its guest, its transmit queues "
            "are the guest's alone; have the network told otherwise"
        )

    # --- suspended ---

    @property
    def can_suspend(self) -> bool:
        """Whether its driver offers it."""
        return BackendFeature.SUSPEND in self._device.backend_features

    @property
    def can_resume(self) -> bool:
        """Whether its driver offers both halves of it."""
        return self.can_suspend and BackendFeature.RESUME in self._device.backend_features

    def spare_addresses(self, size: int) -> Region:
        """The last pages, or those before the CVQ's where that stands among them."""
        end = self._device.iova_range.end // mmap.PAGESIZE * mmap.PAGESIZE
        if self.shares_address_space:
            end = self._wanted_geometry().memory.iova
        return Region(end - size, size)

    def suspend(self) -> None:
        """Has the device leave all rings as they are."""
        self._device.suspend()

    def base(self, queue: int) -> int:
        """The available index that the device takes next."""
        return self._device.vrings.base(queue)

    def move_vring(self, queue: int, vring: Vring, *, enabled: bool) -> None:
        """Has a data queue go on with a ring that lies elsewhere; drivers latch it at enabling."""
        vrings = self._device.vrings
        vrings.set(queue, vring)
        if enabled:
            vrings.disable(queue)
            vrings.enable(queue)

    def resume(self) -> None:
        """Lets it go on."""
        self._device.resume()

    # --- the end ---

    def reset(self) -> None:
        """Back to the beginning."""
        self._let_go_of_ring()
        self._device.reset()

    def close(self) -> None:
        """Gives the device back; the kernel resets it."""
        # The device first: until it is reset the memory is its own.
        self._device.close()
        self._let_go_of_ring()
        if self._control is not None:
            self._control.memory.close()
        os.close(self._kick)
        os.close(self._call)

    # --- the CVQ's memory ---

    def _placed_control(self) -> _Control:
        geometry = self._wanted_geometry()
        control = self._control
        if control is not None and (control.space, control.geometry) == (self._space, geometry):
            return control
        if control is not None:
            self._device.iotlb.unmap(control.space, control.geometry.memory)
            self._control = None
            control.memory.close()
        memory = SharedMemory(geometry.memory.size)
        try:
            self._device.iotlb.map(self._space, geometry.memory, memory.address)
        except BaseException:
            memory.close()
            raise
        self._control = _Control(self._space, geometry, memory)
        return self._control

    def _wanted_geometry(self) -> AnyGeometry:
        largest = self.largest_ring(self.control_queue_index)
        if self.shares_address_space:
            return topmost_control_geometry(largest, self._device.iova_range)
        return control_geometry(largest)

    def _let_go_of_ring(self) -> None:
        ring, self._ring = self._ring, None
        if ring is not None:
            ring.release()


def _eventfd(undo: ExitStack) -> int:
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    undo.callback(os.close, fd)
    return fd
