"""The software device: a task that serves a CVQ in memory which it lends as a VMM lends its own.

It owns a sealed memfd with the ring, a kick and a call eventfd, and hands out duplicates of them;
whoever borrows sees no difference to a ring that a VMM lends. It is served by a task of the event
loop it was started in: waiting for a kick, then serving until the ring is empty.

What a command does is net.py's; this file takes chains, has them carried out in their order, and
returns them in the order and with the faults that its misbehaviour says. A device that met what it
cannot serve, or was told to fall silent, takes nothing more until `reset`, which is what a VMM does
after a failure: the ring's memory is zero again, and a command that is being taken its time over is
forgotten.
"""

import asyncio
import fcntl
import mmap
import os
import random
import struct
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from vdpad.queues.eventfds import EventfdSender, Waiter
from vdpad.queues.lent_indices import Indices
from vdpad.queues.lent_queue import LentDescriptors
from vdpad.queues.software.misbehaviour import Fault, Misbehaviour, Order
from vdpad.queues.software.net import NetDevice
from vdpad.virtio.chains import BadChain
from vdpad.virtio.commands import ACK_ERR
from vdpad.virtio.config import (
    MIN_RSS_KEY_SIZE,
    MIN_RSS_TABLE_LENGTH,
    HashType,
    NetConfig,
    TunnelType,
)
from vdpad.virtio.device_ring import DeviceRing
from vdpad.virtio.device_side import Chain
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.layouts import AnyGeometry, lay_out_own, own_ring_bytes
from vdpad.virtio.packed_device_ring import PackedDeviceRing
from vdpad.virtio.packed_ring import PackedGeometry, wrap_at
from vdpad.virtio.rings import Region, align_up
from vdpad.virtio.split_ring import RING_HEADER, SplitGeometry

# Where a guest's memory might begin for a device; not zero, so that offset and address differ.
_IOVA = 0x100000
_BUFFERS_PER_RING_ENTRY = 512
_PAGE = 4096
# A kick that never comes is looked for this often, in seconds; it costs nothing.
_IDLE = 60.0

ALL_FEATURES: FeatureSet = frozenset(Feature) - {
    Feature.GSO,
    Feature.DEVICE_STATS,
    Feature.RSS_CONTEXT,
    Feature.RING_PACKED,
    Feature.NOTIFICATION_DATA,
    Feature.NOTIFY_ON_EMPTY,
    Feature.IN_ORDER,
    Feature.SR_IOV,
    Feature.ADMIN_VQ,
}
"""What the device serves where nothing else is wished. Beside these it can serve RING_PACKED and
IN_ORDER."""


@dataclass(frozen=True, slots=True)
class SoftwareConfig:
    """What a software device is like."""

    features: FeatureSet = ALL_FEATURES
    net: NetConfig = field(
        default_factory=lambda: NetConfig(
            mac=bytes.fromhex("525400000001"),
            max_virtqueue_pairs=8,
            rss_max_key_size=MIN_RSS_KEY_SIZE,
            rss_max_indirection_table_length=MIN_RSS_TABLE_LENGTH,
            supported_hash_types=frozenset(HashType),
            supported_tunnel_types=frozenset(TunnelType),
        )
    )
    ring_size: int = 64
    start_index: int = 0
    """Where both ring indices begin: 0 … 65535; of a packed ring the position (packed_ring.py)."""
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)


class CarriedOut(NamedTuple):
    """A command that was carried out, and is to be returned."""

    chain: Chain
    fault: Fault | None
    written: int = 1
    """Bytes of its answer."""


class SoftwareDevice:
    """A device, brought up and lending its CVQ. Start it inside a running loop."""

    def __init__(self, config: SoftwareConfig) -> None:
        self.config = config
        self.net = NetDevice(config.features, config.net)
        self.geometry = _geometry(config)
        self.busy_ns = 0
        """The time that serving took, all told."""
        self.doorbells_heard = 0
        self._memory = _sealed_memfd(self.geometry.memory.size)
        self._map = mmap.mmap(self._memory, self.geometry.memory.size)
        self._view = memoryview(self._map)
        self._guest_memory = GuestMemory()
        self._guest_memory.add(self.geometry.memory, self._view)
        self._kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._call = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._notify = EventfdSender(self._call)
        self._random = random.Random(0)  # noqa: S311
        # Who kicks is its borrower, whom it is there for.
        self._kicked = Waiter(self._kick, paced=False)
        self._task: asyncio.Task[None] | None = None
        self._ring = self._ring_made()
        self._set_up(config.misbehaviour)

    def start(self) -> None:
        """Begins to serve."""
        self._task = asyncio.get_running_loop().create_task(self._serve(), name="software-device")

    async def stop(self) -> None:
        """Ends the task and lets go of memory and descriptors. On cancellation both are done."""
        task, self._task = self._task, None
        try:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        finally:
            self._kicked.close()
            self._ring.release()
            self._guest_memory.release()
            self._map.close()
            for fd in (self._memory, self._kick, self._call):
                os.close(fd)

    def reset(self, misbehaviour: Misbehaviour | None = None) -> None:
        """Resets settings and ring, as a VMM does after a failure.

        Args:
            misbehaviour: from now on; None keeps what was configured.
        """
        self._was_reset.set()
        self.net.reset()
        self._view[:] = bytes(len(self._view))
        self._set_up(self.config.misbehaviour if misbehaviour is None else misbehaviour)

    @property
    def lent_at(self) -> Indices:
        """What its lender says of the ring: of a packed one, where it stands."""
        if not isinstance(self._ring, PackedDeviceRing):
            return Indices()
        size, available, used = self.geometry.size, self._ring.next_available, self._ring.next_used
        wraps = wrap_at(available, size), wrap_at(used, size)
        return Indices(available % size, used % size, *wraps)

    def lend(self) -> LentDescriptors:
        """Duplicates of the memory, kick and call descriptors; the borrower closes them."""
        return LentDescriptors(self._memory, self._kick, self._call).duplicate()

    def _set_up(self, misbehaviour: Misbehaviour) -> None:
        self._misbehaviour = misbehaviour
        self._was_reset = asyncio.Event()
        self._begin_at(self.config.start_index)
        self._taken = 0
        self._last_head = 1  # before any is returned, one that heads no chain
        self._silent = False

    def _ring_made(self) -> DeviceRing | PackedDeviceRing:
        event_idx = Feature.RING_EVENT_IDX in self.config.features
        indirect = Feature.RING_INDIRECT_DESC in self.config.features
        if isinstance(self.geometry, PackedGeometry):
            return PackedDeviceRing(
                self._guest_memory,
                self.geometry.addresses,
                position=0,
                event_idx=event_idx,
                indirect=indirect,
            )
        return DeviceRing(
            self._guest_memory,
            self.geometry.addresses,
            next_available=0,
            event_idx=event_idx,
            indirect=indirect,
        )

    def _begin_at(self, index: int) -> None:
        """The ring as it is lent: idle, and where a driver before would have left it."""
        if isinstance(self.geometry, SplitGeometry):
            for part in (self.geometry.available, self.geometry.used):
                at = part - self.geometry.memory.iova
                self._view[at : at + RING_HEADER] = struct.pack("<HH", 0, index)
        self._ring.begin_anew(index)
        self._ring.idle()

    async def _serve(self) -> None:
        while True:
            await self._kicked.wait(_IDLE)
            self.doorbells_heard += 1
            while not self._silent:
                started = time.perf_counter_ns()
                chains = self._take()
                if self._misbehaviour.seconds_a_command and not await self._dawdle(len(chains)):
                    continue
                self._answer(chains)
                idle = not chains and self._ring.idle()
                self.busy_ns += time.perf_counter_ns() - started
                if idle:
                    break

    async def _dawdle(self, commands: int) -> bool:
        """Takes its time; False where a reset has taken the commands away meanwhile."""
        try:
            async with asyncio.timeout(self._misbehaviour.seconds_a_command * commands):
                await self._was_reset.wait()
        except TimeoutError:
            return True
        return False

    def _take(self) -> list[Chain]:
        try:
            return self._ring.take()
        except BadChain:
            # virtio 1.4, 2.1.2: a device that met an error it cannot recover from does no more
            # until it is reset.
            self._silent = True
            return []

    def _answer(self, chains: list[Chain]) -> None:
        served = [each for chain in chains if (each := self._carry_out(chain)) is not None]
        if self._misbehaviour.order is Order.REVERSED:
            served.reverse()
        elif self._misbehaviour.order is Order.SHUFFLED:
            self._random.shuffle(served)
        self._give_back_all(served)
        if self._ring.wants_interrupt() and self._misbehaviour.interrupts:
            self._notify()

    def _carry_out(self, chain: Chain) -> CarriedOut | None:
        """Does what a chain says and writes its answer; None where it is never returned."""
        if self._silent:
            return None
        fault = self._misbehaviour.faults.get(self._taken)
        self._taken += 1
        answer = self._right_answer(chain) if fault is None else self._answer_to(chain, fault)
        if answer:
            self._ring.answer(chain, answer)
        return None if self._silent else CarriedOut(chain, fault, len(answer) or 1)

    def _right_answer(self, chain: Chain) -> bytes:
        return self.net.answer(chain.readable, chain.room)

    def _answer_to(self, chain: Chain, fault: Fault) -> bytes:
        """What is written, with what a fault makes of it."""
        match fault:
            case Fault.SILENCE:
                self._silent = True
                return b""
            case Fault.STALE_ACK:
                return b""
            case Fault.STRANGE_ACK:
                return bytes((7,))
            case Fault.ERR:
                return bytes((ACK_ERR,))
        return self._right_answer(chain)

    def _give_back_all(self, served: list[CarriedOut]) -> None:
        if any(each.fault for each in served):
            for each in served:
                self._give_back(each)
            return
        returned = [(each.chain.head, each.written) for each in served]
        self._ring.put_all(returned, in_order=Feature.IN_ORDER in self.config.features)
        if returned:
            self._last_head = returned[-1][0]

    def _give_back(self, served: CarriedOut) -> None:
        chain, fault, length = served
        head = chain.head
        if fault is not None:
            head, length = self._give_back_as(chain, fault)
        self._ring.put(head, length)
        self._last_head = head

    def _give_back_as(self, chain: Chain, fault: Fault) -> tuple[int, int]:
        """The head and the length that a chain is returned with."""
        match fault:
            case Fault.ID_OUT_OF_RANGE:
                return self.geometry.size, 1
            case Fault.ID_NOT_IN_FLIGHT:
                return chain.head + 1, 1
            case Fault.ID_TWICE:
                return self._last_head, 1
            case Fault.WRONG_LENGTH:
                return chain.head, 2
            case Fault.RUN_AHEAD:
                self._ring.run_ahead()
        return chain.head, 1


def _geometry(config: SoftwareConfig) -> AnyGeometry:
    packed, entries = Feature.RING_PACKED in config.features, config.ring_size
    room = max(8 * _PAGE, entries * _BUFFERS_PER_RING_ENTRY)
    size = align_up(own_ring_bytes(entries, packed=packed) + room, _PAGE)
    return lay_out_own(entries, Region(_IOVA, size), packed=packed)


def _sealed_memfd(size: int) -> int:
    fd = os.memfd_create("vdpad-cvq", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.pwrite(fd, bytes(size), 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd
