"""A driver of a split ring, for judging a device's side: written from the specification alone.

It shares nothing with vdpad/virtio but the names of its errors. Memory is regions of bytes at guest
addresses; the ring's parts and all buffers lie where chance puts them, and a buffer may cross from
one region to the next. Not for speed.

Source: virtio 1.4, 2.7 "Split Virtqueues".
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

NEXT, WRITE, INDIRECT = 1, 2, 4

Extent = tuple[int, int]
"""Guest address, bytes."""


class Way(Enum):
    """How a chain is described."""

    DIRECT = "in the ring's table"
    INDIRECT = "in an indirect table"
    BOTH = "first in the ring's table, then in an indirect one"


class Memory:
    """Regions by their first guest address."""

    def __init__(self, sizes: Sequence[int], gaps: Sequence[int], start: int = 0x40000) -> None:
        """Regions of these sizes, with these gaps before them; all multiples of 16."""
        self.regions: dict[int, bytearray] = {}
        at = start
        for size, gap in zip(sizes, gaps, strict=True):
            at += gap
            self.regions[at] = bytearray(size)
            at += size

    def copy(self) -> "Memory":
        """All of it as it is now."""
        copied = Memory((), ())
        copied.regions = {start: bytearray(data) for start, data in self.regions.items()}
        return copied

    def peek(self, address: int, size: int) -> bytes:
        found = b""
        while len(found) < size:
            region, offset = self._at(address + len(found))
            found += region[offset : offset + size - len(found)]
        return found

    def poke(self, address: int, data: bytes) -> None:
        while data:
            region, offset = self._at(address)
            size = min(len(data), len(region) - offset)
            region[offset : offset + size] = data[:size]
            address, data = address + size, data[size:]

    def _at(self, address: int) -> tuple[bytearray, int]:
        for start, region in self.regions.items():
            if start <= address < start + len(region):
                return region, address - start
        raise AssertionError(f"no memory at {address:#x}")

    def spans(self) -> list[Extent]:
        """Stretches without a gap, which may be of several regions."""
        found: list[Extent] = []
        for start, region in sorted(self.regions.items()):
            if found and sum(found[-1]) == start:
                found[-1] = (found[-1][0], found[-1][1] + len(region))
            else:
                found.append((start, len(region)))
        return found


class Room:
    """What of the memory is not in use."""

    def __init__(self, memory: Memory, random: Random) -> None:
        self._memory = memory
        self._random = random
        self._taken: list[Extent] = []

    def take(self, size: int, *, alignment: int = 1, in_one_region: bool = False) -> int:
        """An address where so many bytes are free; often one from which they cross a border."""
        spans = self._memory.spans()
        if in_one_region:
            spans = [(start, len(region)) for start, region in self._memory.regions.items()]
        for _ in range(10000):
            address = self._somewhere(size, alignment)
            fits = any(at <= address and address + size <= at + length for at, length in spans)
            if fits and not self._overlaps(address, size):
                self._taken.append((address, size))
                return address
        raise AssertionError(f"no room for {size} bytes")

    def _somewhere(self, size: int, alignment: int) -> int:
        start, region = self._random.choice(list(self._memory.regions.items()))
        near = self._random.choice((0, self._random.randrange(len(region))))
        return (start + near - self._random.randrange(size)) // alignment * alignment

    def _overlaps(self, address: int, size: int) -> bool:
        return any(address < at + taken and at < address + size for at, taken in self._taken)

    def give_back(self, address: int, size: int) -> None:
        self._taken.remove((address, size))


@dataclass(eq=False)
class Request:
    """A chain of the driver's."""

    readable: bytes
    writable: list[Extent]
    heads: list[int]
    """Descriptors of the ring's table, the first of which is its head."""
    extents: list[Extent]
    """All memory that it takes beside them."""

    @property
    def head(self) -> int:
        return self.heads[0]

    @property
    def room(self) -> int:
        return sum(size for _, size in self.writable)


class SplitDriver:
    """The driver's side of one ring."""

    def __init__(
        self, memory: Memory, random: Random, *, size: int, event_idx: bool, index: int
    ) -> None:
        self.memory = memory
        self.size = size
        self.in_order = False
        """IN_ORDER is negotiated: a chain that comes back may stand for those before it."""
        self.base = index
        """Where the ring began."""
        self._random = random
        self._event_idx = event_idx
        self._room = Room(memory, random)
        self.descriptors = self._part(16 * size, 16)
        self.available = self._part(6 + 2 * size, 2)
        self.used = self._part(6 + 8 * size, 4)
        self._free = list(range(size))
        random.shuffle(self._free)
        self._next = self._published = self._collected = index
        self.in_flight: dict[int, Request] = {}
        self._put_word(self.available + 2, index)
        self._put_word(self.used + 2, index)

    def _part(self, size: int, alignment: int) -> int:
        return self._room.take(size, alignment=alignment, in_one_region=True)

    # --- sending ---

    @property
    def free(self) -> int:
        """Descriptors that no chain has."""
        return len(self._free)

    def submit(self, readable: Sequence[bytes], writable: Sequence[int], way: Way) -> Request:
        """Makes a chain of these buffers; the device hears of it by `publish`."""
        buffers = [self._readable_buffer(data) for data in readable]
        answers = [(self._room.take(size), size) for size in writable]
        descriptors = [(*each, 0) for each in buffers] + [(*each, WRITE) for each in answers]
        direct = {Way.DIRECT: len(descriptors), Way.INDIRECT: 0, Way.BOTH: 1}[way]
        extents = [*buffers, *answers]
        chained = descriptors[:direct]
        if direct < len(descriptors):
            table = self._table(descriptors[direct:])
            extents.append(table)
            # The device ignores whether this is writable.
            chained.append((*table, INDIRECT | self._random.choice((0, WRITE))))
        heads = self._describe(chained)
        request = Request(b"".join(readable), answers, heads, extents)
        self.in_flight[request.head] = request
        self._put_word(self.available + 4 + 2 * (self._next % self.size), request.head)
        self._next = (self._next + 1) % 65536
        return request

    def publish(self) -> bool:
        """Makes all that was submitted available; whether the device wants to be kicked."""
        old, self._published = self._published, self._next
        self._put_word(self.available + 2, self._published)
        if self._event_idx:
            return self._passes(self._word(self.used + 4 + 8 * self.size), old, self._published)
        return not self._word(self.used) & 1

    # --- receiving ---

    def ask_for_interrupt(self, after: int) -> None:
        """Asks to hear once so many more chains than were collected have come back."""
        if self._event_idx:
            event = (self._collected + after - 1) % 65536
            self._put_word(self.available + 4 + 2 * self.size, event)
        else:
            self._put_word(self.available, 0 if after == 1 else 1)

    @property
    def returned(self) -> int:
        """How many chains have come back and were not collected."""
        return (self._word(self.used + 2) - self._collected) % 65536

    def collect(self) -> list[tuple[Request, int, bytes]]:
        """What has come back: each with its length in the used ring, and all writable bytes."""
        found = []
        while self._collected != self._word(self.used + 2):
            at = self.used + 4 + 8 * (self._collected % self.size)
            head, length = struct.unpack("<II", self.memory.peek(at, 8))
            for request in self._batch(head):
                answer = b"".join(self.memory.peek(*each) for each in request.writable)
                # Of one that was skipped all was written.
                told = length if request.head == head else request.room
                found.append((request, told, answer))
                self._take_back(request)
        self._random.shuffle(self._free)
        return found

    def _batch(self, head: int) -> list[Request]:
        """The chains that this one stands for."""
        if not self.in_order:
            return [self.in_flight[head]]
        order = [*self.in_flight]
        batch = order[: order.index(head) + 1]
        assert len(batch) <= self.returned
        return [self.in_flight[each] for each in batch]

    def _take_back(self, request: Request) -> None:
        del self.in_flight[request.head]
        self._free += request.heads
        for extent in request.extents:
            self._room.give_back(*extent)
        self._collected = (self._collected + 1) % 65536

    # --- memory ---

    def _readable_buffer(self, data: bytes) -> Extent:
        address = self._room.take(len(data))
        self.memory.poke(address, data)
        return address, len(data)

    def _table(self, descriptors: list[tuple[int, int, int]]) -> Extent:
        """An indirect table, whose entries need not follow one another."""
        count = len(descriptors) + self._random.randrange(3)
        places = [0, *self._random.sample(range(1, count), len(descriptors) - 1)]
        address = self._room.take(16 * count)
        self.memory.poke(address, self._random.randbytes(16 * count))
        self._link(address, places, descriptors)
        return address, 16 * count

    def _describe(self, descriptors: list[tuple[int, int, int]]) -> list[int]:
        heads = [self._free.pop() for _ in descriptors]
        self._link(self.descriptors, heads, descriptors)
        return heads

    def _link(self, table: int, places: list[int], descriptors: list[tuple[int, int, int]]) -> None:
        following = [*places[1:], None]
        for place, after, (address, size, flags) in zip(
            places, following, descriptors, strict=True
        ):
            linked = (flags, 0x7777) if after is None else (flags | NEXT, after)
            entry = struct.pack("<QIHH", address, size, *linked)
            self.memory.poke(table + 16 * place, entry)

    @staticmethod
    def _passes(event: int, old: int, new: int) -> bool:
        """Step by step, where the specification has a formula."""
        while old != new:
            if old == event:
                return True
            old = (old + 1) % 65536
        return False

    def _word(self, address: int) -> int:
        return int.from_bytes(self.memory.peek(address, 2), "little")

    def _put_word(self, address: int, word: int) -> None:
        self.memory.poke(address, word.to_bytes(2, "little"))
