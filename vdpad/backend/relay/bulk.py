"""The pages that many chains were written to, all looked at together by numpy.

Chains are gone through side by side: the first descriptor of each, then the second of those that
have one and were written so far, and so on. A descriptor that names an indirect table takes its
chain into that table, and a round of its own. Descriptors are gathered from the guest's memory, in
regions of which each is an array of 64-bit words for as long as one call takes.

What is out of the ordinary it leaves to whoever walks chains one by one: it says so, and has marked
nothing. Every number is a guest's, and in range before it is used as an index.
"""

import numpy as np
from numpy.typing import NDArray

from vdpad.virtio.chains import DescriptorTable
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE
from vdpad.virtio.split_ring import DESCRIPTOR

Numbers = NDArray[np.uint64]

PAGE_BITS = np.uint64(12)
"""A dirty log's pages have 4096 bytes, whatever the host's have (vhost-user.rst, "Migration")."""

# A packet of 64 KiB in pages takes 17 rounds, and one more where they stand in a table.
_MOST_ROUNDS = 32

# Pages of one call, over all chains: 4 GiB. Stops a length that no packet has from taking memory.
_MOST_PAGES = 1 << 20

# Where size, flags and next stand in a descriptor's second word.
_SIZE = np.uint64(0xFFFFFFFF)
_FLAGS_AT, _FLAGS = np.uint64(32), np.uint64(0xFFFF)
_NEXT_AT = np.uint64(48)

_WRITABLE = DESC_F_WRITE | DESC_F_INDIRECT


def written_pages(
    memory: GuestMemory, descriptors: DescriptorTable, elements: bytes, *, most: int
) -> Numbers | None:
    """The pages that chains were written to, of which any may come twice.

    Args:
        memory: where they lie.
        descriptors: of their ring.
        elements: used elements, as they stand in a used ring; at least one.
        most: descriptors that the chains may have together.

    Returns:
        None where one by one is to be told what is the matter, or may still find that all is well.
    """
    regions = _Regions(memory)
    chains = _Chains(descriptors, elements)
    addresses, sizes = [], []
    for _ in range(_MOST_ROUNDS):
        most -= len(chains.left)
        found = chains.descriptors(regions) if most >= 0 else None
        if found is None:
            return None
        address, size, flags = found
        written = np.where(flags & _WRITABLE == DESC_F_WRITE, np.minimum(size, chains.left), 0)
        addresses.append(address)
        sizes.append(written)
        chains.left -= written
        if not chains.advance(address, size, flags):
            return None
        if not len(chains.left):
            return _pages(regions, np.concatenate(addresses), np.concatenate(sizes))
    return None


def _pages(regions: "_Regions", addresses: Numbers, sizes: Numbers) -> Numbers | None:
    some = sizes > 0
    if not some.all():
        addresses, sizes = addresses[some], sizes[some]
    if regions.holding(addresses, sizes) is None:
        return None
    first, last = addresses >> PAGE_BITS, (addresses + (sizes - 1)) >> PAGE_BITS
    more = last - first
    if not more.any():
        return first
    if more.max() == 1:
        return np.concatenate((first, last))
    counts = more + 1
    total = int(counts.sum())
    if total > _MOST_PAGES:
        return None
    # Counting from each first page on: what stands before a buffer's pages is taken off again.
    before = np.cumsum(counts) - counts
    return np.repeat(first - before, counts.astype(np.intp)) + np.arange(total, dtype=np.uint64)


class _Chains:
    """Chains that are gone through side by side, and where each stands."""

    def __init__(self, descriptors: DescriptorTable, elements: bytes) -> None:
        pairs = np.frombuffer(elements, dtype="<u4").reshape(-1, 2)
        self._all = descriptors
        self._table = np.full(len(pairs), descriptors.address, dtype=np.uint64)
        """Guest address of the table that each goes through."""
        self._entries = np.full(len(pairs), descriptors.size, dtype=np.uint64)
        """How many that table has."""
        self._at = pairs[:, 0].astype(np.uint64)
        """Which of them is next."""
        self._seen = np.zeros(len(pairs), dtype=np.uint64)
        """How many of that table it has gone through; no chain has more than there are."""
        self._inside = np.zeros(len(pairs), dtype=bool)
        """Whether it is an indirect table."""
        self.left = pairs[:, 1].astype(np.uint64)
        """Written bytes whose place is still to be found."""

    def descriptors(self, regions: "_Regions") -> tuple[Numbers, Numbers, Numbers] | None:
        """Address, size and flags of each chain's next; None where there is no such."""
        if (self._at >= self._entries).any():
            return None
        words = regions.pairs(self._table + self._at * DESCRIPTOR.size)
        if words is None:
            return None
        address, rest = words
        self._at = rest >> _NEXT_AT
        return address, rest & _SIZE, rest >> _FLAGS_AT & _FLAGS

    def advance(self, address: Numbers, size: Numbers, flags: Numbers) -> bool:
        """Goes on to what follows these, and drops chains that are done; False where one cannot."""
        self._seen += 1
        going = (self.left > 0) & (flags & DESC_F_NEXT > 0)
        indirect = flags & DESC_F_INDIRECT > 0
        if indirect.any():
            if not self._enter(indirect, address, size, flags):
                return False
            going |= indirect
        if (self._seen[going] >= self._entries[going]).any():
            return False
        if not going.all():
            self._table, self._entries = self._table[going], self._entries[going]
            self._at, self._inside = self._at[going], self._inside[going]
            self._seen = self._seen[going]
            self.left = self.left[going]
        return True

    def _enter(
        self, indirect: NDArray[np.bool], table: Numbers, size: Numbers, flags: Numbers
    ) -> bool:
        """Takes these chains into their indirect tables; False where one is none."""
        sizes = size[indirect]
        bad = (
            not self._all.indirect
            or self._inside[indirect].any()
            or (flags[indirect] & DESC_F_NEXT).any()
            or (sizes % DESCRIPTOR.size).any()
            or (sizes > self._all.most_indirect * DESCRIPTOR.size).any()
        )
        self._table = np.where(indirect, table, self._table)
        self._entries = np.where(indirect, size // DESCRIPTOR.size, self._entries)
        self._at = np.where(indirect, 0, self._at)
        self._seen = np.where(indirect, 0, self._seen)
        self._inside |= indirect
        return not bad


class _Regions:
    """The guest's memory for one call."""

    def __init__(self, memory: GuestMemory) -> None:
        regions = memory.regions()
        self._views = [view for _, view in regions]
        self._starts = np.array([region.iova for region, _ in regions], dtype=np.uint64)
        # The last bytes, as an end may be 2^64.
        self._lasts = np.array([region.end - 1 for region, _ in regions], dtype=np.uint64)

    def holding(self, addresses: Numbers, sizes: Numbers | int) -> NDArray[np.intp] | None:
        """In which region each of these stretches lies; None where one lies within none."""
        at = np.searchsorted(self._starts, addresses, side="right") - 1
        if (at < 0).any():
            return None
        lasts = self._lasts[at]
        if ((lasts < addresses) | (lasts - addresses < sizes - 1)).any():
            return None
        return at

    def pairs(self, addresses: Numbers) -> tuple[Numbers, Numbers] | None:
        """Two 64-bit words from each address on; None where one is none in memory."""
        at = self.holding(addresses, DESCRIPTOR.size)
        if at is None or (addresses & 7).any():
            return None
        first, second = np.empty_like(addresses), np.empty_like(addresses)
        for region in np.unique(at):
            here = at == region
            view = self._views[region]
            words = np.frombuffer(view, dtype="<u8", count=len(view) // 8)
            places = (addresses[here] - self._starts[region]) >> 3
            first[here], second[here] = words[places], words[places + 1]
        return first, second
