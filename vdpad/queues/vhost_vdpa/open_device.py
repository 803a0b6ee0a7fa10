"""A vhost-vdpa device that its caller drives in steps, from open to close and as often as it likes.

lifecycle.py has the phases. Opening a device resets it; from there:

- Memory may be mapped and unmapped at any time (`iotlb`), and stays through a reset. What the
  device offers, its config space and its status may be asked at any time too.
- `negotiate` says which queue is the CVQ. Only then the CVQ may be given an address space of its
  own, rings be set, and those queues be enabled that shall work from the start (`vrings`). A reset
  undoes all of that.
- `start` sets DRIVER_OK. A driver takes rings at the latest then, some with a queue's enabling.
  Other queues may be enabled later: the CVQ first, then a state's replay, then the data queues.
- Bases may be read and rings be set anew while the device is suspended.

What orders it: the config space may only be relied on once features are set, and says which queue
is the CVQ; a group gets its address space before its rings. Many steps the kernel takes at the
wrong time too, and does nothing or something else without a word: those raise OutOfOrder here, and
do not reach it.

Source: virtio 1.4, 3.1.1 "Driver Requirements: Device Initialization"; Linux 6.12,
drivers/vhost/vdpa.c.
"""

from typing import Self

from vdpad.queues.vhost_vdpa.errors import (
    DeviceRefused,
    NoNetworkDevice,
    NoSuchNode,
    Unsupported,
)
from vdpad.queues.vhost_vdpa.iotlb import Iotlb
from vdpad.queues.vhost_vdpa.lifecycle import UP, DevicePhase, Lifecycle, Step
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.queues.vhost_vdpa.uapi import BackendFeature
from vdpad.queues.vhost_vdpa.vrings import Vrings, or_unbind
from vdpad.virtio.config import cvq_index, pull_config
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.features import FEATURES, Feature, FeatureSet
from vdpad.virtio.rings import Region

_NET = 1  # virtio 1.4, 5 "Device Types"


class OpenDevice:
    """The device. Any step may sleep for as long as its driver does; not for two threads at once.

    Each raises VhostVdpaError where the kernel refuses it, and OutOfOrder where it would not.
    """

    def __init__(self, node: Node) -> None:
        """Takes over a node that was just opened.

        Args:
            node: closed by `close`, and where this raises.

        Raises:
            NoNetworkDevice: it is no network device.
            NoSuchNode: it is no vhost-vdpa device's.
        """
        self._node = node
        self._lifecycle = Lifecycle(node)
        self._control_queue = 0
        self.vrings = Vrings(node, self._lifecycle)
        """Its queues."""
        try:
            _expect_network(node)
            node.set_owner()
            self.backend_features: BackendFeature = node.get_backend_features()
            """What the kernel and the driver can do; all of it was accepted."""
            node.set_backend_features(self.backend_features)
            self.offered: FeatureSet = node.get_features()
            """Features that the device offers."""
            self.address_spaces: int = _count_address_spaces(node, self.backend_features)
            """How many there are: 1 where they cannot be told apart."""
            self.iova_range: Region = node.get_iova_range()
            """The device addresses that memory may be mapped at."""
            self.iotlb = Iotlb(
                node,
                reachable=self.iova_range,
                address_spaces=self.address_spaces,
                persists=BackendFeature.IOTLB_PERSIST in self.backend_features,
            )
            """The memory that it sees."""
        except BaseException:
            node.close()
            raise

    @property
    def phase(self) -> DevicePhase:
        """How far it has been brought."""
        return self._lifecycle.phase

    def fileno(self) -> int:
        """The node's descriptor; it stays the device's."""
        return self._node.fileno()

    def close(self) -> None:
        """Gives the device back; the kernel resets it, once nobody has a copy of the descriptor."""
        self._node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- at any time ---

    def status(self) -> DeviceStatus:
        """What the device says of itself; NEEDS_RESET may come at any time."""
        return self._lifecycle.status()

    def config(self) -> bytes:
        """The whole device config space; before `negotiate` as it is without any feature."""
        return self._node.get_config()

    def set_config(self, offset: int, data: bytes) -> None:
        """Writes into the config space. A device that does not take it says nothing."""
        self._node.set_config(offset, data)

    def set_config_call(self, eventfd: int | None) -> None:
        """The eventfd that tells of changes of the config space and of NEEDS_RESET, or none.

        A driver may forget it at a reset, or never interrupt for it (vdpa_sim), and none says so.
        """
        self._node.set_config_call(or_unbind(eventfd))

    # --- from phase to phase ---

    def negotiate(self, features: FeatureSet) -> None:
        """From a reset to FEATURES_OK.

        Args:
            features: what the device is driven with; VERSION_1 and ACCESS_PLATFORM among them.

        Raises:
            DeviceRefused: the device does not offer these, or refuses them together, or they name a
                CVQ that it does not have.
        """
        stray = features - self.offered
        if stray:
            raise DeviceRefused(
                "expected features that the device offers, got beside them "
                f"{FEATURES.sentence(stray)}; negotiate without"
            )
        with self._lifecycle.taking(Step.NEGOTIATE):
            self._lifecycle.advance(DeviceStatus.ACKNOWLEDGE)
            self._lifecycle.advance(DeviceStatus.DRIVER)
            self._node.set_features(features)
            self._lifecycle.advance(DeviceStatus.FEATURES_OK)
            self._control_queue = self._find_control_queue(features)

    def start(self) -> None:
        """Sets DRIVER_OK: the queues that are enabled work from now on.

        Raises:
            DeviceRefused: the device does not come up.
        """
        with self._lifecycle.taking(Step.START):
            self._lifecycle.advance(DeviceStatus.DRIVER_OK)

    def suspend(self) -> None:
        """Has the device leave all rings as they are; it forgets nothing.

        Raises:
            Unsupported: its driver cannot; the device runs on.
        """
        with self._lifecycle.taking(Step.SUSPEND):
            self._node.suspend()

    def resume(self) -> None:
        """Lets the device go on from where it was suspended.

        Raises:
            Unsupported: its driver cannot; what gets the device going again is a reset.
        """
        with self._lifecycle.taking(Step.RESUME):
            self._node.resume()

    def reset(self) -> None:
        """Back to the beginning, from wherever it is. What was mapped stays mapped.

        Raises:
            DeviceRefused: the device does not come to it.
            VhostVdpaError, MemoryLimit: memory cannot be mapped again (`Iotlb.restore`).
        """
        with self._lifecycle.taking(Step.RESET):
            self.vrings.forget()
            self._lifecycle.clear_status()
            self.iotlb.restore()

    # --- the CVQ ---

    @property
    def control_queue(self) -> int:
        """Which queue is the CVQ, by the features negotiated; the data queues are all before it."""
        self._lifecycle.expect("control_queue", *UP)
        return self._control_queue

    def isolate_control_queue(self) -> int:
        """Gives the CVQ an address space of its own, where it can have one; before its ring is set.

        Returns:
            its space from now on: 0, which is everybody's, where it cannot.
        """
        self._lifecycle.expect("isolate_control_queue", DevicePhase.NEGOTIATED)
        if self.address_spaces < 2:
            return 0
        node, control = self._node, self._control_queue
        group = node.get_vring_group(control)
        if group in {node.get_vring_group(queue) for queue in range(control)}:
            return 0
        node.set_group_asid(group, 1)
        return 1

    def _find_control_queue(self, features: FeatureSet) -> int:
        index = cvq_index(features, pull_config(self.config()).max_virtqueue_pairs)
        try:
            queues = self._node.get_vqs_count()
        except Unsupported:
            return index
        if Feature.CTRL_VQ in features and index >= queues:
            raise DeviceRefused(
                f"expected virtqueue {index} to be the CVQ, got {queues} virtqueues; its driver "
                "offers more queue pairs than it has"
            )
        return index


def _expect_network(node: Node) -> None:
    try:
        device_id = node.get_device_id()
    except Unsupported as error:
        # Any kernel with vhost-vdpa has this ioctl.
        raise NoSuchNode(
            f"{node.path}: GET_DEVICE_ID: expected the node of a vhost-vdpa device, got another "
            "kind of file (ENOTTY)"
        ) from error
    if device_id != _NET:
        raise NoNetworkDevice(f"expected a network device (1), got virtio device ID {device_id}")


def _count_address_spaces(node: Node, backend_features: BackendFeature) -> int:
    if BackendFeature.IOTLB_ASID not in backend_features:
        return 1
    try:
        return node.get_as_num()
    except Unsupported:
        return 1
