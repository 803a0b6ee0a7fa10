"""The same device with a packed ring, which knows nothing of vdpad's own sides of one.

A start index counts descriptors from where the ring begins with its wrap counter 1.
"""

import struct

from tests.support.stepped import IOVA, SteppedDevice, Taken
from vdpad.queues.lent_indices import Indices
from vdpad.virtio.commands import ACK_NONE
from vdpad.virtio.packed_ring import PackedGeometry, lay_out_packed
from vdpad.virtio.rings import Region, RingGeometry

_NEXT, _WRITE, _AVAIL, _USED = 1, 2, 1 << 7, 1 << 15
_STALE = 0xA5


class PackedSteppedDevice(SteppedDevice):
    """The device's side of a packed ring, moved by hand."""

    written_flag = _WRITE
    """What a returned descriptor has beside the two flags; QEMU leaves it off."""

    def begin(self) -> None:
        """Whatever was in the memory before: of a chain that is there only what follows counts."""
        self._lengths: dict[int, int] = {}
        size = 16 * self.geometry.size
        at = self._at(self.geometry.descriptors)
        self.memory[at : at + size] = bytes([_STALE]) * size
        for number in range(self.geometry.size):
            # As the driver before left it: taken and returned, in this lap or the one before.
            wrap = self._wrap(self.start_index) ^ (number >= self.start_index % self.geometry.size)
            self._put_flags(number, (_AVAIL | _USED) * wrap)

    @property
    def indices(self) -> Indices:
        at, wrap = self.start_index % self.geometry.size, self._wrap(self.start_index)
        return Indices(at, at, wrap, wrap)

    @property
    def end(self) -> int:
        at = self._used % self.geometry.size
        return 1 << 31 | self._wrap(self._used) << 15 | at

    @property
    def wants(self) -> tuple[int, int]:
        """The driver's event suppression structure."""
        return self._pair(self._packed.driver)

    def take(self) -> list[Taken]:
        while self._is_available(self._taken):
            chain = self._packed_chain(self._taken)
            assert chain.head not in self.in_flight, f"chain {chain.head} was made available twice"
            self.in_flight[chain.head] = chain
            self._taken += 2
        assert 2 * len(self.in_flight) <= self.geometry.size
        self._assert_untouched()
        return list(self.in_flight.values())

    def put(self, head: int, length: int) -> None:
        """Writes a returned descriptor and goes on behind its chain."""
        number, wrap = self._used % self.geometry.size, self._wrap(self._used)
        at = self._at(self.geometry.descriptors) + 16 * number
        struct.pack_into("<QIH", self.memory, at, 0xDEAD, length & 0xFFFFFFFF, head & 0xFFFF)
        self._put_flags(number, (_AVAIL | _USED) * wrap | self.written_flag)
        self._used += 2

    def put_for(self, head: int, count: int) -> None:
        """The same by one returned descriptor."""
        self.put(head, 1)
        self._used += 2 * (count - 1)

    def put_marks(self, ahead: int, marks: int) -> None:
        """Writes these flags so many descriptors behind where the next chain is returned."""
        self._put_flags((self._used + ahead) % self.geometry.size, marks)

    def ask_always(self) -> None:
        """Asks for every doorbell."""
        self._put_pair(self._packed.device, 0, 0)

    def ask_never(self) -> None:
        """Asks for no doorbell."""
        self._put_pair(self._packed.device, 0, 1)

    def ask_at(self, position: int) -> None:
        """Asks for a doorbell when the descriptor at a position is available."""
        at = position % self.geometry.size
        self._put_pair(self._packed.device, at | self._wrap(position) << 15, 2)

    @property
    def taken(self) -> int:
        """The position of the next chain."""
        return self._taken

    @property
    def returning(self) -> int:
        """The position to which the next chain is returned."""
        return self._used

    # --- inside ---

    def _laid_out(self, size: int, buffers: int) -> RingGeometry:
        ring = lay_out_packed(size, Region(IOVA, 1 << 30)).buffers.iova - IOVA
        return lay_out_packed(size, Region(IOVA, ring + buffers))

    @property
    def _packed(self) -> PackedGeometry:
        assert isinstance(self.geometry, PackedGeometry)
        return self.geometry

    def _wrap(self, position: int) -> int:
        return 1 - position // self.geometry.size % 2

    def _is_available(self, position: int) -> bool:
        flags = self._read(position)[3]
        wrap = self._wrap(position)
        return bool(flags & _AVAIL) == bool(wrap) and bool(flags & _USED) != bool(wrap)

    def _read(self, position: int) -> tuple[int, int, int, int]:
        number = position % self.geometry.size
        at = self._at(self.geometry.descriptors) + 16 * number
        address, length, name, flags = struct.unpack_from("<QIHH", self.memory, at)
        return address, length, name, flags

    def _packed_chain(self, position: int) -> Taken:
        address, length, _, flags = self._read(position)
        ack_address, ack_length, name, ack_flags = self._read(position + 1)
        assert self._is_available(position + 1)
        marks = _AVAIL | _USED
        assert (flags & ~marks, ack_flags & ~marks, ack_length) == (_NEXT, _WRITE, 1)
        buffers = self.geometry.buffers
        assert buffers.iova <= address < address + length <= buffers.end
        assert buffers.iova <= ack_address < buffers.end
        at, ack_at = self._at(address), self._at(ack_address)
        assert self.memory[ack_at] == ACK_NONE, "the ack was not filled beforehand"
        return Taken(name, at, self.memory[at : at + length], ack_at)

    def _assert_untouched(self) -> None:
        for chain in self.in_flight.values():
            end = chain.readable_at + len(chain.readable)
            assert self.memory[chain.readable_at : end] == chain.readable
            assert self.memory[chain.ack_at] == ACK_NONE

    def _put_flags(self, number: int, flags: int) -> None:
        self._put_word(self.geometry.descriptors + 16 * number + 14, flags)

    def _pair(self, address: int) -> tuple[int, int]:
        word, flags = struct.unpack_from("<HH", self.memory, self._at(address))
        return word, flags

    def _put_pair(self, address: int, word: int, flags: int) -> None:
        struct.pack_into("<HH", self.memory, self._at(address), word, flags)


class UnwrittenDevice(PackedSteppedDevice):
    """It never says that it has written to a chain, as QEMU's does not."""

    written_flag = 0
