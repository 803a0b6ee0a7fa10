"""The device's side of the ring: hostile chains are refused, and who asked to hear is heard."""

import itertools
import struct
from collections.abc import Iterable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.devices import Words, read_words
from vdpad.errors import VdpadError
from vdpad.virtio.device_ring import BadChain, Chain, DeviceRing
from vdpad.virtio.split_ring import DESCRIPTOR, Region, lay_out, wants_event

SIZE = 8
MEMORY = Region(0x100000, 2048)
GEOMETRY = lay_out(SIZE, MEMORY)
BUFFERS = GEOMETRY.buffers.iova
NEXT, WRITE, INDIRECT = 1, 2, 4

with_and_without_event_idx = pytest.mark.parametrize(
    "event_idx", [False, True], ids=["flags", "event_idx"]
)


class Descriptor(NamedTuple):
    """As it stands in the table."""

    address: int
    length: int
    flags: int
    following: int = 0


class Board:
    """A ring in plain memory, and a driver that writes whatever it likes."""

    def __init__(self, *, event_idx: bool = False, start_index: int = 0) -> None:
        self.memory = bytearray(MEMORY.size)
        self.ring = DeviceRing(
            memoryview(self.memory), GEOMETRY, event_idx=event_idx, start_index=start_index
        )
        self._index = start_index

    @property
    def words(self) -> Words:
        return read_words(bytes(self.memory), GEOMETRY)

    def describe(self, index: int, descriptor: Descriptor) -> None:
        DESCRIPTOR.pack_into(self.memory, index * DESCRIPTOR.size, *descriptor)

    def offer(self, *heads: int) -> None:
        """Makes chains available."""
        available = GEOMETRY.available - MEMORY.iova
        for head in heads:
            at = available + 4 + 2 * (self._index % SIZE)
            struct.pack_into("<H", self.memory, at, head)
            self._index = (self._index + 1) & 0xFFFF
        struct.pack_into("<H", self.memory, available + 2, self._index)

    def put_word(self, address: int, word: int) -> None:
        struct.pack_into("<H", self.memory, address - MEMORY.iova, word & 0xFFFF)

    def used(self) -> list[tuple[int, int]]:
        return list(
            struct.iter_unpack("<II", self.memory[GEOMETRY.used - MEMORY.iova + 4 :][: 8 * SIZE])
        )


def _command(board: Board, head: int, readable: bytes) -> None:
    """An honest chain of two descriptors."""
    at = BUFFERS + 32 * head
    start = at - MEMORY.iova
    board.memory[start : start + len(readable)] = readable
    board.describe(head, Descriptor(at, len(readable), NEXT, head + 1))
    board.describe(head + 1, Descriptor(at + 31, 1, WRITE))


# --- what is taken ---


@pytest.mark.parametrize("start_index", [0, 5, 65535])
def test_chains_are_taken_in_the_order_in_which_they_were_offered(start_index: int) -> None:
    board = Board(start_index=start_index)
    for head, readable in ((4, b"first"), (0, b"second")):
        _command(board, head, readable)
    board.offer(4, 0)
    ack = BUFFERS - MEMORY.iova + 31
    assert board.ring.take() == [
        Chain(4, b"first", ack + 128),
        Chain(0, b"second", ack),
    ]
    assert board.ring.take() == []


def test_a_command_may_lie_in_several_buffers() -> None:
    board = Board()
    _command(board, 0, b"one ")
    board.describe(1, Descriptor(BUFFERS + 4, 4, NEXT, 7))
    start = BUFFERS - MEMORY.iova
    board.memory[start : start + 8] = b"one two "
    board.describe(7, Descriptor(BUFFERS + 100, 9, WRITE | NEXT, 3))
    board.offer(0)
    assert board.ring.take() == [Chain(0, b"one two ", start + 100)]


def test_a_chain_may_have_nothing_to_read() -> None:
    board = Board()
    board.describe(2, Descriptor(BUFFERS, 1, WRITE))
    board.offer(2)
    assert board.ring.take() == [Chain(2, b"", BUFFERS - MEMORY.iova)]


def test_what_was_taken_is_a_copy() -> None:
    board = Board()
    _command(board, 0, b"before")
    board.offer(0)
    (chain,) = board.ring.take()
    board.memory[BUFFERS - MEMORY.iova] = 0
    assert chain.readable == b"before"


def test_buffers_may_reach_from_the_first_to_the_last_byte_of_the_memory() -> None:
    board = Board()
    board.describe(0, Descriptor(MEMORY.iova, MEMORY.size, NEXT, 1))
    board.describe(1, Descriptor(MEMORY.end - 1, 1, WRITE))
    board.offer(0)
    (chain,) = board.ring.take()
    assert (len(chain.readable), chain.ack_at) == (MEMORY.size, MEMORY.size - 1)


# --- hostile chains ---

GOOD = Descriptor(BUFFERS, 4, NEXT, 1)
ACK = Descriptor(BUFFERS + 100, 1, WRITE)

HOSTILE = {
    "before-the-memory": ([Descriptor(MEMORY.iova - 1, 4, NEXT, 1), ACK], "outside the memory"),
    "past-the-memory": ([Descriptor(MEMORY.end - 3, 4, NEXT, 1), ACK], "outside the memory"),
    "behind-the-memory": ([Descriptor(MEMORY.end, 1, NEXT, 1), ACK], "outside the memory"),
    "at-zero": ([Descriptor(0, 4, NEXT, 1), ACK], "outside the memory"),
    "wrapping": ([Descriptor((1 << 64) - 1, 4, NEXT, 1), ACK], "outside the memory"),
    "huge": ([Descriptor(BUFFERS, 0xFFFFFFFF, NEXT, 1), ACK], "outside the memory"),
    "empty": ([Descriptor(BUFFERS, 0, NEXT, 1), ACK], "a buffer of 0 bytes"),
    "ack-outside": ([GOOD, Descriptor(MEMORY.end, 1, WRITE)], "outside the memory"),
    "ack-empty": ([GOOD, Descriptor(BUFFERS, 0, WRITE)], "a buffer of 0 bytes"),
    "no-ack": ([Descriptor(BUFFERS, 4, 0)], "no device-writable byte"),
    "no-ack-in-two": ([GOOD, Descriptor(BUFFERS, 4, 0)], "no device-writable byte"),
    "next-past-the-ring": ([Descriptor(BUFFERS, 4, NEXT, SIZE)], f"descriptor {SIZE} in a ring"),
    "next-far-past": ([Descriptor(BUFFERS, 4, NEXT, 0xFFFF)], "descriptor 65535 in a ring"),
    "loop-of-one": ([Descriptor(BUFFERS, 4, NEXT, 0)], "no device-writable byte"),
    "loop-of-two": ([GOOD, Descriptor(BUFFERS, 4, NEXT, 0)], "no device-writable byte"),
    "indirect": ([Descriptor(BUFFERS, 32, INDIRECT)], "indirect"),
    "indirect-and-next": ([Descriptor(BUFFERS, 32, INDIRECT | NEXT, 1), ACK], "indirect"),
    "indirect-ack": ([GOOD, Descriptor(BUFFERS, 16, INDIRECT | WRITE)], "indirect"),
}


@with_and_without_event_idx
@pytest.mark.parametrize(("descriptors", "text"), HOSTILE.values(), ids=HOSTILE)
def test_a_chain_that_no_device_can_serve_is_refused(
    descriptors: Iterable[Descriptor], text: str, event_idx: bool
) -> None:
    board = Board(event_idx=event_idx)
    for index, descriptor in enumerate(descriptors):
        board.describe(index, descriptor)
    board.offer(0)
    with pytest.raises(BadChain, match=text) as refused:
        board.ring.take()
    assert isinstance(refused.value, VdpadError)


@pytest.mark.parametrize("head", [SIZE, SIZE + 1, 0xFFFF])
def test_a_head_past_the_ring_is_refused(head: int) -> None:
    board = Board()
    board.offer(head)
    with pytest.raises(BadChain, match=f"descriptor {head} in a ring of {SIZE}"):
        board.ring.take()


@pytest.mark.parametrize("count", [SIZE + 1, 32768, 65535])
def test_more_chains_than_the_ring_has_entries_are_refused(count: int) -> None:
    board = Board()
    board.put_word(GEOMETRY.available + 2, count)
    with pytest.raises(BadChain, match=f"{count} chains available in a ring of {SIZE}"):
        board.ring.take()


_DESCRIPTORS = st.builds(
    Descriptor,
    st.integers(MEMORY.iova - 8, MEMORY.end + 8) | st.integers(0, (1 << 64) - 1),
    st.integers(0, 64) | st.integers(0, 0xFFFFFFFF),
    st.integers(0, 7),
    st.integers(0, SIZE),
)


@given(st.lists(_DESCRIPTORS, min_size=SIZE, max_size=SIZE), st.integers(0, SIZE))
def test_whatever_the_driver_wrote_an_ack_stays_inside_the_memory(
    descriptors: list[Descriptor], head: int
) -> None:
    board = Board()
    for index, descriptor in enumerate(descriptors):
        board.describe(index, descriptor)
    board.offer(head)
    try:
        (chain,) = board.ring.take()
    except BadChain:
        return
    assert 0 <= chain.ack_at < MEMORY.size
    assert len(chain.readable) <= SIZE * MEMORY.size


# --- what is returned ---


@pytest.mark.parametrize("start_index", [0, 7, 65535])
def test_used_elements_follow_the_index(start_index: int) -> None:
    board = Board(start_index=start_index)
    for head in range(SIZE + 3):
        board.ring.put(head, 1)
    expected = {(start_index + head) % SIZE: (head, 1) for head in range(SIZE + 3)}
    assert board.used() == [expected[slot] for slot in range(SIZE)]
    assert board.words.used_index == (start_index + SIZE + 3) % 65536


def test_an_ack_is_one_byte() -> None:
    board = Board()
    _command(board, 0, b"x")
    board.offer(0)
    (chain,) = board.ring.take()
    before = bytes(board.memory)
    board.ring.write_ack(chain, 7)
    changed = [at for at in range(len(before)) if before[at] != board.memory[at]]
    assert changed == [chain.ack_at]


def test_running_ahead_shows_more_than_was_ever_available() -> None:
    board = Board()
    board.ring.put(0, 1)
    board.ring.run_ahead()
    board.ring.put(2, 1)
    assert board.words.used_index == 2 + SIZE


# --- notifications ---


def test_a_new_device_asks_to_hear_the_first_doorbell() -> None:
    assert Board(start_index=7).words.used_flags == 0
    assert Board(event_idx=True, start_index=7).words.avail_event == 7


def test_without_event_idx_a_working_device_wants_no_doorbell_and_an_idle_one_does() -> None:
    board = Board()
    board.ring.take()
    assert board.words.used_flags == 1
    assert board.ring.idle()
    assert board.words.used_flags == 0


@pytest.mark.parametrize("start_index", [0, 65535])
def test_with_event_idx_an_idle_device_wants_the_very_next_doorbell_only(start_index: int) -> None:
    board = Board(event_idx=True, start_index=start_index)
    _command(board, 0, b"x")
    _command(board, 2, b"y")
    board.offer(0, 2)
    board.ring.take()
    # While it works: nothing that is published next rings.
    now = (start_index + 2) % 65536
    assert not wants_event(board.words.avail_event, (now + 1) % 65536, now)
    assert board.ring.idle()
    assert board.words.avail_event == now
    assert wants_event(board.words.avail_event, (now + 1) % 65536, now)


@with_and_without_event_idx
def test_a_device_is_not_idle_where_something_has_come_meanwhile(event_idx: bool) -> None:
    board = Board(event_idx=event_idx)
    _command(board, 0, b"x")
    board.offer(0)
    assert not board.ring.idle()


@pytest.mark.parametrize(("flags", "wanted"), [(0, True), (1, False)])
def test_without_event_idx_the_driver_s_flag_silences_interrupts(flags: int, wanted: bool) -> None:
    board = Board()
    board.put_word(GEOMETRY.available, flags)
    assert not board.ring.wants_interrupt()  # nothing was returned
    board.ring.put(0, 1)
    assert board.ring.wants_interrupt() is wanted
    assert not board.ring.wants_interrupt()  # nothing more was


@pytest.mark.parametrize("start_index", [0, 65533, 65535])
@pytest.mark.parametrize("returned", [[1, 1, 1, 1], [4], [3, 2], [1, 6]])
def test_with_event_idx_the_driver_hears_of_the_one_it_asked_for(
    start_index: int, returned: list[int]
) -> None:
    for asked in range(8):
        board = Board(event_idx=True, start_index=start_index)
        used_event = GEOMETRY.available + 4 + 2 * SIZE
        board.put_word(used_event, start_index + asked)
        ends = list(itertools.accumulate(returned))
        for begin, end in zip([0, *ends], ends, strict=False):
            for _ in range(begin, end):
                board.ring.put(0, 1)
            assert board.ring.wants_interrupt() is (begin <= asked < end)


def test_a_released_ring_lets_its_memory_go() -> None:
    memory = bytearray(MEMORY.size)
    view = memoryview(memory)
    ring = DeviceRing(view, GEOMETRY, event_idx=False, start_index=0)
    ring.release()
    view.release()
    memory.extend(b"more")  # raises BufferError while anybody looks at it
