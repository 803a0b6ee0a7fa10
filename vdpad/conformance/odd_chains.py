"""Chains that no restore makes, and what comes of them: a driver that is no more than it must be.

It lays chains into an idle split ring from its first descriptor on, publishes all of them at once,
rings the doorbell, and waits until as many have come back. What came back is told as it stands in
the ring, and believed in nothing: what is wrong with it is the case's to say.

Source: virtio 1.4, 2.7 "Split Virtqueues".
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from vdpad.queues.control_queue import ControlQueue
from vdpad.virtio.commands import ACK_NONE
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.rings import (
    DESC_F_INDIRECT,
    DESC_F_NEXT,
    DESC_F_WRITE,
    BadGeometry,
    RingGeometry,
    align_up,
)
from vdpad.virtio.split_ring import DESCRIPTOR, USED_ELEMENT

# How long a sleeper sleeps before it looks by itself, in seconds.
_NAP = 0.001


@dataclass(frozen=True, slots=True)
class OddChain:
    """A chain, buffer by buffer."""

    readable: tuple[bytes, ...]
    """The device-readable buffers."""
    writable: tuple[int, ...] = (1,)
    """The device-writable ones, by their sizes in bytes."""
    indirect: bool = False
    """Whether its descriptors stand in a table of their own."""


@dataclass(frozen=True, slots=True)
class Returned:
    """What came back of chains that were sent together."""

    heads: tuple[int, ...]
    """The chains' first descriptors, in the order of sending."""
    moved: int
    """How far the used index has gone; more than there are chains where it ran ahead."""
    elements: tuple[tuple[int, int], ...]
    """The ids and lengths in the used ring, in its order; at most as many as there are chains."""
    answers: tuple[bytes, ...]
    """The device-writable part of each chain, in the order of sending; 0xff where it wrote none."""
    is_late: bool
    """Whether the time was up before they were back, or before the interrupt that was waited for.
    """

    @property
    def is_whole(self) -> bool:
        """Whether each chain has come back, once."""
        return sorted(head for head, _ in self.elements) == sorted(self.heads)

    def acks(self) -> list[int | None]:
        """The first byte of each answer; None where the chain has not come back."""
        back = {head for head, _ in self.elements}
        return [
            answer[0] if answer and head in back else None
            for head, answer in zip(self.heads, self.answers, strict=True)
        ]


class _Layout:
    """Chains as they stand in the descriptor table and in the buffers."""

    def __init__(self, geometry: RingGeometry, chains: Sequence[OddChain]) -> None:
        """Raises BadGeometry: they do not fit."""
        self.descriptors = bytearray()
        self.buffers = bytearray()
        self.heads: list[int] = []
        self.answers_at: list[slice] = []
        self._base = geometry.buffers.iova
        for chain in chains:
            self.heads.append(len(self.descriptors) // DESCRIPTOR.size)
            self._add(chain)
        if len(self.descriptors) > DESCRIPTOR.size * geometry.size:
            count = len(self.descriptors) // DESCRIPTOR.size
            raise BadGeometry(f"ring.size: expected at least {count}, got {geometry.size}")
        if len(self.buffers) > geometry.buffers.size:
            raise BadGeometry(
                f"ring.buffers: expected room for {len(self.buffers)} bytes, "
                f"got {geometry.buffers.size}"
            )

    def _add(self, chain: OddChain) -> None:
        parts = [(self._put(each), len(each), 0) for each in chain.readable]
        answer_at = len(self.buffers)
        parts += [
            (self._put(bytes([ACK_NONE]) * size), size, DESC_F_WRITE) for size in chain.writable
        ]
        self.answers_at.append(slice(answer_at, len(self.buffers)))
        if not chain.indirect:
            self.descriptors += _linked(parts, len(self.descriptors) // DESCRIPTOR.size)
            return
        table = _linked(parts, 0)
        self.buffers.extend(bytes(align_up(len(self.buffers), DESCRIPTOR.size) - len(self.buffers)))
        self.descriptors += DESCRIPTOR.pack(self._put(table), len(table), DESC_F_INDIRECT, 0)

    def _put(self, data: bytes) -> int:
        at = self._base + len(self.buffers)
        self.buffers += data
        return at


def _linked(parts: Sequence[tuple[int, int, int]], first: int) -> bytes:
    """Descriptors for buffers (address, length, flags), each naming the one behind it."""
    last = len(parts) - 1
    return b"".join(
        DESCRIPTOR.pack(address, length, flags, 0)
        if at == last
        else DESCRIPTOR.pack(address, length, flags | DESC_F_NEXT, first + at + 1)
        for at, (address, length, flags) in enumerate(parts)
    )


async def exchange(
    queue: ControlQueue,
    geometry: RingGeometry,
    chains: Sequence[OddChain],
    *,
    seconds: float,
    interrupted: bool = False,
) -> Returned:
    """Sends chains together and waits for them. On cancellation they are the device's.

    Args:
        queue: idle, and nobody else's.
        geometry: of its ring.
        chains: what to send.
        seconds: how long to wait for them at the most.
        interrupted: look only when the device has interrupted.

    Raises:
        BadGeometry: the ring or its buffers do not take them, or it is packed or has IN_ORDER.
    """
    layout = _Layout(geometry, chains)
    ring, start = _split(queue), queue.next_index
    ring.descriptors[: len(layout.descriptors)] = layout.descriptors
    ring.buffers[: len(layout.buffers)] = layout.buffers
    ring.place(start, b"".join(head.to_bytes(2, "little") for head in layout.heads))
    ring.ask_for_interrupt(start + len(chains))
    ring.publish(start + len(chains))
    queue.kick()
    nap = seconds if interrupted else _NAP
    is_late = not await _returned(queue, ring, start, len(chains), seconds, nap)
    moved = ring.returned_since(start)
    elements = ring.used_elements(start, min(moved, len(chains)))
    return Returned(
        heads=tuple(layout.heads),
        moved=moved,
        elements=tuple(USED_ELEMENT.iter_unpack(elements)),
        answers=tuple(bytes(ring.buffers[at]) for at in layout.answers_at),
        is_late=is_late,
    )


def _split(queue: ControlQueue) -> DriverRing:
    ring = queue.ring
    if not isinstance(ring, DriverRing) or ring.in_order:
        raise BadGeometry("expected a split ring without IN_ORDER, got another one")
    return ring


async def _returned(
    queue: ControlQueue, ring: DriverRing, start: int, count: int, seconds: float, nap: float
) -> bool:
    """Whether so many are back within so many seconds; it looks after each interrupt and nap."""
    now = asyncio.get_running_loop().time
    until = now() + seconds
    while (left := until - now()) > 0:
        if ring.returned_since(start) >= count:
            return True
        await queue.called(min(left, nap))
    return False
