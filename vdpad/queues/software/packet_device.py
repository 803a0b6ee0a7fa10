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
from dataclasses import replace
from typing import TypeVar

from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.shadowed_device import Vring
from vdpad.queues.software.control_ring import ControlRing
from vdpad.queues.software.net import NetDevice
from vdpad.queues.software.packet_queues import PacketDeviceRefused, PacketQueues
from vdpad.queues.software.traffic import BeginTraffic, Traffic
from vdpad.queues.software.worker import Interrupt, Worker
from vdpad.virtio.config import NetConfig, cvq_index, push_config
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.features import FEATURES, Feature, FeatureSet
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitGeometry

T = TypeVar("T")

_LARGEST_RING = 1024


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
        self._was_up: PacketQueues | None = None
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
        if up is not None and up.has_lost_its_link:
            return push_config(replace(self._net, status=0))
        return push_config(self._net)

    def set_config_call(self, eventfd: int | None) -> None:
        """The eventfd that tells of NEEDS_RESET and of the link, which is copied, or none."""
        self._do(lambda: self._set_config_call(eventfd))

    def status(self) -> DeviceStatus:
        """NEEDS_RESET where a guest has broken it; of the others those of a device that is up."""
        up = self._was_up
        return DeviceStatus(0) if up is None else up.status

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
        self._was_up = PacketQueues(features, index, net, self._worker)

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
        self._do(lambda: self._up.set_vring(queue, vring, self._memory))

    def start(self) -> None:
        """The CVQ works from now on."""
        self._do(self._start)

    # --- while it runs ---

    def control_queue(self) -> ControlQueue:
        """The CVQ."""
        return self._control.queue()

    def enable(self, queue: int) -> None:
        """Serves a data queue from now on."""
        self._do(lambda: self._up.enable(queue))

    def set_call(self, queue: int, eventfd: int | None) -> None:
        """Another eventfd for a data queue's interrupts, which is copied, or none."""
        self._do(lambda: self._up.queue(queue).set_call(eventfd))

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
        self._do(lambda: self._up.suspend())

    def base(self, queue: int) -> int:
        """Where a data queue stands."""
        return self._do(lambda: self._up.queue(queue).ring.next_used)

    def move_vring(self, queue: int, vring: Vring, *, enabled: bool) -> None:
        """Has a data queue go on with a ring that lies elsewhere."""
        self._do(lambda: self._up.move_vring(queue, vring))

    def resume(self) -> None:
        """Serves on."""
        self._do(lambda: self._up.resume())

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
    def _up(self) -> PacketQueues:
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
        if (up := self._was_up) is not None:
            up.unblock()

    # --- steps, on its thread ---

    def _set_config_call(self, eventfd: int | None) -> None:
        before = self._config_interrupt
        self._config_interrupt = None if eventfd is None else Interrupt(eventfd)
        if before is not None:
            before.close()

    def _start(self) -> None:
        traffic = self._up.start(self._control, self._begin_traffic)
        self._dropping = traffic, self._dropping[1]

    def _reset(self) -> None:
        self._set_config_call(None)
        up, self._was_up = self._was_up, None
        if up is None:
            return
        up.end()
        if up.traffic is not None:
            self._dropping = None, self.dropped + up.traffic.held

    def _serve(self) -> bool:
        up = self._was_up
        if up is None:
            return False
        before = up.broken, up.has_lost_its_link
        more = up.serve()
        if before != (up.broken, up.has_lost_its_link):
            self._tell_of_config()
        return more

    def _tell_of_config(self) -> None:
        if self._config_interrupt is not None:
            self._config_interrupt()
