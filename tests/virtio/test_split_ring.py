"""The split ring: where its parts may lie, who wants an event, and what the driver writes where."""

import dataclasses
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdpad.errors import VdpadError
from vdpad.virtio.driver_ring import DriverRing, command_descriptors
from vdpad.virtio.rings import MAX_RING_SIZE, BadGeometry, Region
from vdpad.virtio.split_ring import USED_ELEMENT, SplitGeometry, distance, lay_out, wants_event

BASE = 0x100000
SIZES = [1 << power for power in range(16)]

# A ring of 8, with every part where it may be: table 128 bytes, available 22, used 70.
RING = SplitGeometry(
    size=8,
    memory=Region(BASE, 0x1000),
    descriptors=BASE,
    available=BASE + 0x100,
    used=BASE + 0x200,
    buffers=Region(BASE + 0x300, 0x100),
)


def _with(**changes: object) -> SplitGeometry:
    return dataclasses.replace(RING, **changes)  # type: ignore[arg-type]


# --- geometry ---


def test_a_good_geometry_passes() -> None:
    RING.check()


def test_the_parts_have_the_sizes_of_the_specification() -> None:
    sizes = {name: part.size for name, part in RING.parts().items()}
    assert sizes == {"descriptors": 128, "available": 22, "used": 70, "buffers": 0x100}


@pytest.mark.parametrize("size", SIZES)
def test_every_power_of_two_up_to_32768_can_be_laid_out(size: int) -> None:
    geometry = lay_out(size, Region(BASE, 1 << 21))
    geometry.check()
    assert geometry.buffers.end == BASE + (1 << 21)


@pytest.mark.parametrize("size", [-8, -1, 0, 3, 6, 7, 12, 32767, 32769, 65536, 1 << 40])
def test_a_size_that_no_ring_has_is_refused(size: int) -> None:
    with pytest.raises(BadGeometry, match=f"power of two up to {MAX_RING_SIZE}, got {size}"):
        _with(size=size).check()


@pytest.mark.parametrize(
    ("part", "alignment"), [("descriptors", 16), ("available", 2), ("used", 4)]
)
def test_a_misaligned_part_is_refused(part: str, alignment: int) -> None:
    start = getattr(RING, part)
    _with(**{part: start + alignment}).check()
    for off in range(1, alignment):
        with pytest.raises(BadGeometry, match=rf"ring\.{part}: expected a multiple of {alignment}"):
            _with(**{part: start + off}).check()


PARTS = {"descriptors": 128, "available": 22, "used": 70, "buffers": 0x100}


def _moved(part: str, iova: int) -> SplitGeometry:
    return _with(**{part: Region(iova, PARTS[part]) if part == "buffers" else iova})


@pytest.mark.parametrize("part", PARTS)
def test_a_part_may_end_where_the_memory_ends_and_not_a_step_further(part: str) -> None:
    step = {"descriptors": 16, "available": 2, "used": 4, "buffers": 1}[part]
    # The last place of all that is aligned and inside.
    last = (RING.memory.end - PARTS[part]) // step * step
    _moved(part, last).check()
    with pytest.raises(BadGeometry, match=rf"ring\.{part}: expected it inside"):
        _moved(part, last + step).check()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_before_the_memory_is_refused(part: str) -> None:
    with pytest.raises(BadGeometry, match=rf"ring\.{part}: expected it inside"):
        _moved(part, BASE - 16).check()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_at_the_end_of_all_addresses_does_not_wrap_into_the_memory(part: str) -> None:
    with pytest.raises(BadGeometry, match=rf"ring\.{part}: expected it inside"):
        _moved(part, (1 << 64) - 16).check()


@pytest.mark.parametrize(("moved", "onto"), list(itertools.permutations(PARTS, 2)))
def test_two_parts_in_one_place_are_refused(moved: str, onto: str) -> None:
    start = RING.parts()[onto].iova
    with pytest.raises(BadGeometry, match=r"overlaps"):
        _moved(moved, start).check()


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(PARTS, 2)))
def test_a_part_may_begin_where_another_ends_and_not_a_step_before(first: str, second: str) -> None:
    step = {"descriptors": 16, "available": 2, "used": 4, "buffers": 1}[second]
    at = BASE + 0x800
    end = at + PARTS[first]
    after = -(-end // step) * step
    moved = _moved(first, at)
    place = Region(after, PARTS[second]) if second == "buffers" else after
    dataclasses.replace(moved, **{second: place}).check()  # type: ignore[arg-type]
    before = Region(after - step, PARTS[second]) if second == "buffers" else after - step
    with pytest.raises(BadGeometry, match=rf"ring\.{first} .* overlaps ring\.{second}"):
        dataclasses.replace(moved, **{second: before}).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "memory",
    [
        Region(BASE, 0),
        Region((1 << 64) - 0x1000, 0x1001),
        Region(BASE, 1 << 64),
        Region(1 << 64, 0x1000),
    ],
)
def test_memory_that_is_empty_or_goes_past_all_addresses_is_refused(memory: Region) -> None:
    with pytest.raises(BadGeometry, match=r"ring\.memory"):
        _with(memory=memory).check()


def test_memory_may_end_with_the_last_address() -> None:
    lay_out(8, Region((1 << 64) - 0x1000, 0x1000)).check()


def test_memory_may_begin_at_zero() -> None:
    lay_out(8, Region(0, 0x1000)).check()


def test_memory_too_small_for_its_ring_is_refused() -> None:
    with pytest.raises(BadGeometry):
        lay_out(256, Region(BASE, 0x1000))


def test_a_bad_geometry_is_a_vdpad_error_and_a_value_error() -> None:
    assert issubclass(BadGeometry, VdpadError)
    assert issubclass(BadGeometry, ValueError)


_ADDRESSES = st.integers(BASE - 64, BASE + 600) | st.integers(0, (1 << 64) - 1)


@given(
    size=st.sampled_from([1, 2, 4, 8]),
    descriptors=_ADDRESSES,
    available=_ADDRESSES,
    used=_ADDRESSES,
    buffers=st.builds(Region, _ADDRESSES, st.integers(0, 300)),
)
def test_whatever_passes_has_its_parts_inside_the_memory_and_apart(
    size: int, descriptors: int, available: int, used: int, buffers: Region
) -> None:
    memory = Region(BASE, 600)
    geometry = SplitGeometry(size, memory, buffers, descriptors, available, used)
    try:
        geometry.check()
    except BadGeometry:
        return
    taken: set[int] = set()
    for part in geometry.parts().values():
        span = set(range(part.iova, part.end))
        assert span <= set(range(BASE, BASE + 600))
        assert not span & taken
        taken |= span


# --- indices ---


@pytest.mark.parametrize(
    ("later", "earlier", "gone"),
    [(0, 0, 0), (5, 3, 2), (2, 65534, 4), (65535, 0, 65535), (0, 1, 65535), (0x10005, 3, 2)],
)
def test_distance_wraps_with_the_index(later: int, earlier: int, gone: int) -> None:
    assert distance(later, earlier) == gone


def _passes(event: int, new: int, old: int) -> bool:
    """Virtio 1.4, 2.7.10, one step at a time: does any step of the index leave `event` behind?"""
    index = old
    while index != new:
        if index == event:
            return True
        index = (index + 1) % 65536
    return False


@given(
    old=st.integers(0, 65535),
    moved=st.integers(0, 40),
    event_off=st.integers(-45, 45),
)
def test_an_event_is_wanted_where_the_index_steps_past_it(
    old: int, moved: int, event_off: int
) -> None:
    new, event = (old + moved) % 65536, (old + event_off) % 65536
    assert wants_event(event, new, old) == _passes(event, new, old)


@pytest.mark.parametrize("old", [0, 1, 32767, 32768, 65500, 65535])
@pytest.mark.parametrize("moved", [0, 1, 32768, 65534, 65535])
def test_an_event_is_wanted_at_the_edges_too(old: int, moved: int) -> None:
    new = (old + moved) % 65536
    for event in {(new + off) % 65536 for off in (-2, -1, 0, 1)} | {old, (old - 1) % 65536}:
        assert wants_event(event, new, old) == _passes(event, new, old)


# --- descriptors ---


def test_a_command_s_descriptors_are_as_the_specification_lays_them_out() -> None:
    image = command_descriptors([(2, 0x1122334455667788, 9, 0x100)])
    assert image == bytes.fromhex(
        "8877665544332211 09000000 0100 0300"  # readable, with another behind it: 3
        "0001000000000000 01000000 0200 0000"  # one byte that the device writes
    )


# --- the driver's side ---


class Board:
    """A ring in plain memory, with the driver on it and the device's words at hand."""

    def __init__(self, size: int, *, event_idx: bool) -> None:
        self.geometry = lay_out(size, Region(BASE, 16 * size + 6 + 2 * size + 6 + 8 * size + 256))
        self.memory = bytearray(self.geometry.memory.size)
        self.ring = DriverRing(memoryview(self.memory), self.geometry, event_idx=event_idx)
        self.size = size

    def _at(self, address: int) -> int:
        return address - BASE

    def available(self) -> tuple[int, int, list[int], int]:
        """Flags, index, entries, used_event."""
        at = self._at(self.geometry.available)
        flags, index, *rest = struct.unpack_from(f"<{3 + self.size}H", self.memory, at)
        return flags, index, rest[:-1], rest[-1]

    def write_used(self, *, flags: int = 0, index: int = 0, event: int = 0) -> None:
        at = self._at(self.geometry.used)
        struct.pack_into("<HH", self.memory, at, flags, index)
        struct.pack_into("<H", self.memory, at + 4 + 8 * self.size, event)

    def write_elements(self) -> list[tuple[int, int]]:
        elements = [(100 + slot, 200 + slot) for slot in range(self.size)]
        for slot, element in enumerate(elements):
            at = self._at(self.geometry.used) + 4 + slot * USED_ELEMENT.size
            USED_ELEMENT.pack_into(self.memory, at, *element)
        return elements


def _heads(*heads: int) -> bytes:
    return struct.pack(f"<{len(heads)}H", *heads)


@pytest.mark.parametrize("event_idx", [False, True])
def test_taking_a_ring_writes_nothing(event_idx: bool) -> None:
    board = Board(8, event_idx=event_idx)
    assert not any(board.memory)


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
def test_heads_are_placed_by_the_index_modulo_the_size(size: int) -> None:
    for start in [*range(2 * size + 1), 65535, 65536 - size]:
        board = Board(size, event_idx=False)
        for count in range(1, size + 1):
            board.ring.place(start, _heads(*range(50, 50 + count)))
            entries = board.available()[2]
            assert [entries[(start + i) % size] for i in range(count)] == list(
                range(50, 50 + count)
            )


def test_placing_touches_no_entry_beside() -> None:
    board = Board(8, event_idx=False)
    board.ring.place(6, _heads(1, 2, 3, 4))
    assert board.available() == (0, 0, [3, 4, 0, 0, 0, 0, 1, 2], 0)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_used_elements_are_read_by_the_index_modulo_the_size(size: int) -> None:
    board = Board(size, event_idx=False)
    elements = board.write_elements()
    for start in [*range(2 * size + 1), 65535]:
        for count in range(size + 1):
            got = list(USED_ELEMENT.iter_unpack(board.ring.used_elements(start, count)))
            assert got == [elements[(start + i) % size] for i in range(count)]


def test_used_elements_are_a_copy() -> None:
    board = Board(4, event_idx=False)
    board.write_elements()
    before = board.ring.used_elements(2, 4)
    board.memory[:] = b"\xff" * len(board.memory)
    assert (104, 204) not in USED_ELEMENT.iter_unpack(before)
    assert USED_ELEMENT.unpack_from(before) == (102, 202)


@pytest.mark.parametrize(
    ("index", "stored"), [(0, 0), (7, 7), (65535, 65535), (65536, 0), (65541, 5)]
)
def test_the_published_index_is_kept_to_16_bits(index: int, stored: int) -> None:
    board = Board(8, event_idx=False)
    board.ring.publish(index)
    assert board.available()[1] == board.ring.available_index == stored


def test_the_used_index_is_the_device_s() -> None:
    board = Board(8, event_idx=False)
    board.write_used(index=65533)
    assert board.ring.used_index() == 65533


@pytest.mark.parametrize(("flags", "wanted"), [(0, True), (1, False), (2, True), (3, False)])
def test_without_event_idx_the_device_s_flag_silences_the_doorbell(
    flags: int, wanted: bool
) -> None:
    board = Board(8, event_idx=False)
    board.write_used(flags=flags, event=4)
    assert board.ring.wants_doorbell(7, 5) is wanted


@pytest.mark.parametrize(
    ("event", "wanted"), [(4, False), (5, True), (6, True), (7, False), (65535, False)]
)
def test_with_event_idx_the_doorbell_is_wanted_past_the_device_s_index(
    event: int, wanted: bool
) -> None:
    board = Board(8, event_idx=True)
    board.write_used(flags=1, event=event)  # the flag means nothing here
    assert board.ring.wants_doorbell(7, 5) is wanted


def test_without_event_idx_interrupts_are_asked_for_by_the_flag() -> None:
    board = Board(8, event_idx=False)
    board.ring.ask_for_no_interrupt(3)
    assert (board.available()[0], board.available()[3]) == (1, 0)
    board.ring.ask_for_interrupt(5)
    assert (board.available()[0], board.available()[3]) == (0, 0)


@pytest.mark.parametrize("start", [0, 1, 300, 65533, 65535])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_with_event_idx_an_interrupt_comes_with_the_last_of_so_many(start: int, count: int) -> None:
    board = Board(8, event_idx=True)
    board.ring.ask_for_interrupt(start + count)
    flags, _, _, used_event = board.available()
    assert flags == 0
    assert used_event == (start + count - 1) % 65536
    end = (start + count) % 65536
    assert wants_event(used_event, end, start)
    assert not wants_event(used_event, (end - 1) % 65536, start)


@pytest.mark.parametrize("start", [0, 1, 300, 65533, 65535])
def test_with_event_idx_no_interrupt_comes_for_a_whole_ring_after_that_was_asked(
    start: int,
) -> None:
    board = Board(8, event_idx=True)
    board.ring.ask_for_no_interrupt(start)
    used_event = board.available()[3]
    for old, new in itertools.combinations(range(9), 2):
        assert not wants_event(used_event, (start + new) % 65536, (start + old) % 65536)


def test_a_released_ring_lets_its_memory_go() -> None:
    board = Board(8, event_idx=False)
    board.ring.release()
    board.memory.extend(b"more")  # raises BufferError while anybody looks at it


@pytest.mark.parametrize(
    ("index", "since", "returned"),
    [(5, 5, 0), (5, 3, 2), (2, 65534, 4), (2, 65538, 0), (0, 1, 65535)],
)
def test_what_was_returned_since_an_index_wraps_with_it(
    index: int, since: int, returned: int
) -> None:
    board = Board(8, event_idx=False)
    board.write_used(index=index)
    assert board.ring.returned_since(since) == returned
