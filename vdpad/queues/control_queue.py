"""The interface behind which every control queue stands: the ring's memory, a kick, a call.

Whoever opens a control queue has it alone until it is closed. What it is for the device, lent by a
VMM or owned, is no business of its user.
"""

from dataclasses import dataclass
from typing import Protocol

from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.driver_rings import AnyDriverRing


@dataclass(frozen=True, slots=True)
class Lent:
    """A lent ring, by numbers that the kernel gives nothing else for as long as it is there."""

    device: int
    """Of the memory, as fstat(2) tells it."""
    inode: int
    """Likewise. No memfd has 0."""
    kick: int
    """The eventfd's number (eventfds.py); UNKNOWN_EVENTFD where the kernel tells none."""
    call: int

    def __str__(self) -> str:
        return f"memfd {self.device}:{self.inode}, eventfds {self.kick} and {self.call}"


class ControlQueue(Protocol):
    """An idle CVQ, ready for chains."""

    @property
    def ring(self) -> AnyDriverRing:
        """The driver's side of the ring; idle: all that was made available has been used."""

    @property
    def next_index(self) -> int:
        """Where the idle ring stands: where the next chain goes, and comes back.

        Of a split ring both indices; of a packed one the position as its `off_wrap`, and
        PACKED_INDEX.
        """

    @property
    def worth_polling(self) -> bool:
        """Whether the device works while we look; not so where it shares our thread."""

    def kick(self) -> None:
        """Rings the doorbell. Does not block."""

    async def called(self, seconds: float) -> None:
        """Returns when the device has interrupted, or after so many seconds.

        Cancellation leaves nothing behind; an interrupt that comes then is kept for the next call.
        """

    def close(self) -> None:
        """Lets go of the queue. May be called again."""


def split_ring(queue: ControlQueue) -> DriverRing:
    """The ring of a queue that is known to have a split one, as our own devices do."""
    ring = queue.ring
    assert isinstance(ring, DriverRing)
    return ring
