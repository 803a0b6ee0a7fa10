"""Chains that no restore makes, and what comes of them: a driver that is no more than it must be.

It lays chains into an idle ring, makes all of them available at once, rings the doorbell, and waits
until as many have come back. What came back is told as it stands in the ring (odd_rings.py), and
believed in nothing: what is wrong with it is the case's to say.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from vdpad.conformance.odd_layout import OddChain
from vdpad.conformance.odd_rings import OddRing, odd_ring
from vdpad.queues.control_queue import ControlQueue
from vdpad.virtio.rings import RingGeometry

# How long a sleeper sleeps before it looks by itself, in seconds.
_NAP = 0.001


@dataclass(frozen=True, slots=True)
class Returned:
    """What came back of chains that were sent together."""

    heads: tuple[int, ...]
    """The chains' first descriptors, or buffer ids, in the order of sending."""
    moved: int
    """How many the device says that it returned; more than there are chains where it ran ahead."""
    elements: tuple[tuple[int, int], ...]
    """The ids and lengths that they came back with, in the device's order; at most as many as there
    are chains."""
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
        BadGeometry: the ring or its buffers do not take them.
    """
    ring = odd_ring(queue, geometry, chains)
    ring.send()
    queue.kick()
    nap = seconds if interrupted else _NAP
    is_late = not await _returned(queue, ring, len(chains), seconds, nap)
    ring.leave()
    return Returned(
        heads=ring.laid.heads,
        moved=ring.moved(),
        elements=tuple(ring.elements()),
        answers=tuple(bytes(queue.ring.buffers[at]) for at in ring.laid.answers_at),
        is_late=is_late,
    )


async def _returned(
    queue: ControlQueue, ring: OddRing, count: int, seconds: float, nap: float
) -> bool:
    """Whether so many are back within so many seconds; it looks after each interrupt and nap."""
    now = asyncio.get_running_loop().time
    until = now() + seconds
    while (left := until - now()) > 0:
        if ring.moved() >= count:
            return True
        await queue.called(min(left, nap))
    return False
