"""The device's side of the ring: what is taken and returned, and who hears of it."""

import itertools

import pytest

from tests.support.marks import with_and_without_event_idx
from tests.virtio.board import (
    BUFFERS,
    GEOMETRY,
    INDIRECT,
    MEMORY,
    NEXT,
    SIZE,
    TABLE,
    WRITE,
    Board,
    Descriptor,
)
from vdpad.virtio.chains import BadChain
from vdpad.virtio.device_side import Chain
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import DESCRIPTOR, wants_event

# --- what is taken ---


@pytest.mark.parametrize("start_index", [0, 5, 65535])
def test_chains_are_taken_in_the_order_in_which_they_were_offered(start_index: int) -> None:
    board = Board(start_index=start_index)
    for head, readable in ((4, b"first"), (0, b"second")):
        board.command(head, readable)
    board.offer(4, 0)
    ack = BUFFERS + 31
    assert board.ring.take() == [
        Chain(4, b"first", (Region(ack + 128, 1),), 2),
        Chain(0, b"second", (Region(ack, 1),), 2),
    ]
    assert board.ring.take() == []


def test_a_command_may_lie_in_several_buffers() -> None:
    board = Board()
    board.command(0, b"one ")
    board.describe(1, Descriptor(BUFFERS + 4, 4, NEXT, 7))
    start = BUFFERS - MEMORY.iova
    board.memory[start : start + 8] = b"one two "
    board.describe(7, Descriptor(BUFFERS + 100, 9, WRITE | NEXT, 3))
    board.describe(3, Descriptor(BUFFERS + 200, 1, WRITE))
    board.offer(0)
    writable = (Region(BUFFERS + 100, 9), Region(BUFFERS + 200, 1))
    assert board.ring.take() == [Chain(0, b"one two ", writable, 4)]


def test_a_chain_may_have_nothing_to_read() -> None:
    board = Board()
    board.describe(2, Descriptor(BUFFERS, 1, WRITE))
    board.offer(2)
    assert board.ring.take() == [Chain(2, b"", (Region(BUFFERS, 1),), 1)]


def test_what_was_taken_is_a_copy() -> None:
    board = Board()
    board.command(0, b"before")
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
    assert (len(chain.readable), chain.writable) == (MEMORY.size, (Region(MEMORY.end - 1, 1),))


@pytest.mark.parametrize("writable", [0, WRITE])
@pytest.mark.parametrize("behind_a_buffer", [False, True])
def test_an_indirect_table_stands_for_its_chain(behind_a_buffer: bool, writable: int) -> None:
    board = Board(indirect=True)
    start = BUFFERS - MEMORY.iova
    board.memory[start : start + 9] = b"one two 3"
    board.table(
        TABLE,
        Descriptor(BUFFERS + 4, 4, NEXT, 3),
        Descriptor(0, 0, INDIRECT),  # of no chain
        Descriptor(BUFFERS + 50, 7, WRITE),
        Descriptor(BUFFERS + 8, 1, NEXT, 2),
    )
    board.describe(5, Descriptor(BUFFERS, 4, NEXT, 2))
    board.describe(2, Descriptor(TABLE, 4 * 16, INDIRECT | writable, 0xFFFF))
    head, readable = (5, b"one two 3") if behind_a_buffer else (2, b"two 3")
    board.offer(head)
    buffers = (Region(BUFFERS + 50, 7),)
    assert board.ring.take() == [Chain(head, readable, buffers, 2 if behind_a_buffer else 1)]


def test_an_indirect_table_may_be_longer_than_a_small_ring() -> None:
    board = Board(indirect=True)
    board.guest_memory.add(Region(0x200000, 1024 * 16), memoryview(bytearray(1024 * 16)))
    for at in range(1023):
        entry = DESCRIPTOR.pack(BUFFERS + at % 10, 1, NEXT, at + 1)
        board.guest_memory.write(0x200000 + 16 * at, entry)
    board.guest_memory.write(0x200000 + 16 * 1023, DESCRIPTOR.pack(BUFFERS + 10, 1, WRITE, 0))
    board.describe(0, Descriptor(0x200000, 1024 * 16, INDIRECT))
    board.offer(0)
    (chain,) = board.ring.take()
    assert len(chain.readable) == 1023


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
    board.command(0, b"x")
    board.offer(0)
    (chain,) = board.ring.take()
    before = bytes(board.memory)
    board.ring.answer(chain, b"\7")
    changed = [at for at in range(len(before)) if before[at] != board.memory[at]]
    assert changed == [chain.writable[0].iova - MEMORY.iova]


def test_an_answer_fills_the_writable_buffers_in_their_order() -> None:
    board = Board()
    for index, (at, length) in enumerate([(40, 1), (20, 3), (30, 2)]):
        flags = WRITE | NEXT if index < 2 else WRITE
        board.describe(index, Descriptor(BUFFERS + at, length, flags, index + 1))
    board.offer(0)
    (chain,) = board.ring.take()
    for answer in (b"", b"A", b"ABCDE", b"ABCDEF"):
        start = BUFFERS - MEMORY.iova
        board.memory[start : start + 64] = b"." * 64
        board.ring.answer(chain, answer)
        filled = answer.decode().ljust(6, ".")
        expected = f"{'.' * 20}{filled[1:4]}{'.' * 7}{filled[4:]}{'.' * 8}{filled[0]}{'.' * 23}"
        assert board.memory[start : start + 64] == expected.encode()


def test_an_answer_longer_than_the_writable_buffers_is_refused() -> None:
    board = Board()
    board.command(4, b"x")
    board.offer(4)
    (chain,) = board.ring.take()
    expected = "chain 4: expected room for an answer of 3 bytes, got 1 device-writable ones"
    with pytest.raises(BadChain, match=expected):
        board.ring.answer(chain, b"abc")


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
    board.command(0, b"x")
    board.command(2, b"y")
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
    board.command(0, b"x")
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
    board = Board(memory=memory)
    board.ring.release()
    board.guest_memory.release()
    memory.extend(b"more")  # raises BufferError while anybody looks at it
