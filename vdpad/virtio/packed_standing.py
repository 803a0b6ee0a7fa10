"""How a packed ring stands, for people."""

from dataclasses import dataclass

from vdpad.virtio.packed_ring import wrap_at

PAIR = 2
"""Descriptors of a chain, as a driver of ours makes them: a command's bytes, and its answer."""


@dataclass(frozen=True, slots=True)
class PackedStanding:
    """Where its two sides are, and what the device wants to hear of."""

    size: int
    available: int
    """The position of the next chain."""
    used: int
    """The position of the next one that comes back."""
    flags: int
    """Of the device's event suppression structure."""
    avail_event: int | None
    """Where that wants a doorbell; None without RING_EVENT_IDX."""

    def returned_since(self, used: int) -> int:
        """How many chains have come back since this was the next position."""
        return (self.used - used) // PAIR

    def __str__(self) -> str:
        event = "" if self.avail_event is None else f", avail_event {self._place(self.avail_event)}"
        return (
            f"the ring stands at descriptor {self._place(self.available)} as the next available "
            f"and {self._place(self.used)} as the next used, device flags {self.flags}{event}"
        )

    def _place(self, position: int) -> str:
        return f"{position % self.size} (wrap counter {wrap_at(position, self.size)})"
