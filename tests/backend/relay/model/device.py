"""The device of the model. Its steps yield whether there was something to do."""

import struct
from collections.abc import Iterator

from tests.backend.relay.model.board import (
    BASE,
    EVENT,
    FLAGS,
    INDEX,
    PAGE,
    TRANSMIT_PAGE,
    Board,
    Filled,
)
from vdpad.virtio.rings import DESC_F_NEXT
from vdpad.virtio.split_ring import DESCRIPTOR

_SHORT, _LONG = 100, 5000
"""Lengths of packets, in bytes; the longer takes two pages."""


class Device:
    """Takes buffers long before it fills them, and returns some at once that belong together."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._next_available = self._next_used = board.ways.first_index
        self._taken: list[tuple[int, list[tuple[int, int]]]] = []
        """Head, and where its buffers stand with their sizes."""
        self._versions = 0
        self._steady = True
        """It is not in the midst of returning something."""
        self._steps = self._serve(asleep=False)

    def step(self) -> bool:
        """One access; whether there was any."""
        return not self._board.suspended and next(self._steps)

    def suspend(self) -> None:
        """It stands still from now on, and hears of nothing."""
        while not self._steady:
            next(self._steps)
        self._board.suspended = True
        self._board.kicked = False

    def begin_anew(self) -> None:
        """At the used index, as after a reset: it takes anew what was in flight, once kicked."""
        self._taken = []
        self._next_available = self._next_used
        self._steps = self._serve(asleep=True)

    def _serve(self, *, asleep: bool) -> Iterator[bool]:
        board = self._board
        while True:
            if asleep:
                yield from self._sleep()
            if not board.ways.event_idx:
                board.used[FLAGS] = 1
                yield True
            yield from self._work()
            asleep = True

    def _work(self) -> Iterator[bool]:
        """Until there is nothing more to take, and it has asked to be kicked."""
        board = self._board
        while True:
            available = board.available[INDEX] != self._next_available
            if available and board.chance(0.5):
                self._take()
            elif self._taken and board.chance(0.5):
                yield from self._return()
            elif not available or board.chance(0.2):
                self._ask_for_kick()
                yield True
                if board.available[INDEX] == self._next_available:
                    return
                if not board.ways.event_idx:
                    board.used[FLAGS] = 1
            yield True

    def _ask_for_kick(self) -> None:
        board = self._board
        if board.ways.event_idx:
            board.used[EVENT] = self._next_available
        else:
            board.used[FLAGS] = 0

    def _sleep(self) -> Iterator[bool]:
        """Until it is kicked; packets come all the same."""
        board = self._board
        while not board.kicked:
            if self._taken and board.chance(0.6):
                yield from self._return()
                yield True
            else:
                yield False
        board.kicked = False

    def _take(self) -> None:
        board = self._board
        at = head = board.available[2 + self._next_available % board.ways.size]
        self._next_available = (self._next_available + 1) & 0xFFFF
        chain = []
        flags = DESC_F_NEXT
        while flags & DESC_F_NEXT:
            address, size, flags, at = DESCRIPTOR.unpack_from(
                board.descriptors, DESCRIPTOR.size * at
            )
            chain.append((address - BASE, size))
        self._taken.append((head, chain))

    def _return(self) -> Iterator[bool]:
        """Fills buffers with one packet and returns them together."""
        board = self._board
        self._steady = False
        count = board.random.randint(1, min(3, len(self._taken)))
        skips = board.ways.skips and board.random.random() < 0.5
        old = at = self._next_used
        for n in range(count):
            pick = 0 if board.ways.in_order else board.random.randrange(len(self._taken))
            head, chain = self._taken.pop(pick)
            skipped = skips and n + 1 < count
            length = self._fill(chain, whole=skipped)
            board.filled[head] = Filled(self._versions, count - 1 - n)
            yield True
            if not skipped:
                self._tell(old if skips else at, head, length)
            at = (at + 1) & 0xFFFF
            yield True
        self._next_used = board.used[INDEX] = at
        self._transmit()
        yield True
        if board.wants(board.available, old, at):
            board.device_calls()
        self._steady = True

    def _tell(self, index: int, head: int, length: int) -> None:
        board = self._board
        place = 2 + 4 * (index % board.ways.size)
        board.used[place : place + 4] = memoryview(struct.pack("<II", head, length)).cast("H")

    def _fill(self, chain: list[tuple[int, int]], *, whole: bool) -> int:
        """Writes a packet of some length, or all that there is room for; the length."""
        self._versions += 1
        left = length = self._board.random.choice((_SHORT, _LONG))
        if whole:
            left = length = sum(size for _, size in chain)
        for at, size in chain:
            here = min(size, left)
            for page in {at, at + (here - 4) // PAGE * PAGE}:
                struct.pack_into("<I", self._board.bytes, page, self._versions)
            left -= here
            if not left:
                break
        return length - left

    def _transmit(self) -> None:
        """Writes to a transmit queue's used ring, which is not relayed."""
        ring = self._board.page(TRANSMIT_PAGE)
        ring[0] = (ring[0] + 1) & 0xFF
