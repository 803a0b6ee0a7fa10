"""A software device with data queues: what a guest sends on a queue pair it receives on that pair.

Its thread (worker.py) serves the data queues in the guest's memory (packets.py), and the CVQ in
memory of its own, as devices do whose CVQ has an address space for itself. What commands do is
net.py's. A guest's ring that makes no sense breaks it: it serves nothing more, says NEEDS_RESET and
notifies.

It offers no offload of sending, so a packet that goes round is never one that a receiver has to
finish. Nor does it offer GUEST_HDRLEN: Linux 6.12 sets it as one more offload among those that the
specification lists (5.1.6.5.6), and with it could not switch receive offloads off.
"""

import mmap
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from vdpad.errors import VdpadError
from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.owned_queue import OwnedQueue
from vdpad.queues.shadowed_device import Vring
from vdpad.queues.software.device import ALL_FEATURES
from vdpad.queues.software.net import NetDevice
from vdpad.queues.software.packets import DataQueue, LoopedPair
from vdpad.queues.software.worker import Interrupt, Worker
from vdpad.virtio.config import (
    MIN_RSS_KEY_SIZE,
    MIN_RSS_TABLE_LENGTH,
    HashType,
    NetConfig,
    TunnelType,
    cvq_index,
    push_config,
)
from vdpad.virtio.device_ring import BadChain, DeviceRing
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.features import FEATURES, Feature, FeatureSet
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.split_ring import Region, RingGeometry, lay_out

T = TypeVar("T")

LOOP_FEATURES: FeatureSet = ALL_FEATURES - {
    Feature.ANY_LAYOUT,
    Feature.CSUM,
    Feature.DEVICE_STATS,
    Feature.GUEST_HDRLEN,
    Feature.HOST_ECN,
    Feature.HOST_TSO4,
    Feature.HOST_TSO6,
    Feature.HOST_UFO,
    Feature.HOST_USO,
    Feature.GUEST_UDP_TUNNEL_GSO,
    Feature.GUEST_UDP_TUNNEL_GSO_CSUM,
    Feature.HOST_UDP_TUNNEL_GSO,
    Feature.HOST_UDP_TUNNEL_GSO_CSUM,
    Feature.NOTIF_CONFIG_DATA,
    Feature.RING_RESET,
    Feature.RSC_EXT,
    Feature.STANDBY,
}
"""What it offers."""

_LINK_UP = 1  # virtio 1.4, 5.1.4: VIRTIO_NET_S_LINK_UP

LOOP_CONFIG = NetConfig(
    mac=bytes.fromhex("525400000001"),
    status=_LINK_UP,
    max_virtqueue_pairs=4,
    mtu=1500,
    rss_max_key_size=MIN_RSS_KEY_SIZE,
    rss_max_indirection_table_length=MIN_RSS_TABLE_LENGTH,
    supported_hash_types=frozenset(HashType),
    supported_tunnel_types=frozenset(TunnelType),
)
"""What its config space says."""

_LARGEST_RING = 1024

# The CVQ's ring and buffers, which take the largest RSS command (131 KiB) many times over.
_CONTROL_RING = 64
_CONTROL_MEMORY = Region(mmap.PAGESIZE, 1 << 20)


class LoopRefused(VdpadError):
    """The device cannot do what it is asked for."""


@dataclass(slots=True, eq=False)
class _Up:
    """What there is between `negotiate` and `reset`."""

    features: FeatureSet
    control_index: int
    net: NetDevice
    queues: dict[int, DataQueue]
    pairs: list[LoopedPair]
    control: DeviceRing | None = None
    driver_ring: DriverRing | None = None
    suspended: bool = False
    broken: bool = False


class LoopDevice:
    """Implements ShadowedDevice. The guest's memory must be mapped before its rings are set."""

    def __init__(self, net: NetConfig = LOOP_CONFIG, features: FeatureSet = LOOP_FEATURES) -> None:
        """A device that was reset; its thread runs until `close`."""
        self.name = "loop"
        self.offered = features
        self.shares_address_space = False
        self.control_geometry: RingGeometry = lay_out(_CONTROL_RING, _CONTROL_MEMORY)
        self._net = net
        self._memory = GuestMemory()
        self._control_memory = GuestMemory()
        self._map = mmap.mmap(-1, _CONTROL_MEMORY.size)
        self._control_view = memoryview(self._map)
        self._control_memory.add(_CONTROL_MEMORY, self._control_view)
        self._kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._call = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._config_interrupt: Interrupt | None = None
        self._was_up: _Up | None = None
        self._worker = Worker(self._serve, self._unblock, f"{self.name}-device")

    # --- at any time ---

    def config(self) -> bytes:
        """The whole config space."""
        return push_config(self._net)

    def set_config_call(self, eventfd: int | None) -> None:
        """The eventfd that tells of NEEDS_RESET, which is copied, or none."""
        self._do(lambda: self._set_config_call(eventfd))

    def status(self) -> DeviceStatus:
        """NEEDS_RESET where a guest has broken it; of the others those of a device that is up."""
        up = self._was_up
        if up is None:
            return DeviceStatus(0)
        status = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK
        if up.control is not None:
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
            raise LoopRefused(
                "expected CTRL_VQ and features that are offered, got beside them "
                f"{FEATURES.sentence(stray)}"
            )
        net = NetDevice(features, self._net)
        index = cvq_index(features, self._net.max_virtqueue_pairs)
        self._was_up = _Up(features, index, net, {}, [])

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
        """How many went round since it came up."""
        return sum(pair.packets for pair in self._up.pairs)

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
        ring = self._up.driver_ring
        if ring is None:
            raise LoopRefused("expected a device that was started, it was not")
        return OwnedQueue(ring, self._kick, self._call, worth_polling=False)

    def enable(self, queue: int) -> None:
        """Serves a data queue from now on."""
        self._do(lambda: self._enable(queue))

    def set_call(self, queue: int, eventfd: int | None) -> None:
        """Another eventfd for a data queue's interrupts, which is copied, or none."""
        self._do(lambda: self._queue(queue).set_call(eventfd))

    # --- the end ---

    def suspend(self) -> None:
        """Serves nothing more."""
        self._do(self._suspend)

    def base(self, queue: int) -> int:
        """Where a data queue stands."""
        return self._do(lambda: self._queue(queue).ring.next_used)

    def reset(self) -> None:
        """Forgets all but the memory."""
        self._do(self._reset)

    def close(self) -> None:
        """Ends the thread and lets go of all memory and descriptors."""
        self._do(self._reset)
        self._worker.end()
        self._memory.release()
        self._control_memory.release()
        self._map.close()
        os.close(self._kick)
        os.close(self._call)

    # --- for callers' threads ---

    @property
    def _up(self) -> _Up:
        if self._was_up is None:
            raise LoopRefused("expected a device that is up, it was not negotiated with")
        return self._was_up

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
            raise LoopRefused(f"queue {index}: expected one whose ring was set, it was not")
        return queue

    def _set_config_call(self, eventfd: int | None) -> None:
        before = self._config_interrupt
        self._config_interrupt = None if eventfd is None else Interrupt(eventfd)
        if before is not None:
            before.close()

    def _set_vring(self, index: int, vring: Vring) -> None:
        up = self._up
        if not 0 <= index < up.control_index or index in up.queues:
            raise LoopRefused(
                f"expected a data queue below {up.control_index} without a ring, got {index}"
            )
        up.queues[index] = DataQueue(self._memory, vring, up.features, transmits=bool(index % 2))

    def _start(self) -> None:
        up = self._up
        self._control_view[:] = bytes(len(self._control_view))
        event_idx = Feature.RING_EVENT_IDX in up.features
        with ExitStack() as undo:
            up.control = DeviceRing(
                self._control_memory,
                self.control_geometry.addresses,
                next_available=0,
                event_idx=event_idx,
                indirect=Feature.RING_INDIRECT_DESC in up.features,
            )
            undo.callback(up.control.release)
            up.driver_ring = DriverRing(
                self._control_view, self.control_geometry, event_idx=event_idx
            )
            up.control.idle()
            self._worker.watch(self._kick)
            undo.pop_all()
        for receive in range(0, up.control_index, 2):
            if {receive, receive + 1} <= up.queues.keys():
                pair = LoopedPair(up.queues[receive], up.queues[receive + 1], up.features)
                up.pairs.append(pair)

    def _enable(self, index: int) -> None:
        queue = self._queue(index)
        if not queue.enabled:
            self._worker.watch(queue.doorbell)
            queue.enabled = True

    def _suspend(self) -> None:
        self._up.suspended = True

    def _reset(self) -> None:
        self._set_config_call(None)
        up, self._was_up = self._was_up, None
        if up is None:
            return
        for queue in up.queues.values():
            if queue.enabled:
                self._worker.unwatch(queue.doorbell)
            queue.close()
        if up.control is not None and up.driver_ring is not None:
            self._worker.unwatch(self._kick)
            up.control.release()
            up.driver_ring.release()

    # --- serving ---

    def _serve(self) -> bool:
        up = self._was_up
        if up is None or up.control is None or up.suspended or up.broken:
            return False
        try:
            more = self._serve_commands(up.control, up.net)
            for pair in up.pairs:
                more |= pair.serve()
        except BadChain:
            up.broken = True
            if self._config_interrupt is not None:
                self._config_interrupt()
            return False
        return more

    def _serve_commands(self, ring: DeviceRing, net: NetDevice) -> bool:
        chains = ring.take()
        for chain in chains:
            ring.answer(chain, bytes((net.command(chain.readable),)))
            ring.put(chain.head, 1)
        if chains and ring.wants_interrupt():
            os.eventfd_write(self._call, 1)
        return bool(chains) or not ring.idle()
