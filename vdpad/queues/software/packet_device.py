"""A software device with data queues; what becomes of its packets is its traffic's to say.

Its thread (worker.py) serves the data queues in the guest's memory (data_queue.py), by what the
device is made with: a loop (loop_device.py), a TAP interface (tap_device.py). It serves the CVQ in
memory of its own (control_ring.py); what commands do is net.py's. A guest's ring that makes no
sense breaks it: it serves nothing more, says NEEDS_RESET and notifies.

It offers no offload of sending, so each packet that a guest sends is whole, and what its header
says can be left aside: a packet goes on without it, and comes with one that says nothing.

What the guest sets of filters, queue pairs, hashes, offloads and coalescing is kept, can be read,
and changes nothing about which packets pass.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TypeVar

from vdpad.errors import VdpadError
from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.shadowed_device import Vring
from vdpad.queues.software.control_ring import ControlRing
from vdpad.queues.software.data_queue import DataQueue
from vdpad.queues.software.net import NetDevice
from vdpad.queues.software.traffic import BeginTraffic, Traffic
from vdpad.queues.software.worker import Interrupt, Worker
from vdpad.virtio.chains import BadChain
from vdpad.virtio.config import NetConfig, cvq_index, push_config
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.features import FEATURES, Feature, FeatureSet
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitGeometry

T = TypeVar("T")

_LARGEST_RING = 1024


class PacketDeviceRefused(VdpadError):
    """The device cannot do what it is asked for."""


@dataclass(slots=True, eq=False)
class _Up:
    """What there is between `negotiate` and `reset`."""

    features: FeatureSet
    control_index: int
    net: NetDevice
    queues: dict[int, DataQueue] = field(default_factory=dict)
    traffic: Traffic | None = None
    """From `start` on."""
    suspended: bool = False
    broken: bool = False


class PacketDevice:
    """Implements ShadowedDevice. The guest's memory must be mapped before its rings are set."""

    can_announce = False
    """But for one with a network."""

    def __init__(
        self, name: str, net: NetConfig, features: FeatureSet, begin_traffic: BeginTraffic
    ) -> None:
        """A device that was reset; its thread runs until `close`.

        Raises:
            NoThread: there is none.
            OSError: the system gives no descriptors, or no memory.
        """
        self.name = name
        self.offered = features
        self.shares_address_space = False
        self._net = net
        self._begin_traffic = begin_traffic
        self._memory = GuestMemory()
        self._control = ControlRing()
        self.control_geometry: SplitGeometry = self._control.geometry
        self._config_interrupt: Interrupt | None = None
        self._was_up: _Up | None = None
        self._dropping: tuple[Traffic | None, int] = None, 0
        """The packets of this start, and how many came to nothing in those before."""
        with ExitStack() as undo:
            undo.callback(self._control.close)
            self._worker = Worker(self._serve, self._unblock, f"{self.name}-device")
            undo.pop_all()

    # --- at any time ---

    def config(self) -> bytes:
        """The whole config space."""
        up = self._was_up
        if up is not None and up.traffic is not None and not up.traffic.link_is_up:
            return push_config(replace(self._net, status=0))
        return push_config(self._net)

    def set_config_call(self, eventfd: int | None) -> None:
        """The eventfd that tells of NEEDS_RESET and of the link, which is copied, or none."""
        self._do(lambda: self._set_config_call(eventfd))

    def status(self) -> DeviceStatus:
        """NEEDS_RESET where a guest has broken it; of the others those of a device that is up."""
        up = self._was_up
        if up is None:
            return DeviceStatus(0)
        status = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK
        if up.traffic is not None:
            status |= DeviceStatus.DRIVER_OK
        return status | DeviceStatus.NEEDS_RESET if up.broken else status

    def map(self, region: Region, view: memoryview) -> None:
        """Lets the device read and write this memory."""
        self._do(lambda: self._memory.add(region, view[:]))

    def unmap(self, region: Region) -> None:
        """Takes a region from the device."""
        self._do(lambda: self._memory.remove(region))

    # --- bring-up ---

    def negotiate(self, features: FeatureSet) -> None:
        """From a reset to features that are agreed upon."""
        stray = features - self.offered
        if stray or Feature.CTRL_VQ not in features:
            raise PacketDeviceRefused(
                "expected CTRL_VQ and features that are offered, got beside them "
                f"{FEATURES.sentence(stray)}"
            )
        net = NetDevice(features, self._net)
        index = cvq_index(features, self._net.max_virtqueue_pairs)
        self._was_up = _Up(features, index, net)

    @property
    def control_queue_index(self) -> int:
        """Which queue is the CVQ."""
        return self._up.control_index

    @property
    def net(self) -> NetDevice:
        """What the commands have set; none where the device is not up."""
        return self._up.net

    @property
    def packets(self) -> int:
        """How many the guest has received since the start."""
        return self._traffic.packets

    @property
    def dropped(self) -> int:
        """How many came to nothing since it was opened."""
        traffic, before = self._dropping
        return before if traffic is None else before + traffic.dropped

    def largest_ring(self, queue: int) -> int:
        """The same for all data queues."""
        return _LARGEST_RING

    def set_vring(self, queue: int, vring: Vring) -> None:
        """Places a data queue's ring."""
        self._do(lambda: self._set_vring(queue, vring))

    def start(self) -> None:
        """The CVQ works from now on."""
        self._do(self._start)

    # --- while it runs ---

    def control_queue(self) -> ControlQueue:
        """The CVQ."""
        return self._control.queue()

    def enable(self, queue: int) -> None:
        """Serves a data queue from now on."""
        self._do(lambda: self._enable(queue))

    def set_call(self, queue: int, eventfd: int | None) -> None:
        """Another eventfd for a data queue's interrupts, which is copied, or none."""
        self._do(lambda: self._queue(queue).set_call(eventfd))

    def announce(self, mac: bytes) -> None:
        """Nobody would hear it."""
        raise PacketDeviceRefused(
            f"{self.name}: expected a device with a network, it has none; use tap: and an interface"
        )

    # --- suspended ---

    @property
    def can_suspend(self) -> bool:
        """It can."""
        return True

    @property
    def can_resume(self) -> bool:
        """It can."""
        return True

    def spare_addresses(self, size: int) -> Region:
        """The last there are."""
        return Region((1 << 64) - size, size)

    def suspend(self) -> None:
        """Serves nothing more."""
        self._do(self._suspend)

    def base(self, queue: int) -> int:
        """Where a data queue stands."""
        return self._do(lambda: self._queue(queue).ring.next_used)

    def move_vring(self, queue: int, vring: Vring, *, enabled: bool) -> None:
        """Has a data queue go on with a ring that lies elsewhere."""
        self._do(lambda: self._move_vring(queue, vring))

    def resume(self) -> None:
        """Serves on."""
        self._do(self._resume)

    # --- the end ---

    def reset(self) -> None:
        """Forgets all but the memory."""
        self._do(self._reset)

    def close(self) -> None:
        """Ends the thread and lets go of all memory and descriptors."""
        self._do(self._reset)
        self._worker.end()
        self._memory.release()
        self._control.close()

    # --- for callers' threads ---

    @property
    def _up(self) -> _Up:
        if self._was_up is None:
            raise PacketDeviceRefused("expected a device that is up, it was not negotiated with")
        return self._was_up

    @property
    def _traffic(self) -> Traffic:
        traffic = self._up.traffic
        if traffic is None:
            raise PacketDeviceRefused("expected a device that was started, it was not")
        return traffic

    def _do(self, step: Callable[[], T]) -> T:
        return self._worker.do(step)

    def _unblock(self) -> None:
        up = self._was_up
        for queue in list(up.queues.values()) if up is not None else ():
            queue.unblock()

    # --- steps, on its thread ---

    def _queue(self, index: int) -> DataQueue:
        queue = self._up.queues.get(index)
        if queue is None:
            raise PacketDeviceRefused(f"queue {index}: expected one whose ring was set, it was not")
        return queue

    def _set_config_call(self, eventfd: int | None) -> None:
        before = self._config_interrupt
        self._config_interrupt = None if eventfd is None else Interrupt(eventfd)
        if before is not None:
            before.close()

    def _set_vring(self, index: int, vring: Vring) -> None:
        up = self._up
        if not 0 <= index < up.control_index or index in up.queues:
            raise PacketDeviceRefused(
                f"expected a data queue below {up.control_index} without a ring, got {index}"
            )
        up.queues[index] = DataQueue(self._memory, vring, up.features, transmits=bool(index % 2))

    def _start(self) -> None:
        up = self._up
        self._control.begin(up.features)
        self._worker.watch(self._control.doorbell)
        up.traffic = self._begin_traffic(up.queues, up.features, self._worker)
        self._dropping = up.traffic, self._dropping[1]

    def _enable(self, index: int) -> None:
        queue = self._queue(index)
        if not queue.enabled:
            self._worker.watch(queue.doorbell)
            queue.enabled = True

    def _suspend(self) -> None:
        self._end_traffic(self._up)
        self._up.suspended = True

    def _move_vring(self, index: int, vring: Vring) -> None:
        up, queue = self._up, self._queue(index)
        if not up.suspended:
            raise PacketDeviceRefused(f"queue {index}: expected a suspended device, it runs")
        if queue.enabled:
            self._worker.unwatch(queue.doorbell)
        try:
            queue.place(vring)
        finally:
            # Also where it stays as it was: what is enabled is watched.
            if queue.enabled:
                self._worker.watch(queue.doorbell)

    def _resume(self) -> None:
        if not self._up.suspended:
            raise PacketDeviceRefused("expected a suspended device, it runs")
        self._up.suspended = False

    def _reset(self) -> None:
        self._set_config_call(None)
        up, self._was_up = self._was_up, None
        if up is None:
            return
        self._end_traffic(up)
        if up.traffic is not None:
            self._dropping = None, self.dropped + up.traffic.held
        for queue in up.queues.values():
            if queue.enabled:
                self._worker.unwatch(queue.doorbell)
            queue.close()
        if self._control.is_up:
            self._worker.unwatch(self._control.doorbell)
            self._control.end()

    def _end_traffic(self, up: _Up) -> None:
        if up.traffic is not None:
            up.traffic.end()

    # --- serving ---

    def _serve(self) -> bool:
        up = self._was_up
        if up is None or up.traffic is None or up.suspended or up.broken:
            return False
        had_link = up.traffic.link_is_up
        try:
            more = self._control.serve(up.net)
            more |= up.traffic.serve()
        except BadChain:
            up.broken = True
            up.traffic.end()
            self._tell_of_config()
            return False
        if had_link and not up.traffic.link_is_up:
            self._tell_of_config()
        return more

    def _tell_of_config(self) -> None:
        if self._config_interrupt is not None:
            self._config_interrupt()
