"""How a ring stands whose replay ran out of time, and which of a lender's mistakes look like that.

That the deadline came tells a VMM's author nothing. What the device has written into the ring does:

- Nothing has come back: the doorbell reached nobody, or nobody serves the queue. A lender may have
  swapped kick and call, so that it rang where the VMM listens for interrupts; or have said of a
  packed ring that it stands where it does not.
- All that the first doorbell was for has, and with RING_EVENT_IDX the avail_event has not moved, so
  that no other was rung. A device with the feature says there which index it waits for before it
  goes idle (virtio 1.4, 2.7.10); where it stays as it was, the device may not know the feature, and
  wait for a doorbell that it never asks for. One that stops before that was not idle: it hangs.

Neither is proof, as a device that hangs looks alike, so a sentence says what it looks like.
"""

from dataclasses import dataclass

from vdpad.virtio.driver_ring import RingStanding
from vdpad.virtio.packed_standing import PackedStanding

Standing = RingStanding | PackedStanding


@dataclass(frozen=True, slots=True)
class Standstill:
    """A ring before its replay, and at the deadline."""

    before: Standing
    now: Standing
    first: int
    """Commands that the first doorbell was for."""

    def sentence(self, *, lent: bool) -> str:
        """For people.

        Args:
            lent: the ring's owner is another process.
        """
        return f"{self.now}: {self._looks_like(lent)}"

    def _looks_like(self, lent: bool) -> str:
        returned = self.now.returned_since(self.before.used)
        packed = isinstance(self.now, PackedStanding)
        if not returned:
            served = "see that it is at DRIVER_OK with this queue enabled"
            swapped = ", and that kick and call are not swapped" if lent else ""
            placed = ", and that the ring stands where its lender said" if lent and packed else ""
            return f"the device has returned nothing; {served}{swapped}{placed}"
        stale = self.now.avail_event == self.before.avail_event
        if self.now.avail_event is not None and stale and returned >= self.first:
            return (
                f"the device has returned {returned} and not moved its avail_event, like one that "
                "ignores RING_EVENT_IDX; claim that feature only where it was negotiated with it"
            )
        return f"the device has returned {returned} so far; give it more time, or reset it"
