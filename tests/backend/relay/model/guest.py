"""The guest's driver of the model. Its steps yield whether there was something to do."""

import struct
from collections.abc import Iterator

from tests.backend.relay.model.board import (
    BASE,
    BUFFER,
    BUFFERS_PER_ENTRY,
    EVENT,
    FLAGS,
    INDEX,
    Board,
    Filled,
    Wrong,
)
from vdpad.virtio.split_ring import DESCRIPTOR, distance

_Chain = list[tuple[int, int]]
"""Its descriptors, and the buffer of each."""


class Guest:
    """Makes buffers available, and looks at each that comes back."""

    def __init__(self, board: Board) -> None:
        self._board = board
        size = board.ways.size
        self._free_heads = list(range(size))
        self._free_buffers = list(range(BUFFERS_PER_ENTRY * size))
        self._lent: dict[int, _Chain] = {}
        """By the chain's head."""
        self._published = self._consumed = board.ways.first_index
        self._steps = self._drive()

    @property
    def in_flight(self) -> int:
        """How many chains have not come back."""
        return distance(self._published, self._consumed)

    def step(self) -> bool:
        """One access; whether there was any."""
        return next(self._steps)

    def _drive(self) -> Iterator[bool]:
        board = self._board
        while True:
            if not board.ways.event_idx:
                board.available[FLAGS] = 1
                yield True
            yield from self._poll()
            yield from self._sleep()

    def _poll(self) -> Iterator[bool]:
        """Until it goes to sleep, which one that polls all the time does not."""
        board = self._board
        sleeps = not board.ways.polls
        while True:
            if board.guests[INDEX] != self._consumed:
                yield from self._consume()
            elif self._free_heads and not board.at_rest and board.chance(0.6):
                yield from self._publish()
            elif sleeps and board.chance(0.3):
                return
            else:
                yield False

    # --- making available ---

    def _publish(self) -> Iterator[bool]:
        board = self._board
        for _ in range(board.random.randint(1, len(self._free_heads))):
            if self._free_heads:
                head = self._chain()
                board.available[2 + self._published % board.ways.size] = head
                self._published = (self._published + 1) & 0xFFFF
        yield True
        old, board.available[INDEX] = board.available[INDEX], self._published
        yield True
        if board.wants(board.guests, old, self._published):
            board.kick()

    def _chain(self) -> int:
        """Describes one of free descriptors, each with a buffer; its head."""
        board = self._board
        count = 2 if board.ways.chained and len(self._free_heads) > 1 else 1
        chain = [
            (self._take(self._free_heads), self._take(self._free_buffers)) for _ in range(count)
        ]
        for n, (at, buffer) in enumerate(chain):
            last = n + 1 == count
            # The first of two holds a header and little more.
            size, flags, after = (BUFFER, 2, 0) if last else (16, 3, chain[n + 1][0])
            entry = (BASE + board.buffer_at(buffer), size, flags, after)
            DESCRIPTOR.pack_into(board.descriptors, DESCRIPTOR.size * at, *entry)
        self._lent[chain[0][0]] = chain
        return chain[0][0]

    def _take(self, free: list[int]) -> int:
        return free.pop(self._board.random.randrange(len(free)))

    # --- what comes back ---

    def _consume(self) -> Iterator[bool]:
        board = self._board
        upto = board.guests[INDEX]
        yield True
        if distance(upto, self._consumed) > board.ways.size:
            raise Wrong(f"the guest finds a used index {upto} after {self._consumed}")
        follow = 0
        while self._consumed != upto:
            at = 2 + 4 * (self._consumed % board.ways.size)
            head, length = struct.unpack("<II", board.guests[at : at + 4].tobytes())
            for each in self._batch(head):
                if each not in board.filled:
                    raise Wrong(f"the guest finds a used element {each} that was not returned")
                follow = self._collect(each, length, board.filled.pop(each))
        if follow:
            raise Wrong(f"the guest finds a packet without its last {follow} buffers")

    def _batch(self, head: int) -> list[int]:
        """The chains that this one stands for, itself the last."""
        if not self._board.ways.skips:
            return [head]
        order = [*self._lent]
        if head not in order:
            raise Wrong(f"the guest finds a used element {head} that it has not lent")
        return order[: order.index(head) + 1]

    def _collect(self, head: int, length: int, filled: Filled) -> int:
        """How many more buffers its packet has."""
        chain = self._lent.pop(head)
        at = self._board.buffer_at(chain[0][1])
        if struct.unpack_from("<I", self._board.bytes, at) != (filled.version,) or not length:
            raise Wrong("the guest finds a packet that is not what the device wrote")
        self._free_heads += [each for each, _ in chain]
        self._free_buffers += [buffer for _, buffer in chain]
        self._consumed = (self._consumed + 1) & 0xFFFF
        return filled.follow

    # --- waiting ---

    def _sleep(self) -> Iterator[bool]:
        """Asks to be called, looks once more, and waits."""
        board = self._board
        board.called = False
        later = 0
        if board.ways.event_idx:
            later = board.random.randrange(self.in_flight) if self.in_flight else 0
            board.available[EVENT] = (self._consumed + later) & 0xFFFF
        else:
            board.available[FLAGS] = 0
        yield True
        if distance(board.guests[INDEX], self._consumed) > later:
            return
        while not board.called:
            yield False
        yield True
