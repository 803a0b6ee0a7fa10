"""The driver's side of a packed ring, written from the specification (virtio 1.4, 2.8) alone.

It knows nothing of vdpad's own sides. Chains have any number of descriptors, direct ones or an
indirect table's; ids are free ones at random.
"""

import random
import struct
from dataclasses import dataclass

_NEXT, _WRITE, _INDIRECT, _AVAIL, _USED = 1, 2, 4, 1 << 7, 1 << 15

Piece = tuple[int, int, bool]
"""Address, length, device-writable."""


@dataclass(frozen=True)
class Sent:
    """A chain that was made available."""

    name: int
    descriptors: int


class PackedDriver:
    """Makes chains available and takes them back, in memory of the test's."""

    def __init__(
        self, memory: bytearray, base: int, *, size: int, position: int, dice: random.Random
    ) -> None:
        """
        Args:
            memory: in which the descriptors stand first, and then the two areas.
            base: the address of its first byte.
            size: descriptors.
            position: where both sides begin.
            dice: chooses ids.
        """
        self.size = size
        self._memory = memory
        self._base = base
        self._dice = dice
        self._available = self._used = position
        self.out: dict[int, Sent] = {}

    @property
    def free(self) -> int:
        """Descriptors that no chain has."""
        return self.size - sum(sent.descriptors for sent in self.out.values())

    def submit(self, pieces: list[Piece], table: int | None = None) -> Sent:
        """Makes one chain available; by an indirect table at this address where there is one."""
        name = self._dice.choice([at for at in range(self.size) if at not in self.out])
        if table is not None:
            for at, (address, length, written) in enumerate(pieces):
                flags = _WRITE * written | self._dice.choice([0, _AVAIL, _USED])
                where = table - self._base + 16 * at
                struct.pack_into("<QIHH", self._memory, where, address, length, 0, flags)
            described = [(table, 16 * len(pieces), _INDIRECT)]
        else:
            described = [(address, size, _WRITE * written) for address, size, written in pieces]
        self._describe(described, name)
        sent = Sent(name, len(described))
        self.out[name] = sent
        self._available += len(described)
        return sent

    def collect(self) -> list[tuple[Sent, int]]:
        """The chains that were returned, with the lengths that the device gave."""
        back = []
        while self.out:
            at, wrap = self._used % self.size, 1 - self._used // self.size % 2
            _, length, name, flags = struct.unpack_from("<QIHH", self._memory, 16 * at)
            if (bool(flags & _AVAIL), bool(flags & _USED)) != (bool(wrap), bool(wrap)):
                break
            sent = self.out.pop(name)
            assert bool(flags & _WRITE) == bool(length)
            back.append((sent, length))
            self._used += sent.descriptors
        return back

    def ask(self, flags: int, ahead: int = 0) -> None:
        """Says of which returned descriptor it wants to hear: all, none, or one so far ahead."""
        position = self._used + ahead
        word = position % self.size | (1 - position // self.size % 2) << 15
        struct.pack_into("<HH", self._memory, 16 * self.size, word, flags)

    def is_heard(self, new: int) -> bool:
        """Whether the device wants to hear of the last so many descriptors."""
        word, flags = struct.unpack_from("<HH", self._memory, 16 * self.size + 4)
        places = range(self._available - new, self._available)
        words = {at % self.size | (1 - at // self.size % 2) << 15 for at in places}
        return bool(flags == 0 or (flags == 2 and word in words))

    @property
    def written(self) -> int:
        """The position behind what was collected."""
        return self._used

    def _describe(self, described: list[tuple[int, int, int]], name: int) -> None:
        for at in reversed(range(len(described))):
            address, length, flags = described[at]
            position = self._available + at
            number, wrap = position % self.size, 1 - position // self.size % 2
            more = _NEXT if at < len(described) - 1 else 0
            flags |= more | (_AVAIL if wrap else _USED)
            # Only the last one's id counts (2.8.6).
            own = name if not more else self._dice.randrange(0xFFFF)
            struct.pack_into("<QIHH", self._memory, 16 * number, address, length, own, flags)
