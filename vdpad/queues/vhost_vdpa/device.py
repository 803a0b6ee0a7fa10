"""A vhost-vdpa device of ours: brought up to DRIVER_OK with its CVQ enabled, and kept.

The bring-up is one way through, each step allowed by the one before:

    open (resets) → own → backend features → status ACKNOWLEDGE, DRIVER → features, FEATURES_OK
    → config space → the CVQ's address space → memory → rings → CVQ enabled → DRIVER_OK

What orders it: the config space may only be read once features are set, and says which queue is the
CVQ; groups get their address space before memory is mapped into it; a driver takes ring addresses
at the latest with DRIVER_OK, some with the queue's enabling. A device refuses by leaving a status
bit out, or by FAILED or NEEDS_RESET, and by nothing else, so the status is read again after each
step. The data queues have valid empty rings and stay disabled.

The device is ours until `close`, which resets it.

Source: virtio 1.4, 3.1.1 "Driver Requirements: Device Initialization"; Linux 6.12,
drivers/vhost/vdpa.c, drivers/vdpa/vdpa_sim/vdpa_sim.c, drivers/vdpa/virtio_pci/vp_vdpa.c.
"""

import os
from contextlib import ExitStack
from enum import IntFlag
from pathlib import Path
from typing import NamedTuple

from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.eventfds import Waiter
from vdpad.queues.vhost_vdpa.memory import Layout, SharedMemory, plan_layout
from vdpad.queues.vhost_vdpa.node import BackendFeature, Node, VhostVdpaError
from vdpad.virtio.config import cvq_index, pull_config
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.features import TRANSPORT, Feature, FeatureSet
from vdpad.virtio.split_ring import RingGeometry

_NET = 1  # virtio 1.4, 5 "Device Types"

# What we drive the device with, whatever the guest had.
_OURS: FeatureSet = frozenset(
    {Feature.VERSION_1, Feature.ACCESS_PLATFORM, Feature.ORDER_PLATFORM, Feature.CTRL_VQ}
)
# Of the ring's own features those that leave a split ring what it is; the data queues' rings will
# be the guest's.
_TAKEN_AS_THE_GUEST_HAD: FeatureSet = frozenset(
    {Feature.RING_EVENT_IDX, Feature.RING_INDIRECT_DESC, Feature.RING_RESET}
)


class DeviceRefused(VhostVdpaError):
    """The device does not come up, or is none that has a CVQ."""


class NoControlQueue(DeviceRefused):
    """The device does not offer CTRL_VQ."""

    def __init__(self, offered: FeatureSet) -> None:
        super().__init__("expected a device that offers CTRL_VQ, this one does not")
        self.offered = offered


class DeviceDescriptors(NamedTuple):
    """What a device of ours is made of; copies of them keep it from being reset."""

    node: int
    memory: int
    kick: int
    call: int


class Status(IntFlag):
    """The device status field (virtio 1.4, 2.1)."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


def to_negotiate(offered: FeatureSet, guest: FeatureSet) -> FeatureSet:
    """What of the offered features a device is brought up with, for a guest that had these."""
    return offered & ((guest - set(TRANSPORT)) | (guest & _TAKEN_AS_THE_GUEST_HAD) | _OURS)


class OwnedQueue:
    """The CVQ of a device of ours; implements ControlQueue. Closing it leaves the device up."""

    def __init__(self, ring: DriverRing, kick: int, call: int) -> None:
        self.ring = ring
        self.worth_polling = True
        self._kick = kick
        self._call = Waiter(call)

    @property
    def next_index(self) -> int:
        """Both indices of the idle ring."""
        return self.ring.available_index

    def kick(self) -> None:
        """Rings the doorbell."""
        os.eventfd_write(self._kick, 1)

    async def called(self, seconds: float) -> None:
        """Returns when the device has interrupted, or after so many seconds."""
        await self._call.wait(seconds)

    def close(self) -> None:
        """Ends the watch for interrupts."""
        self._call.close()


class VhostVdpaDevice:
    """A device that is up. Made on any thread of this process; closed on any, once."""

    def __init__(self, path: Path, guest: FeatureSet) -> None:
        """Opens the device and brings it up. May sleep for as long as its driver does.

        Args:
            path: of its node.
            guest: the features that the state's guest negotiated.

        Raises:
            VhostVdpaError: by a subclass that says whose fault it is. The device is let go of.
            NoMemory: for the rings.
        """
        with ExitStack() as undo:
            self._node = Node(path)
            undo.callback(self._node.close)
            self.offered = self._come_to_driver()
            """Features that the device offers."""
            self.features = to_negotiate(self.offered, guest)
            """Those that were negotiated."""
            self._node.accept_features(self.features)
            self._advance(Status.FEATURES_OK)
            self.config = pull_config(self._node.config())
            index = self._control_queue()
            layout = self._lay_out(index)
            self.geometry: RingGeometry = layout.control
            self._memory = SharedMemory(layout.size)
            undo.callback(self._memory.close)
            self._map(layout, self._separate(index))
            self._kick = _eventfd(undo)
            self._call = _eventfd(undo)
            self._set_up_rings(index, layout)
            self._advance(Status.DRIVER_OK)
            self._ring = DriverRing(
                self._memory.view[: layout.control.memory.size],
                self.geometry,
                event_idx=self.event_idx,
            )
            undo.pop_all()

    @property
    def event_idx(self) -> bool:
        """Whether RING_EVENT_IDX was negotiated."""
        return Feature.RING_EVENT_IDX in self.features

    @property
    def is_unused(self) -> bool:
        """Whether nothing was made available on its CVQ since it came up."""
        return self._ring.available_index == 0

    def queue(self) -> ControlQueue:
        """The CVQ, for one user at a time.

        Raises:
            DeviceRefused: the device still has chains of an earlier replay.
        """
        if self._ring.available_index != self._ring.used_index():
            raise DeviceRefused(
                f"expected an idle ring, got available index {self._ring.available_index} and "
                f"used index {self._ring.used_index()}; release the device, which resets it"
            )
        return OwnedQueue(self._ring, self._kick, self._call)

    def descriptors(self) -> DeviceDescriptors:
        """What it is made of; all stay the device's."""
        return DeviceDescriptors(self._node.fileno(), self._memory.fd, self._kick, self._call)

    def reset(self) -> None:
        """Resets the device, whoever else has copies of its node; only `close` may follow."""
        self._node.set_status(0)

    def close(self) -> None:
        """Gives the device back; the kernel resets it. May sleep for as long as its driver does."""
        # The device first: until it is reset the memory is its own.
        self._node.close()
        self._ring.release()
        self._memory.close()
        os.close(self._kick)
        os.close(self._call)

    # --- the steps ---

    def _come_to_driver(self) -> FeatureSet:
        """From open to the status DRIVER; what the device offers."""
        node = self._node
        device_id = node.device_id()
        if device_id != _NET:
            raise DeviceRefused(f"expected a network device (1), got virtio device ID {device_id}")
        node.own()
        node.accept_backend_features(node.backend_features())
        node.set_status(0)
        self._advance(Status.ACKNOWLEDGE)
        self._advance(Status.DRIVER)
        offered = node.features()
        if Feature.CTRL_VQ not in offered:
            raise NoControlQueue(offered)
        return offered

    def _advance(self, bit: Status) -> None:
        """Sets one more status bit and reads whether the device agreed."""
        wanted = Status(self._node.status()) | bit
        self._node.set_status(wanted)
        status = Status(self._node.status())
        if status != wanted:
            raise DeviceRefused(
                f"expected device status {wanted:#04x} after {bit.name}, got {status:#04x}; "
                "the device or its driver refused; the kernel's log may say why"
            )

    def _control_queue(self) -> int:
        index = cvq_index(self.features, self.config.max_virtqueue_pairs)
        queues = self._node.queues()
        if queues is not None and index >= queues:
            raise DeviceRefused(
                f"expected virtqueue {index} to be the CVQ, got {queues} virtqueues; its driver "
                "offers more queue pairs than it has"
            )
        return index

    def _lay_out(self, control: int) -> Layout:
        node = self._node
        data = [node.largest_ring(queue) for queue in range(control)]
        return plan_layout(node.iova_range(), node.largest_ring(control), data)

    def _separate(self, control: int) -> int:
        """Gives the CVQ an address space of its own, where it can have one; which it has then."""
        node = self._node
        if BackendFeature.IOTLB_ASID not in node.backend_features() or node.address_spaces() < 2:
            return 0
        group = node.group_of(control)
        if group in {node.group_of(queue) for queue in range(control)}:
            return 0
        node.set_address_space(group, 1)
        return 1

    def _map(self, layout: Layout, control_space: int) -> None:
        address = self._memory.address
        control = layout.control.memory
        self._node.map(control_space, control, address)
        self._node.map(0, layout.data_memory, address + control.size)

    def _set_up_rings(self, control: int, layout: Layout) -> None:
        node = self._node
        for queue, ring in enumerate((*layout.data, layout.control)):
            node.set_ring_size(queue, ring.size)
            node.set_ring_base(queue, 0)
            node.set_ring_addresses(
                queue, descriptors=ring.descriptors, available=ring.available, used=ring.used
            )
        node.set_call(control, self._call)
        node.set_kick(control, self._kick)
        node.enable(control)


def _eventfd(undo: ExitStack) -> int:
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    undo.callback(os.close, fd)
    return fd
