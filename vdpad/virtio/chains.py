"""Chains of descriptors, as a device finds them in a driver's ring.

A device trusts the driver as little as it may. A descriptor is copied once, an indirect table as a
whole, and only the copy is looked at; no chain has more descriptors than its table has, so a loop
ends. That a buffer is memory is for whoever uses it to check.

Source: virtio 1.4, 2.7.5 "The Virtqueue Descriptor Table", and 2.7.5.3 "Indirect Descriptors".
"""

from collections.abc import Iterator

from vdpad.errors import VdpadError
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import DESC_F_INDIRECT, DESC_F_NEXT
from vdpad.virtio.split_ring import DESCRIPTOR

# virtio 1.4, 2.7.5.3.1: as many as the ring has entries. Linux makes longer tables for small
# rings, and this is what QEMU takes of them.
_LEAST_MOST_INDIRECT = 1024

_Descriptor = tuple[int, int, int, int]
"""Address, length, flags, next."""

Buffer = tuple[int, int, int, int]
"""Address, length, flags, and how many of the ring's descriptors the chain has taken up to it."""


class BadChain(VdpadError):
    """A driver's chain that no device can serve."""


class DescriptorTable:
    """A ring's descriptor table, and the memory in which its indirect tables lie."""

    def __init__(
        self, memory: GuestMemory, address: int, descriptors: memoryview, *, indirect: bool
    ) -> None:
        """
        Args:
            memory: where indirect tables lie.
            address: of the table.
            descriptors: its bytes, which stay the caller's.
            indirect: RING_INDIRECT_DESC was negotiated.
        """
        self.address = address
        self.size = len(descriptors) // DESCRIPTOR.size
        """Entries of the ring."""
        self.indirect = indirect
        """Whether RING_INDIRECT_DESC was negotiated."""
        self._memory = memory
        self._descriptors = descriptors

    @property
    def most_indirect(self) -> int:
        """How many entries an indirect table may have."""
        return most_indirect(self.size)

    def walk(self, head: int) -> Iterator[Buffer]:
        """The descriptors of a chain's buffers, an indirect table's in place of what names it.

        Raises:
            BadChain: from the first on that makes no sense.
            OutsideMemory: an indirect table is not all memory.
        """
        table: memoryview | bytes = self._descriptors
        count, at, seen, taken = self.size, head, 0, 0
        while at < count:
            descriptor = DESCRIPTOR.unpack_from(table, at * DESCRIPTOR.size)
            address, length, flags, at = descriptor
            taken += table is self._descriptors
            if flags & DESC_F_INDIRECT:
                if table is not self._descriptors:
                    raise BadChain(
                        "expected buffers in an indirect table, got an indirect descriptor"
                    )
                most = self.most_indirect if self.indirect else 0
                table = indirect_table(self._memory, descriptor, most)
                count, at, seen = len(table) // DESCRIPTOR.size, 0, 0
                continue
            yield address, length, flags, taken
            if not flags & DESC_F_NEXT:
                return
            seen += 1
            if seen == count:
                raise BadChain(
                    f"expected an end within {count} descriptors, got a loop: "
                    "no device-writable byte ends it"
                )
        where = "a ring" if table is self._descriptors else "an indirect table"
        raise BadChain(f"expected one below {count}, got descriptor {at} in {where} of {count}")


def most_indirect(size: int) -> int:
    """How many entries an indirect table may have, by the entries of the ring."""
    return max(size, _LEAST_MOST_INDIRECT)


def indirect_table(memory: GuestMemory, descriptor: _Descriptor, most: int) -> bytes:
    """A copy. That the descriptor is device-writable or not means nothing (2.7.5.3.2).

    Args:
        memory: in which it lies.
        descriptor: which names it.
        most: how many entries it may have; 0 without RING_INDIRECT_DESC.

    Raises:
        BadChain: the descriptor names none.
        OutsideMemory: it is not all memory.
    """
    address, length, flags, _ = descriptor
    if not most:
        raise BadChain("expected none without RING_INDIRECT_DESC, got an indirect descriptor")
    if flags & DESC_F_NEXT:
        raise BadChain(
            "expected an indirect descriptor to end its chain, got one with another behind it"
        )
    if length % DESCRIPTOR.size or not 0 < length <= DESCRIPTOR.size * most:
        raise BadChain(
            f"expected an indirect table of {DESCRIPTOR.size} to {DESCRIPTOR.size * most} bytes, "
            f"in steps of {DESCRIPTOR.size}, got {length} bytes"
        )
    return memory.read(address, length)
