"""The device's side of a ring and its memory: how much is read, what changes, what is none."""

import mmap
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from tests.virtio.board import (
    ACK,
    BUFFERS,
    GEOMETRY,
    GOOD,
    INDIRECT,
    MEMORY,
    NEXT,
    SIZE,
    TABLE,
    TABLE_OF_TWO,
    WRITE,
    Board,
    Descriptor,
)
from vdpad.virtio.chains import BadChain
from vdpad.virtio.device_ring import DeviceRing
from vdpad.virtio.device_side import MAX_READABLE, MOST_BUFFERS, Chain
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import BadGeometry, Region
from vdpad.virtio.split_ring import DESCRIPTOR, SplitAddresses

# --- too much ---

ROOMY = Region(0x10000000, 2 * MAX_READABLE)


def _roomy(board: Board) -> Board:
    board.guest_memory.add(ROOMY, memoryview(bytearray(ROOMY.size)))
    return board


@pytest.mark.parametrize("cuts", [1, 4])
def test_a_chain_may_have_a_mebibyte_to_read_and_no_more(cuts: int) -> None:
    board = _roomy(Board(indirect=True))
    size = MAX_READABLE // cuts
    buffers = [Descriptor(ROOMY.iova, size, NEXT, at + 1) for at in range(cuts)]
    board.table(TABLE, *buffers, ACK)
    board.describe(0, Descriptor(TABLE, 16 * (cuts + 1), INDIRECT))
    board.offer(0)
    (chain,) = board.ring.take()
    assert len(chain.readable) == MAX_READABLE
    board.table(TABLE, Descriptor(ROOMY.iova, size + 1, NEXT, 1))
    board.offer(0)
    with pytest.raises(BadChain, match=f"at most {MAX_READABLE} readable bytes, got more"):
        board.ring.take()


def test_what_is_taken_at_once_is_bounded() -> None:
    board = _roomy(Board())
    size = MAX_READABLE // 3 + 1
    board.describe(0, Descriptor(ROOMY.iova, size, NEXT, 1))
    board.describe(1, ACK)
    board.offer(*[0] * SIZE)
    taken: list[Chain] = []
    while chains := board.ring.take():
        assert sum(len(chain.readable) for chain in chains) < 2 * MAX_READABLE
        assert not board.ring.idle() or len(taken) + len(chains) == SIZE
        taken += chains
    assert len(taken) == SIZE


def test_buffers_of_a_byte_are_bounded_too() -> None:
    """By a hundred thousand of them who takes them would be kept for a second."""
    board = _roomy(Board(indirect=True))
    many = MOST_BUFFERS // 4
    buffers = [Descriptor(ROOMY.iova, 1, NEXT, at + 1) for at in range(many - 1)]
    # At the end of the memory for tables there is room for so many.
    table = Region(ROOMY.iova + (1 << 16), 16 * many)
    board.guest_memory.write(table.iova, b"".join(map(_packed, [*buffers, ACK])))
    board.describe(0, Descriptor(table.iova, table.size, INDIRECT))
    board.offer(*[0] * SIZE)
    taken = []
    while chains := board.ring.take():
        taken.append(len(chains))
    assert taken == [4] * (SIZE // 4)


def _packed(descriptor: Descriptor) -> bytes:
    return DESCRIPTOR.pack(*descriptor)


# --- memory that changes ---


def test_an_answer_is_refused_where_its_memory_has_gone() -> None:
    board = _roomy(Board())
    board.describe(0, Descriptor(BUFFERS, 1, WRITE | NEXT, 1))
    board.describe(1, Descriptor(ROOMY.iova, 16, WRITE))
    board.offer(0)
    (chain,) = board.ring.take()
    board.guest_memory.remove(ROOMY)
    with pytest.raises(BadChain, match=r"chain 0: .*outside the memory"):
        board.ring.answer(chain, bytes(17))
    board.ring.answer(chain, b"\7")
    board.ring.put(chain.head, 1)
    assert board.used()[0] == (0, 1)


@pytest.mark.parametrize("indirect", [False, True])
def test_a_descriptor_that_changes_meanwhile_is_looked_at_once(indirect: bool) -> None:
    with mmap.mmap(-1, MEMORY.size) as shared, _on(shared, indirect=indirect) as board:
        board.table(TABLE, GOOD, ACK)
        board.describe(0, TABLE_OF_TWO if indirect else GOOD)
        board.describe(1, ACK)
        changing = (TABLE if indirect else MEMORY.iova) - MEMORY.iova
        taken = refused = 0
        with _flipping(shared, changing, GOOD, Descriptor(BUFFERS, 4096, NEXT, 1)):
            while taken < 20000 or refused < 100:
                board.offer(0)
                while not (chains := _taken(board)):
                    refused += 1
                assert [len(chain.readable) for chain in chains] == [GOOD.length]
                board.ring.put(0, 0)
                taken += 1


@contextmanager
def _on(shared: mmap.mmap, *, indirect: bool) -> Iterator[Board]:
    board = Board(indirect=indirect, memory=shared)
    try:
        yield board
    finally:
        board.ring.release()
        board.guest_memory.release()


def _taken(board: Board) -> list[Chain]:
    try:
        return board.ring.take()
    except BadChain:
        return []


@contextmanager
def _flipping(shared: mmap.mmap, at: int, *descriptors: Descriptor) -> Iterator[None]:
    """A process that writes one descriptor and the other, as fast as it can."""
    images = [DESCRIPTOR.pack(*each) for each in descriptors]
    child = os.fork()
    if not child:
        while True:
            for image in images:
                shared[at : at + len(image)] = image
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# --- rings that are none ---

RING = SplitAddresses(SIZE, 0x200000, 0x200100, 0x200200)
ONE, TWO = Region(0x200000, 0x210), Region(0x200210, 0x1000)

NO_RINGS = {
    "size": (replace(RING, size=12), "ring.size: expected a power of two up to 32768, got 12"),
    "no-size": (replace(RING, size=0), "ring.size: .*got 0"),
    "misaligned": (replace(RING, descriptors=0x200008), "ring.descriptors: expected a multiple"),
    "odd": (replace(RING, available=0x200101), "ring.available: expected a multiple of 2"),
    "outside": (replace(RING, descriptors=0x300000), "ring.descriptors: .*outside the memory"),
    "past-the-end": (replace(RING, available=0x201200), "ring.available: .*outside the memory"),
    "across": (RING, r"ring.used: expected \[0x200200, 0x200246\) within one region, got it in 2"),
}


@pytest.mark.parametrize(("addresses", "text"), NO_RINGS.values(), ids=NO_RINGS)
def test_a_ring_that_is_none_is_refused_and_its_memory_let_go(
    addresses: SplitAddresses, text: str
) -> None:
    memory = GuestMemory()
    data = bytearray(ONE.size), bytearray(TWO.size)
    for region, each in zip((ONE, TWO), data, strict=True):
        memory.add(region, memoryview(each))
    with pytest.raises(BadGeometry, match=text) as refused:
        DeviceRing(memory, addresses, next_available=0, event_idx=False, indirect=True)
    memory.release()
    for each in data:
        each.clear()  # BufferError while anybody looks at it
    assert refused


@pytest.mark.parametrize(
    ("next_available", "used_index", "fits"),
    [(0, 0, True), (SIZE, 0, True), (2, 65533, True), (SIZE + 1, 0, False), (0, 1, False)],
)
def test_a_ring_begins_with_no_more_in_flight_than_it_has_entries(
    next_available: int, used_index: int, fits: bool
) -> None:
    board = Board()
    board.put_word(GEOMETRY.used + 2, used_index)
    board.put_word(GEOMETRY.available + 2, next_available)
    begin = partial(
        DeviceRing, board.guest_memory, GEOMETRY.addresses, event_idx=False, indirect=False
    )
    if not fits:
        expected = f"available index {next_available}, got {used_index}"
        with pytest.raises(BadGeometry, match=expected):
            begin(next_available=next_available)
        return
    ring = begin(next_available=next_available)
    assert ring.take() == []
    ring.put(3, 1)
    assert board.words.used_index == (used_index + 1) % 65536
    ring.release()


def test_what_was_refused_keeps_no_memory() -> None:
    """A traceback keeps the variables of all its functions."""
    memory = bytearray(MEMORY.size)
    board = Board(indirect=True, memory=memory)
    board.table(TABLE, GOOD, Descriptor(0, 4, WRITE))
    board.describe(0, TABLE_OF_TWO)
    board.offer(0)
    with pytest.raises(BadChain) as refused:
        board.ring.take()
    board.ring.release()
    board.guest_memory.release()
    memory.clear()  # BufferError while anybody looks at it
    assert refused.value.__traceback__ is not None
