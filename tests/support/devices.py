"""A software device, brought up and borrowed, and what stands in its ring."""

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from vdpad.queues.lent_indices import Indices
from vdpad.queues.lent_queue import LentQueue
from vdpad.queues.software.device import ALL_FEATURES, SoftwareConfig, SoftwareDevice
from vdpad.queues.software.misbehaviour import Fault, Misbehaviour, Order
from vdpad.restore.program import Program, encode
from vdpad.restore.replay import Replayed, replay
from vdpad.virtio.features import Feature
from vdpad.virtio.framing import is_legacy
from vdpad.virtio.raw_command import AnyCommand
from vdpad.virtio.rings import RingGeometry
from vdpad.virtio.split_ring import SplitGeometry

# Of the jumping loop's time: no test waits for it.
DEADLINE = 60.0


@dataclass(frozen=True, slots=True)
class Words:
    """What driver and device have written into a ring beside its entries."""

    available_flags: int
    available_index: int
    used_event: int
    used_flags: int
    used_index: int
    avail_event: int


def read_words(memory: bytes, geometry: RingGeometry) -> Words:
    """The words of a split ring in a copy of its memory."""
    assert isinstance(geometry, SplitGeometry)
    available = geometry.available - geometry.memory.iova
    used = geometry.used - geometry.memory.iova
    return Words(
        *struct.unpack_from("<HH", memory, available),
        *struct.unpack_from("<H", memory, available + 4 + 2 * geometry.size),
        *struct.unpack_from("<HH", memory, used),
        *struct.unpack_from("<H", memory, used + 4 + 8 * geometry.size),
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """A replay's result, and the ring's memory as the replay left it."""

    replayed: Replayed
    program: Program
    memory: bytes

    @property
    def applied(self) -> set[int]:
        """The places of the commands that were acked OK."""
        failed = {*self.replayed.rejected, *self.replayed.unanswered}
        return set(range(len(self.program.commands))) - failed

    @property
    def words(self) -> Words:
        """The ring's words."""
        return read_words(self.memory, self.program.geometry)


def config(
    *,
    ring_size: int = 8,
    event_idx: bool = False,
    start_index: int = 0,
    faults: dict[int, Fault] | None = None,
    order: Order = Order.AS_SENT,
    seconds_a_command: float = 0.0,
    interrupts: bool = True,
    packed: bool = False,
    in_order: bool = False,
) -> SoftwareConfig:
    """A device with all features, RING_EVENT_IDX or not, and a packed ring or a split one."""
    features = ALL_FEATURES
    if packed:
        features |= {Feature.RING_PACKED}
    if in_order:
        features |= {Feature.IN_ORDER}
    return SoftwareConfig(
        features=features if event_idx else features - {Feature.RING_EVENT_IDX},
        ring_size=ring_size,
        start_index=start_index,
        misbehaviour=Misbehaviour(
            faults=faults or {},
            order=order,
            seconds_a_command=seconds_a_command,
            interrupts=interrupts,
        ),
    )


@asynccontextmanager
async def running(configured: SoftwareConfig) -> AsyncIterator[SoftwareDevice]:
    """A device that serves."""
    device = SoftwareDevice(configured)
    device.start()
    try:
        yield device
    finally:
        await device.stop()


async def geometry_of(configured: SoftwareConfig) -> RingGeometry:
    """How the ring of such a device is laid out."""
    device = SoftwareDevice(configured)
    await device.stop()
    return device.geometry


def has_event_idx(device: SoftwareDevice) -> bool:
    """Whether RING_EVENT_IDX was negotiated."""
    return Feature.RING_EVENT_IDX in device.config.features


@contextmanager
def borrowed(device: SoftwareDevice, indices: Indices | None = None) -> Iterator[LentQueue]:
    """The device's queue, as a VMM would lend it."""
    queue = LentQueue(
        device.geometry,
        device.lend(),
        device.lent_at if indices is None else indices,
        event_idx=has_event_idx(device),
        in_order=Feature.IN_ORDER in device.config.features,
        worth_polling=False,
    )
    try:
        yield queue
    finally:
        queue.close()


def memory_of(device: SoftwareDevice) -> bytes:
    """A copy of all the memory that the device lends."""
    lent = device.lend()
    try:
        return os.pread(lent.memory, device.geometry.memory.size, 0)
    finally:
        lent.close()


async def send(
    device: SoftwareDevice,
    commands: Sequence[AnyCommand],
    *,
    seconds: float = DEADLINE,
    indices: Indices | None = None,
) -> Sent:
    """Replays commands on a device."""
    program = encode(
        tuple(commands),
        device.geometry,
        event_idx=has_event_idx(device),
        legacy=is_legacy(device.config.features),
    )
    with borrowed(device, indices) as queue:
        deadline = asyncio.get_running_loop().time() + seconds
        replayed = await replay(program, queue, deadline=deadline, poll_ns=0)
    return Sent(replayed, program, memory_of(device))
