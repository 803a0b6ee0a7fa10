"""The packed ring: where its parts may lie, positions, and what the driver's side writes and sees.

Whose a descriptor is, is held against the specification's words, one descriptor at a time.
"""

import dataclasses
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdpad.virtio.packed_driver_ring import (
    RETURNED_ELEMENT,
    PackedDriverRing,
    packed_command_descriptors,
)
from vdpad.virtio.packed_ring import (
    PackedGeometry,
    lay_out_packed,
    off_wrap,
    packed_ring_bytes,
    passes,
    position_at,
    position_of,
    wrap_at,
)
from vdpad.virtio.rings import BadGeometry, Region

BASE = 0x100000
RING = PackedGeometry(
    size=7,
    memory=Region(BASE, 0x1000),
    buffers=Region(BASE + 0x300, 0x100),
    descriptors=BASE,
    driver=BASE + 0x100,
    device=BASE + 0x200,
)
AVAIL, USED = 1 << 7, 1 << 15
sizes = st.integers(1, 40)


# --- geometry ---


def test_the_parts_have_the_sizes_of_the_specification() -> None:
    RING.check()
    parts = {name: part.size for name, part in RING.parts().items()}
    assert parts == {"descriptors": 7 * 16, "driver": 4, "device": 4, "buffers": 0x100}


@pytest.mark.parametrize("size", [1, 2, 3, 63, 100, 32767, 32768])
def test_every_size_up_to_32768_can_be_laid_out(size: int) -> None:
    geometry = lay_out_packed(size, Region(BASE, 1 << 20))
    geometry.check()
    assert geometry.buffers == Region(
        BASE + packed_ring_bytes(size), (1 << 20) - packed_ring_bytes(size)
    )


@pytest.mark.parametrize("size", [-1, 0, 32769, 65536, 1 << 40])
def test_a_size_that_no_ring_has_is_refused(size: int) -> None:
    with pytest.raises(BadGeometry, match=f"ring.size: expected 1 to 32768, got {size}"):
        dataclasses.replace(RING, size=size).check()


@pytest.mark.parametrize(("part", "alignment"), [("descriptors", 16), ("driver", 4), ("device", 4)])
def test_a_misaligned_part_is_refused(part: str, alignment: int) -> None:
    start = getattr(RING, part)
    for off in range(1, alignment):
        with pytest.raises(BadGeometry, match=rf"ring\.{part}: expected a multiple of {alignment}"):
            dataclasses.replace(RING, **{part: start + off}).check()
    dataclasses.replace(RING, **{part: start + alignment}).check()


@pytest.mark.parametrize("part", ["driver", "device"])
@pytest.mark.parametrize(
    ("where", "why"),
    [
        (BASE + 7 * 16 - 4, "overlaps"),
        (BASE + 0x2FC + 4, "overlaps"),
        (BASE - 4, "expected it inside"),
        (BASE + 0x1000, "expected it inside"),
        ((1 << 64) - 4, "expected it inside"),
    ],
)
def test_a_part_outside_or_over_another_is_refused(part: str, where: int, why: str) -> None:
    with pytest.raises(BadGeometry, match=why):
        dataclasses.replace(RING, **{part: where}).check()  # type: ignore[arg-type]


# --- positions ---


@given(size=sizes, position=st.integers(0, 200))
def test_a_position_is_an_offset_and_a_wrap_counter_that_turns_with_each_lap(
    size: int, position: int
) -> None:
    offset, wrap = 0, 1
    for _ in range(position):
        offset += 1
        if offset == size:
            offset, wrap = 0, 1 - wrap
    assert (position % size, wrap_at(position, size)) == (offset, wrap)
    assert off_wrap(position, size) == offset | wrap << 15
    for read in (position_at(offset, wrap, size), position_of(offset | wrap << 15, size)):
        assert (read - position) % (2 * size) == 0


@given(
    size=sizes,
    old=st.integers(0, 200),
    step=st.integers(1, 40),
    event=st.integers(0, 79),
)
def test_an_event_is_passed_where_its_descriptor_is_written(
    size: int, old: int, step: int, event: int
) -> None:
    step = min(step, size)
    written = {off_wrap(at, size) for at in range(old, old + step)}
    assert passes(event, old + step, old, size) == (off_wrap(event, size) in written)


# --- the driver's side ---


class Board:
    """A ring in plain memory, and each descriptor's fields."""

    def __init__(self, size: int, *, event_idx: bool = False) -> None:
        self.size = size
        self.geometry = lay_out_packed(size, Region(BASE, packed_ring_bytes(size) + 64))
        self.memory = bytearray(self.geometry.memory.size)
        parts = self.geometry.views(memoryview(self.memory))
        self.ring = PackedDriverRing(parts, size, event_idx=event_idx)

    def read(self, number: int) -> tuple[int, int, int, int]:
        address, length, name, flags = struct.unpack_from("<QIHH", self.memory, 16 * number)
        return address, length, name, flags

    def put(self, number: int, length: int, name: int, flags: int) -> None:
        struct.pack_into("<IHH", self.memory, 16 * number + 8, length, name, flags)

    def put_device(self, word: int, flags: int) -> None:
        at = self.geometry.device - BASE
        struct.pack_into("<HH", self.memory, at, word, flags)


def _available(flags: int, wrap: int) -> bool:
    return bool(flags & AVAIL) == bool(wrap) and bool(flags & USED) != bool(wrap)


def _places(position: int, count: int, size: int) -> Iterator[tuple[int, int]]:
    for at in range(position, position + count):
        yield at % size, 1 - at // size % 2


@given(size=st.integers(2, 20), position=st.integers(0, 100))
def test_chains_are_written_where_they_belong_and_become_available_at_once(
    size: int, position: int
) -> None:
    board = Board(size)
    chains = [(2 * at, 0x1000 + at, 4 + at, 0x2000 + at) for at in range(size // 2)]
    board.ring.clear(position)
    board.ring.describe(position, packed_command_descriptors(chains))
    number, wrap = next(_places(position, 1, size))
    assert not _available(board.read(number)[3], wrap)
    assert not board.ring.is_available(position)
    board.ring.publish(position)
    assert board.ring.is_available(position)
    places = list(_places(position, 2 * len(chains), size))
    for at, (name, address, length, ack) in enumerate(chains):
        (first, lap), (second, other) = places[2 * at : 2 * at + 2]
        assert board.read(first)[:3] == (address, length, name)
        assert board.read(second)[:3] == (ack, 1, name)
        assert _available(board.read(first)[3], lap)
        assert _available(board.read(second)[3], other)
        assert (board.read(first)[3] & 7, board.read(second)[3] & 7) == (1, 2)


@given(size=st.integers(2, 20), position=st.integers(0, 100), stale=st.integers(0, 0xFFFF))
def test_in_a_cleared_ring_nothing_is_available_and_nothing_has_come_back(
    size: int, position: int, stale: int
) -> None:
    board = Board(size)
    for number in range(size):
        board.put(number, 1, 1, stale * (number + 1) & 0xFFFF)
    board.ring.clear(position)
    for number, wrap in _places(position, size, size):
        flags = board.read(number)[3]
        assert not _available(flags, wrap)
        assert (bool(flags & AVAIL), bool(flags & USED)) != (bool(wrap), bool(wrap))
    assert board.ring.returned(position, size // 2) == 0


@given(
    size=st.integers(2, 20),
    position=st.integers(0, 100),
    flags=st.lists(st.integers(0, 0xFFFF), min_size=10, max_size=10),
    good=st.integers(0, 10),
)
def test_those_in_a_row_are_back_and_tell_their_ids(
    size: int, position: int, flags: list[int], good: int
) -> None:
    board = Board(size)
    board.ring.clear(position)
    places = list(_places(position, size, size))[::2][: size // 2]
    for at, (number, wrap) in enumerate(places):
        marks = flags[at] & ~(AVAIL | USED)
        marks |= (AVAIL | USED) * wrap if at < good else flags[at] & (AVAIL | USED)
        board.put(number, 100 + at, 7 * at, marks)
    count = 0
    for number, wrap in places:
        found = board.read(number)[3]
        if (bool(found & AVAIL), bool(found & USED)) != (bool(wrap), bool(wrap)):
            break
        count += 1
    assert board.ring.returned(position, len(places)) == count
    assert board.ring.returned(position, min(2, len(places))) == min(2, count, len(places))
    told = list(RETURNED_ELEMENT.iter_unpack(board.ring.elements(position, count)))
    others = ~(AVAIL | USED | 2) & 0xFFFF
    assert told == [(100 + at, 7 * at, flags[at] & others) for at in range(count)]


@given(
    size=st.integers(2, 20),
    old=st.integers(0, 100),
    chains=st.integers(1, 10),
    word=st.integers(0, 0xFFFF),
    flags=st.integers(0, 0xFFFF),
    event_idx=st.booleans(),
)
def test_the_doorbell_is_rung_as_the_devices_area_says(
    size: int, old: int, chains: int, word: int, flags: int, event_idx: bool
) -> None:
    board = Board(size, event_idx=event_idx)
    board.put_device(word, flags)
    new = old + 2 * min(chains, size // 2)
    wanted = board.ring.wants_doorbell(new, old)
    if flags & 3 == 1:
        assert not wanted
    elif flags & 3 == 2 and event_idx:
        if word & 0x7FFF < size:
            assert wanted == (word in {off_wrap(at, size) for at in range(old, new)})
    else:
        assert wanted


def test_released_the_memory_can_go() -> None:
    board = Board(8)
    board.ring.release()
    board.memory.clear()  # BufferError where somebody looks at it
