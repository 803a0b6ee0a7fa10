"""The device's side of a split ring: takes what is available, returns what is used.

While it works it asks for no doorbell; when nothing is left it asks for the next one and looks once
more, since a driver that published in between saw the old wish (virtio 1.4, 2.7.10). It trusts the
driver as little as a device may: a chain is bounds-checked before any byte of it is touched.
"""

from dataclasses import dataclass

from vdpad.errors import VdpadError
from vdpad.virtio.fences import full_fence, ordering_fence
from vdpad.virtio.split_ring import (
    AVAIL_F_NO_INTERRUPT,
    DESC_F_INDIRECT,
    DESC_F_NEXT,
    DESC_F_WRITE,
    DESCRIPTOR,
    RING_HEADER,
    USED_ELEMENT,
    USED_F_NO_NOTIFY,
    RingGeometry,
    distance,
    wants_event,
)


class BadChain(VdpadError):
    """A driver's chain that no device can serve."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A command that was made available."""

    head: int
    readable: bytes
    """A copy of all device-readable buffers."""
    ack_at: int
    """Where the ack goes, in bytes from the start of the memory."""


class DeviceRing:
    """The device's side of a ring in mapped memory."""

    def __init__(
        self, memory: memoryview, geometry: RingGeometry, *, event_idx: bool, start_index: int
    ) -> None:
        self._memory = memory
        self._geometry = geometry
        self._event_idx = event_idx
        parts = geometry.views(memory)
        self._descriptors = parts["descriptors"]
        self._available = parts["available"].cast("H")
        self._used = parts["used"].cast("H")
        self._used_bytes = parts["used"]
        self._next_available = start_index
        self._next_used = start_index
        self._interrupted_at = start_index
        self._ahead = 0
        self._available[1] = self._used[1] = start_index
        self._ask_for_doorbell()

    def take(self) -> list[Chain]:
        """All chains that have been made available, and asks for no doorbell meanwhile.

        Raises:
            BadChain: the driver's ring makes no sense.
        """
        if not self._event_idx:
            self._used[0] = USED_F_NO_NOTIFY
        index = self._available[1]
        ordering_fence()
        count = distance(index, self._next_available)
        if count > self._geometry.size:
            raise BadChain(f"{count} chains available in a ring of {self._geometry.size}")
        chains = [self._chain(self._head(self._next_available + i)) for i in range(count)]
        self._next_available = index
        return chains

    def idle(self) -> bool:
        """Asks for the next doorbell; False where something has come in the meantime."""
        self._ask_for_doorbell()
        full_fence()
        return self._available[1] == self._next_available

    def write_ack(self, chain: Chain, ack: int) -> None:
        """Writes a chain's ack byte; the chain is not returned yet."""
        self._memory[chain.ack_at] = ack

    def put(self, head: int, length: int) -> None:
        """Returns a chain."""
        at = RING_HEADER + self._next_used % self._geometry.size * USED_ELEMENT.size
        self._used_bytes[at : at + USED_ELEMENT.size] = USED_ELEMENT.pack(head, length)
        self._next_used = (self._next_used + 1) & 0xFFFF
        ordering_fence()
        self._used[1] = (self._next_used + self._ahead) & 0xFFFF

    def run_ahead(self) -> None:
        """From now on shows a used index that no driver can believe."""
        self._ahead = self._geometry.size

    def wants_interrupt(self) -> bool:
        """Whether the driver wants to hear of what was returned since this was last asked."""
        full_fence()
        old, self._interrupted_at = self._interrupted_at, self._next_used
        if old == self._next_used:
            return False
        if self._event_idx:
            return wants_event(self._available[-1], self._next_used, old)
        return not self._available[0] & AVAIL_F_NO_INTERRUPT

    def release(self) -> None:
        """Lets go of the memory."""
        for view in (self._descriptors, self._available, self._used, self._used_bytes):
            view.release()

    def _ask_for_doorbell(self) -> None:
        if self._event_idx:
            self._used[-1] = self._next_available
        else:
            self._used[0] = 0

    def _head(self, index: int) -> int:
        # Behind flags and index, which are two words.
        return self._available[2 + index % self._geometry.size]

    def _chain(self, head: int) -> Chain:
        readable = b""
        at = head
        for _ in range(self._geometry.size):
            if at >= self._geometry.size:
                raise BadChain(f"descriptor {at} in a ring of {self._geometry.size}")
            address, length, flags, following = DESCRIPTOR.unpack_from(
                self._descriptors, at * DESCRIPTOR.size
            )
            if flags & DESC_F_INDIRECT:
                raise BadChain("an indirect descriptor, which was not negotiated")
            offset = self._offset(address, length)
            if flags & DESC_F_WRITE:
                return Chain(head, readable, offset)
            readable += self._memory[offset : offset + length]
            if not flags & DESC_F_NEXT:
                break
            at = following
        raise BadChain(f"chain {head} has no device-writable byte for an ack")

    def _offset(self, address: int, length: int) -> int:
        memory = self._geometry.memory
        if length < 1 or address < memory.iova or address + length > memory.end:
            raise BadChain(f"a buffer of {length} bytes at {address:#x}, outside the memory")
        return address - memory.iova
