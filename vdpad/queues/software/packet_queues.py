"""What a software device with data queues has between its features and its reset.

Its steps are taken on the device's thread (worker.py), but for what says how it is.
"""

from vdpad.errors import VdpadError
from vdpad.queues.shadowed_device import Vring
from vdpad.queues.software.control_ring import ControlRing
from vdpad.queues.software.data_queue import DataQueue
from vdpad.queues.software.net import NetDevice
from vdpad.queues.software.traffic import BeginTraffic, Traffic
from vdpad.queues.software.worker import Worker
from vdpad.virtio.chains import BadChain
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.features import FeatureSet
from vdpad.virtio.guest_memory import GuestMemory


class PacketDeviceRefused(VdpadError):
    """The device cannot do what it is asked for."""


class PacketQueues:
    """The queues of one start, of which the CVQ is the last, and their packets."""

    def __init__(
        self, features: FeatureSet, control_index: int, net: NetDevice, worker: Worker
    ) -> None:
        """No ring is set.

        Args:
            features: those agreed upon.
            control_index: which queue is the CVQ.
            net: what its commands set.
            worker: the device's.
        """
        self.features = features
        self.control_index = control_index
        self.net = net
        self.queues: dict[int, DataQueue] = {}
        self.traffic: Traffic | None = None
        """From `start` on."""
        self._worker = worker
        self._control: ControlRing | None = None
        self.broken = False
        """By its guest, so that it serves no more."""
        self._suspended = False

    # --- on any thread ---

    @property
    def status(self) -> DeviceStatus:
        """NEEDS_RESET where a guest has broken it."""
        status = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK
        if self.traffic is not None:
            status |= DeviceStatus.DRIVER_OK
        return status | DeviceStatus.NEEDS_RESET if self.broken else status

    @property
    def has_lost_its_link(self) -> bool:
        """Whether its packets have nobody at the other end any more."""
        return self.traffic is not None and not self.traffic.link_is_up

    def unblock(self) -> None:
        """Ends notifications that sleep."""
        for queue in list(self.queues.values()):
            queue.unblock()

    # --- steps ---

    def queue(self, index: int) -> DataQueue:
        """One whose ring was set.

        Raises:
            PacketDeviceRefused: it was not.
        """
        queue = self.queues.get(index)
        if queue is None:
            raise PacketDeviceRefused(f"queue {index}: expected one whose ring was set, it was not")
        return queue

    def set_vring(self, index: int, vring: Vring, memory: GuestMemory) -> None:
        """Places a data queue's ring in the guest's memory."""
        if not 0 <= index < self.control_index or index in self.queues:
            raise PacketDeviceRefused(
                f"expected a data queue below {self.control_index} without a ring, got {index}"
            )
        self.queues[index] = DataQueue(memory, vring, self.features, transmits=bool(index % 2))

    def start(self, control: ControlRing, begin_traffic: BeginTraffic) -> Traffic:
        """Serves the CVQ from now on; its packets may go once queues are enabled."""
        control.begin(self.features)
        self._control = control
        self._worker.watch(control.doorbell)
        self.traffic = begin_traffic(self.queues, self.features, self._worker)
        return self.traffic

    def enable(self, index: int) -> None:
        """Serves a data queue from now on."""
        queue = self.queue(index)
        if not queue.enabled:
            self._worker.watch(queue.doorbell)
            queue.enabled = True

    def suspend(self) -> None:
        """Serves nothing more."""
        self._end_traffic()
        self._suspended = True

    def move_vring(self, index: int, vring: Vring) -> None:
        """Has a data queue go on with a ring that lies elsewhere."""
        queue = self.queue(index)
        if not self._suspended:
            raise PacketDeviceRefused(f"queue {index}: expected a suspended device, it runs")
        if queue.enabled:
            self._worker.unwatch(queue.doorbell)
        try:
            queue.place(vring)
        finally:
            # Also where it stays as it was: what is enabled is watched.
            if queue.enabled:
                self._worker.watch(queue.doorbell)

    def resume(self) -> None:
        """Serves on."""
        if not self._suspended:
            raise PacketDeviceRefused("expected a suspended device, it runs")
        self._suspended = False

    def end(self) -> None:
        """Lets go of all rings."""
        self._end_traffic()
        for queue in self.queues.values():
            if queue.enabled:
                self._worker.unwatch(queue.doorbell)
            queue.close()
        control, self._control = self._control, None
        if control is not None:
            self._worker.unwatch(control.doorbell)
            control.end()

    def _end_traffic(self) -> None:
        if self.traffic is not None:
            self.traffic.end()

    # --- serving ---

    def serve(self) -> bool:
        """One round; whether there is more to do at once."""
        control, traffic = self._control, self.traffic
        if control is None or traffic is None or self._suspended or self.broken:
            return False
        try:
            more = control.serve(self.net)
            return traffic.serve() or more
        except BadChain:
            self.broken = True
            traffic.end()
            return False
