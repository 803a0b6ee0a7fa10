"""The CVQ of a device of ours: its ring in our memory, and the two eventfds that we made."""

import os

from vdpad.errors import VdpadError
from vdpad.queues.eventfds import Waiter
from vdpad.virtio.driver_rings import AnyDriverRing


class NotIdle(VdpadError):
    """A ring in which chains are in flight, so that nobody can begin with it."""


class OwnedQueue:
    """Implements ControlQueue. Closing it leaves the device up."""

    def __init__(
        self, ring: AnyDriverRing, kick: int, call: int, *, worth_polling: bool = True
    ) -> None:
        """All of it stays the device's.

        Args:
            ring: an idle one.
            kick: the doorbell's eventfd.
            call: the interrupt's, which nobody else reads.
            worth_polling: the device works while we look.

        Raises:
            NotIdle: chains of an earlier user never came back.
        """
        _index(ring)
        self.ring = ring
        self.worth_polling = worth_polling
        self._kick = kick
        self._call = Waiter(call, paced=False)

    @property
    def next_index(self) -> int:
        """Where the idle ring stands by now. Raises NotIdle."""
        return _index(self.ring)

    def kick(self) -> None:
        """Rings the doorbell, which is ours: it cannot block."""
        os.eventfd_write(self._kick, 1)

    async def called(self, seconds: float) -> None:
        """Returns when the device has interrupted, or after so many seconds."""
        await self._call.wait(seconds)

    def close(self) -> None:
        """Ends the watch for interrupts."""
        self._call.close()


def _index(ring: AnyDriverRing) -> int:
    index = ring.idle_index
    if index is None:
        raise NotIdle("expected an idle ring, got one with chains in flight; reset the device")
    return index
