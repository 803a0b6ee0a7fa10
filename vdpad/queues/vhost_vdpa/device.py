"""A vhost-vdpa device of ours: brought up to DRIVER_OK with its CVQ enabled, and kept.

The steps are open_device.py's, in one way through:

    open → negotiate → the CVQ's address space → memory → rings → CVQ enabled → start

Its rings are packed where the guest's were and the device offers it, else split, since what is made
of the device for a guest is to be like the guest. A device may offer RING_PACKED and come up with
nothing else, as octeon_ep does: it is not told by what it offers, so where the device refuses split
rings it is asked once more, for packed ones.

The data queues have valid empty rings and stay disabled. The device is ours until `close`, which
resets it.
"""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.owned_queue import NotIdle, OwnedQueue
from vdpad.queues.shadowed_device import Vring
from vdpad.queues.vhost_vdpa.errors import DeviceRefused, NoControlQueue, VhostVdpaError
from vdpad.queues.vhost_vdpa.memory import Layout, SharedMemory, plan_layout
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.queues.vhost_vdpa.open_device import OpenDevice
from vdpad.virtio.config import NetConfig, pull_config
from vdpad.virtio.driver_rings import driver_ring
from vdpad.virtio.features import TRANSPORT, Feature, FeatureSet
from vdpad.virtio.layouts import AnyGeometry

# What we drive the device with, whatever the guest had.
_OURS: FeatureSet = frozenset(
    {Feature.VERSION_1, Feature.ACCESS_PLATFORM, Feature.ORDER_PLATFORM, Feature.CTRL_VQ}
)
# Of the ring's own features those that a replay knows; the data queues' rings will be the guest's.
_TAKEN_AS_THE_GUEST_HAD: FeatureSet = frozenset(
    {
        Feature.RING_EVENT_IDX,
        Feature.RING_INDIRECT_DESC,
        Feature.RING_PACKED,
        Feature.IN_ORDER,
        Feature.RING_RESET,
    }
)
# What else a device may demand that has packed rings only (octep_verify_features). What a doorbell
# says with NOTIFICATION_DATA is the kernel's concern, as ours is an eventfd.
_WITH_PACKED_RINGS_ONLY: FeatureSet = frozenset({Feature.RING_PACKED, Feature.NOTIFICATION_DATA})


class DeviceDescriptors(NamedTuple):
    """What a device of ours is made of; copies of them keep it from being reset."""

    node: int
    memory: int
    kick: int
    call: int


def to_negotiate(offered: FeatureSet, guest: FeatureSet) -> FeatureSet:
    """What of the offered features a device is brought up with, for a guest that had these."""
    return offered & ((guest - set(TRANSPORT)) | (guest & _TAKEN_AS_THE_GUEST_HAD) | _OURS)


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
            device = self._device = undo.enter_context(OpenDevice(Node(path)))
            self.offered = device.offered
            """Features that the device offers."""
            if Feature.CTRL_VQ not in self.offered:
                raise NoControlQueue(self.offered)
            self.features = _negotiated(device, guest)
            """Those that were negotiated."""
            self.config = pull_config(device.config())
            layout = self._lay_out()
            self.geometry: AnyGeometry = layout.control
            self._memory = SharedMemory(layout.size)
            undo.callback(self._memory.close)
            self._map(layout, device.isolate_control_queue())
            self._kick = _eventfd(undo)
            self._call = _eventfd(undo)
            self._set_vrings(layout)
            device.vrings.enable(device.control_queue)
            device.start()
            self._ring = driver_ring(
                self.geometry,
                self.geometry.views(self._memory.view),
                event_idx=self.event_idx,
                in_order=Feature.IN_ORDER in self.features,
            )
            undo.pop_all()

    @property
    def event_idx(self) -> bool:
        """Whether RING_EVENT_IDX was negotiated."""
        return Feature.RING_EVENT_IDX in self.features

    @property
    def is_unused(self) -> bool:
        """Whether nothing was made available on its CVQ since it came up."""
        return self._ring.is_fresh

    def queue(self) -> ControlQueue:
        """The CVQ, for one user at a time.

        Raises:
            DeviceRefused: the device still has chains of an earlier replay.
        """
        try:
            return OwnedQueue(self._ring, self._kick, self._call)
        except NotIdle as error:
            raise DeviceRefused(f"{error}: release it") from error

    def config_now(self) -> NetConfig:
        """Its config space as it is by now; `config` is as it was when the device came up."""
        return pull_config(self._device.config())

    def descriptors(self) -> DeviceDescriptors:
        """What it is made of; all stay the device's."""
        return DeviceDescriptors(self._device.fileno(), self._memory.fd, self._kick, self._call)

    def reset(self) -> None:
        """Resets the device, whoever else has copies of its node; only `close` may follow."""
        self._device.reset()

    def close(self) -> None:
        """Gives the device back; the kernel resets it. May sleep for as long as its driver does."""
        # The device first: until it is reset the memory is its own.
        self._device.close()
        self._ring.release()
        self._memory.close()
        os.close(self._kick)
        os.close(self._call)

    # --- the steps ---

    def _lay_out(self) -> Layout:
        control, vrings = self._device.control_queue, self._device.vrings
        data = [vrings.largest(queue) for queue in range(control)]
        packed = Feature.RING_PACKED in self.features
        return plan_layout(self._device.iova_range, vrings.largest(control), data, packed=packed)

    def _map(self, layout: Layout, control_space: int) -> None:
        address = self._memory.address
        control = layout.control.memory
        self._device.iotlb.map(control_space, control, address)
        self._device.iotlb.map(0, layout.data_memory, address + control.size)

    def _set_vrings(self, layout: Layout) -> None:
        vrings = self._device.vrings
        for queue, ring in enumerate(layout.data):
            vrings.set(queue, Vring(ring.addresses, ring.addresses.FRESH_BASE))
        control = layout.control.addresses
        vring = Vring(control, control.FRESH_BASE, self._kick, self._call)
        vrings.set(self._device.control_queue, vring)


def _negotiated(device: OpenDevice, guest: FeatureSet) -> FeatureSet:
    features = to_negotiate(device.offered, guest)
    try:
        device.negotiate(features)
    except VhostVdpaError:
        if Feature.RING_PACKED in features or Feature.RING_PACKED not in device.offered:
            raise
        device.reset()
        features |= device.offered & _WITH_PACKED_RINGS_ONLY
        device.negotiate(features)
    return features


def _eventfd(undo: ExitStack) -> int:
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    undo.callback(os.close, fd)
    return fd
