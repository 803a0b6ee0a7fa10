"""Which pages a device has written to, by the chains that it returned.

It has written so many bytes of a chain's device-writable buffers, from the first on. A few chains
are walked one by one, which also tells what makes no sense; many are looked at all together
(bulk.py), and one by one only where that finds something out of the ordinary.

What a guest's ring can cost: the chains of one call may have so many descriptors for each entry of
the ring and no more, over all of them. Chains in the ring's own table share it, and a packet of
64 KiB in pages has 17 of them.
"""

from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vdpad.backend.relay.bulk import written_pages
from vdpad.virtio.chains import BadChain, DescriptorTable
from vdpad.virtio.guest_memory import GuestMemory, OutsideMemory
from vdpad.virtio.rings import DESC_F_WRITE
from vdpad.virtio.split_ring import USED_ELEMENT

# From so many chains on looking at them all together is faster (benchmarks/relay.py).
BULK = 36

# Stops a guest from keeping the relay for minutes, by chains that all go through one long table.
_DESCRIPTORS_PER_ENTRY = 64


class MemoryLog(Protocol):
    """Where written memory is marked; what a relay needs of DirtyLog."""

    def mark(self, address: int, length: int) -> None:
        """Marks bytes of the guest's memory as written."""

    def mark_pages(self, pages: "NDArray[np.uint64]") -> None:
        """Marks pages by their numbers; any may come twice."""


class WrittenBuffers:
    """Marks what chains of one ring were filled with."""

    def __init__(
        self, memory: GuestMemory, descriptors: DescriptorTable, log: MemoryLog, *, size: int
    ) -> None:
        """
        Args:
            memory: where the buffers lie.
            descriptors: of the ring.
            log: what is marked.
            size: entries of the ring.
        """
        self._memory = memory
        self._descriptors = descriptors
        self._log = log
        self._most = size * _DESCRIPTORS_PER_ENTRY

    def set_log(self, log: MemoryLog) -> None:
        """Marks in another log from now on."""
        self._log = log

    def mark(self, elements: bytes) -> None:
        """Marks what is written by used elements, as they stand in a used ring.

        Raises:
            BadChain: one of them makes no sense; all others were marked.
        """
        if len(elements) >= BULK * USED_ELEMENT.size:
            pages = written_pages(self._memory, self._descriptors, elements, most=self._most)
            if pages is not None:
                self._log.mark_pages(pages)
                return
        self._mark_one_by_one(elements)

    def _mark_one_by_one(self, elements: bytes) -> None:
        fault = ""
        left = self._most
        for head, length in USED_ELEMENT.iter_unpack(elements):
            try:
                left -= self._mark_chain(head, length, left)
            except (BadChain, OutsideMemory) as error:
                fault = fault or f"chain {head}: {error}"
        if fault:
            raise BadChain(fault)

    def _mark_chain(self, head: int, length: int, most: int) -> int:
        """How many descriptors it went through."""
        walked = 0
        for address, size, flags, _ in islice(self._descriptors.walk(head), most):
            walked += 1
            if flags & DESC_F_WRITE:
                written = min(size, length)
                self._memory.check(address, written)
                self._log.mark(address, written)
                length -= written
            if not length:
                return walked
        if walked == most:
            raise BadChain(
                f"expected chains of at most {self._most} descriptors together, got more"
            )
        return walked
