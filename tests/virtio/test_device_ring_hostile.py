"""Chains that no device can serve are refused, and said why."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.marks import with_and_without_event_idx
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
from vdpad.errors import VdpadError
from vdpad.virtio.chains import BadChain

# --- hostile chains ---

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
) | st.builds(
    Descriptor,
    st.sampled_from([TABLE, TABLE + 16, BUFFERS]),
    st.sampled_from([16, 32, 64, 128]),
    st.integers(0, 7),
    st.integers(0, SIZE),
)
_TABLES = st.lists(_DESCRIPTORS, min_size=SIZE, max_size=SIZE)


@given(_TABLES, _TABLES, st.integers(0, SIZE), st.booleans())
def test_whatever_the_driver_wrote_an_ack_stays_inside_the_memory(
    descriptors: list[Descriptor], table: list[Descriptor], head: int, indirect: bool
) -> None:
    board = Board(indirect=indirect)
    for index, descriptor in enumerate(descriptors):
        board.describe(index, descriptor)
    board.table(TABLE, *table)
    board.offer(head)
    try:
        (chain,) = board.ring.take()
    except BadChain:
        return
    for address, size in chain.writable:
        assert MEMORY.iova <= address < address + size <= MEMORY.end
    assert len(chain.readable) <= SIZE * MEMORY.size


def test_a_readable_buffer_behind_a_writable_one_is_refused() -> None:
    board = Board()
    board.describe(0, Descriptor(BUFFERS, 1, WRITE | NEXT, 1))
    board.describe(1, Descriptor(BUFFERS + 7, 4, 0))
    board.offer(0)
    with pytest.raises(BadChain, match=f"chain 0: .* got one at {BUFFERS + 7:#x} behind them"):
        board.ring.take()


def test_a_loop_of_writable_buffers_is_refused() -> None:
    board = Board()
    board.describe(0, Descriptor(BUFFERS, 1, WRITE | NEXT, 0))
    board.offer(0)
    with pytest.raises(BadChain, match=f"expected an end within {SIZE} descriptors, got a loop"):
        board.ring.take()


def test_chains_before_a_bad_one_are_taken_first() -> None:
    board = Board()
    board.command(0, b"good")
    board.command(4, b"behind")
    board.offer(0, 2, 4)
    assert [chain.readable for chain in board.ring.take()] == [b"good"]
    for _ in range(2):
        with pytest.raises(BadChain, match="chain 2: "):
            board.ring.take()
    assert board.ring.next_available == 1


def test_chains_in_flight_and_new_ones_must_fit_the_ring() -> None:
    board = Board()
    board.command(0, b"x")
    board.offer(*[0] * SIZE)
    assert len(board.ring.take()) == SIZE
    board.ring.put(0, 1)
    board.offer(0)
    assert len(board.ring.take()) == 1
    board.offer(0)
    expected = f"beside the {SIZE} in flight, got 1 chains available in a ring of {SIZE}"
    with pytest.raises(BadChain, match=expected):
        board.ring.take()


# --- indirect tables ---

MOST = 1024
"""How many descriptors a table may have for a ring that has fewer."""

HOSTILE_TABLES = {
    "outside": (Descriptor(MEMORY.end, 32, INDIRECT), [], "outside the memory"),
    "half-outside": (Descriptor(MEMORY.end - 16, 32, INDIRECT), [], "outside the memory"),
    "empty": (Descriptor(TABLE, 0, INDIRECT), [], "got 0 bytes"),
    "no-whole-descriptor": (Descriptor(TABLE, 8, INDIRECT), [GOOD, ACK], "got 8 bytes"),
    "odd": (Descriptor(TABLE, 40, INDIRECT), [GOOD, ACK], "got 40 bytes"),
    "too-long": (Descriptor(TABLE, 16 * MOST + 16, INDIRECT), [GOOD, ACK], "got 16400 bytes"),
    "huge": (Descriptor(TABLE, 0xFFFFFFF0, INDIRECT), [GOOD, ACK], "got 4294967280 bytes"),
    "another-behind": (
        Descriptor(TABLE, 32, INDIRECT | NEXT, 1),
        [GOOD, ACK],
        "got one with another behind it",
    ),
    "nested": (TABLE_OF_TWO, [GOOD, TABLE_OF_TWO], "in an indirect table, got an indirect"),
    "nested-first": (TABLE_OF_TWO, [TABLE_OF_TWO, ACK], "in an indirect table, got an indirect"),
    "loop": (TABLE_OF_TWO, [GOOD, Descriptor(BUFFERS, 4, NEXT, 0)], "within 2 .* got a loop"),
    "next-past-it": (
        TABLE_OF_TWO,
        [Descriptor(BUFFERS, 4, NEXT, 2), ACK],
        "descriptor 2 in an indirect table of 2",
    ),
    "buffer-outside": (TABLE_OF_TWO, [Descriptor(0, 4, NEXT, 1), ACK], "outside the memory"),
    "buffer-empty": (TABLE_OF_TWO, [Descriptor(BUFFERS, 0, NEXT, 1), ACK], "a buffer of 0 bytes"),
    "no-ack": (TABLE_OF_TWO, [GOOD, Descriptor(BUFFERS, 4, 0)], "no device-writable byte"),
    "readable-last": (
        TABLE_OF_TWO,
        [Descriptor(BUFFERS, 1, WRITE | NEXT, 1), Descriptor(BUFFERS, 4, 0)],
        "behind them",
    ),
}


@pytest.mark.parametrize(("first", "table", "text"), HOSTILE_TABLES.values(), ids=HOSTILE_TABLES)
@pytest.mark.parametrize("behind_a_buffer", [False, True])
def test_an_indirect_table_that_no_device_can_serve_is_refused(
    first: Descriptor, table: Iterable[Descriptor], text: str, behind_a_buffer: bool
) -> None:
    board = Board(indirect=True)
    board.table(TABLE, *table)
    board.describe(3, Descriptor(BUFFERS + 200, 4, NEXT, 0))
    board.describe(0, first)
    board.offer(3 if behind_a_buffer else 0)
    with pytest.raises(BadChain, match=text):
        board.ring.take()
