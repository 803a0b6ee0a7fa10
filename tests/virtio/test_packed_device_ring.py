"""The device's side of a packed ring, against a driver's side that knows nothing of it."""

import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.packed_driver import PackedDriver, Piece
from vdpad.virtio.chains import BadChain
from vdpad.virtio.device_side import MAX_READABLE, Chain
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.packed_device_ring import PackedDeviceRing
from vdpad.virtio.packed_ring import PackedAddresses
from vdpad.virtio.rings import BadGeometry, Region

BASE = 0x100000
BYTES = 0x8000
BUFFERS = 0x1000
AVAIL, USED, NEXT, WRITE, INDIRECT = 1 << 7, 1 << 15, 1, 2, 4


class Pair:
    """A driver, and the device on the same memory."""

    def __init__(
        self, size: int, position: int, *, event_idx: bool = False, indirect: bool = False
    ) -> None:
        self.dice = random.Random(position)
        self.memory = bytearray(BYTES)
        for number in range(size):
            # As the driver before left it.
            wrap = 1 - position // size % 2 ^ (number >= position % size)
            struct.pack_into("<H", self.memory, 16 * number + 14, (AVAIL | USED) * wrap)
        self.driver = PackedDriver(self.memory, BASE, size=size, position=position, dice=self.dice)
        self.guest_memory = GuestMemory()
        self.guest_memory.add(Region(BASE, BYTES), memoryview(self.memory))
        self.ring = PackedDeviceRing(
            self.guest_memory,
            PackedAddresses(size, BASE, BASE + 16 * size, BASE + 16 * size + 4),
            position=position,
            event_idx=event_idx,
            indirect=indirect,
        )
        self._next = BUFFERS
        self.sent: dict[int, bytes] = {}
        """What each chain that is out has for the device to read."""

    def submit(self, *, indirect: bool) -> int:
        """One chain of chance's; how many descriptors it took."""
        readable, written = self.dice.randint(0, 3), self.dice.randint(1, 3)
        if not indirect and readable + written > self.driver.free:
            return 0
        pieces: list[Piece] = []
        said = b""
        for at in range(readable + written):
            data = self.dice.randbytes(self.dice.randint(1, 8))
            place = self._place(len(data))
            if at < readable:
                self.memory[place : place + len(data)] = data
                said += data
            pieces.append((BASE + place, len(data), at >= readable))
        table = BASE + self._place(16 * len(pieces)) if indirect else None
        sent = self.driver.submit(pieces, table)
        self.sent[sent.name] = said
        return sent.descriptors

    def _place(self, size: int) -> int:
        """Room that nothing else has had for a long time."""
        if self._next + size > BYTES:
            self._next = BUFFERS
        place, self._next = self._next, self._next + size
        return place

    def close(self) -> None:
        """Checks that nobody looks at the memory any more."""
        self.ring.release()
        self.guest_memory.release()
        self.memory.clear()  # BufferError where somebody does


@contextmanager
def pair(
    size: int, position: int = 0, *, event_idx: bool = False, indirect: bool = False
) -> Iterator[Pair]:
    """Both, and closed at the end."""
    both = Pair(size, position, event_idx=event_idx, indirect=indirect)
    try:
        yield both
    finally:
        both.close()


@given(
    size=st.integers(1, 12),
    position=st.integers(0, 30),
    event_idx=st.booleans(),
    indirect=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
def test_each_chain_is_taken_once_and_returned_once_in_any_order(
    size: int, position: int, event_idx: bool, indirect: bool, seed: int
) -> None:
    with pair(size, position % (2 * size), event_idx=event_idx, indirect=indirect) as both:
        both.dice.seed(seed)
        held: list[Chain] = []
        for _ in range(40):
            for _ in range(both.dice.randint(0, 3)):
                if both.driver.free:
                    both.submit(indirect=indirect and both.dice.random() < 0.5)
            taken = both.ring.take()
            for chain in taken:
                assert chain.readable == both.sent.pop(chain.head)
                assert chain.descriptors == both.driver.out[chain.head].descriptors
            held += taken
            both.dice.shuffle(held)
            count = both.dice.randint(0, len(held))
            returned = {chain.head: both.dice.randint(0, 9) for chain in held[:count]}
            if both.dice.random() < 0.5:
                both.ring.put_together(list(returned.items()))
            else:
                for head, length in returned.items():
                    both.ring.put(head, length)
            held = held[count:]
            back = both.driver.collect()
            assert [(sent.name, length) for sent, length in back] == list(returned.items())


@given(size=st.integers(2, 9), position=st.integers(0, 20), seed=st.integers(0, 1 << 32))
def test_with_event_idx_the_next_chain_is_heard_and_none_while_it_works(
    size: int, position: int, seed: int
) -> None:
    with pair(size, position % (2 * size), event_idx=True) as both:
        both.dice.seed(seed)
        assert both.ring.idle()
        for _ in range(20):
            new = both.submit(indirect=False)
            if not new:
                continue
            assert both.driver.is_heard(new)
            chains = both.ring.take()
            assert not both.driver.is_heard(new)
            for chain in chains:
                both.ring.put(chain.head, 1)
            both.driver.collect()
            assert both.ring.idle()


@pytest.mark.parametrize("event_idx", [False, True])
def test_what_came_before_it_was_idle_is_seen(event_idx: bool) -> None:
    with pair(8, event_idx=event_idx) as both:
        both.submit(indirect=False)
        assert not both.ring.idle()
        assert len(both.ring.take()) == 1
        assert both.ring.idle()


@pytest.mark.parametrize(
    ("flags", "ahead", "wanted"), [(0, 0, True), (1, 0, False), (2, 0, True), (2, 7, False)]
)
def test_the_driver_hears_of_what_it_asked_for(flags: int, ahead: int, wanted: bool) -> None:
    for position in range(16):
        with pair(8, position, event_idx=True) as both:
            both.driver.ask(flags, ahead)
            assert not both.ring.wants_interrupt()
            while not both.submit(indirect=False):
                """Until it fits."""
            for chain in both.ring.take():
                both.ring.put(chain.head, 1)
            assert both.ring.wants_interrupt() == wanted
            assert not both.ring.wants_interrupt()


def test_desc_without_event_idx_says_nothing_and_the_driver_is_interrupted() -> None:
    with pair(8) as both:
        both.driver.ask(2, 7)
        both.submit(indirect=False)
        for chain in both.ring.take():
            both.ring.put(chain.head, 1)
        assert both.ring.wants_interrupt()


def _describe(both: Pair, number: int, address: int, length: int, name: int, flags: int) -> None:
    struct.pack_into("<QIHH", both.memory, 16 * number, address, length, name, flags | AVAIL)


BAD = {
    "no end": ([(BASE + BUFFERS, 4, NEXT)] * 4, "expected an end within 4 descriptors"),
    "an empty buffer": ([(BASE + BUFFERS, 0, WRITE)], "got a buffer of 0 bytes"),
    "outside the memory": ([(BASE + BYTES, 4, WRITE)], "descriptor 0"),
    "readable behind writable": (
        [(BASE + BUFFERS, 4, WRITE | NEXT), (BASE + BUFFERS, 4, 0)],
        "readable buffers before the writable ones",
    ),
    "no ack": ([(BASE + BUFFERS, 4, 0)], "expected a byte for an ack"),
    "more than may be read": (
        [(BASE + BUFFERS, MAX_READABLE + 1, NEXT), (BASE, 1, WRITE)],
        "descriptor 0",
    ),
    "an indirect table not negotiated": (
        [(BASE + BUFFERS, 32, INDIRECT)],
        "without RING_INDIRECT_DESC",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_chain_that_makes_no_sense_is_refused(bad: str) -> None:
    described, why = BAD[bad]
    with pair(4) as both:
        for number, (address, length, flags) in enumerate(described):
            _describe(both, number, address, length, 0, flags)
        with pytest.raises(BadChain, match=why):
            both.ring.take()


@pytest.mark.parametrize(
    ("length", "flags", "why"),
    [
        (31, INDIRECT, "expected an indirect table of 16"),
        (0, INDIRECT, "expected an indirect table of 16"),
        (1025 * 16, INDIRECT, "expected an indirect table of 16"),
        (32, INDIRECT | NEXT, "expected an indirect descriptor to end its chain"),
    ],
)
def test_an_indirect_table_that_makes_no_sense_is_refused(
    length: int, flags: int, why: str
) -> None:
    with pair(4, indirect=True) as both:
        _describe(both, 0, BASE + BUFFERS, length, 0, flags)
        _describe(both, 1, BASE + BUFFERS, 4, 0, WRITE)
        with pytest.raises(BadChain, match=why):
            both.ring.take()


def test_an_id_that_is_in_flight_is_refused_and_what_came_before_is_taken() -> None:
    with pair(4) as both:
        for number in range(2):
            _describe(both, number, BASE + BUFFERS, 4, 3, WRITE)
        assert [chain.head for chain in both.ring.take()] == [3]
        with pytest.raises(BadChain, match="expected a buffer id that is free, got 3 in flight"):
            both.ring.take()


def test_no_more_is_in_flight_than_the_ring_has_descriptors() -> None:
    with pair(2) as both:
        for number in range(2):
            _describe(both, number, BASE + BUFFERS, 4, number, WRITE)
        assert len(both.ring.take()) == 2
        for number in range(2):
            _describe(both, number, BASE + BUFFERS, 4, 4 + number, WRITE)
            struct.pack_into("<H", both.memory, 16 * number + 14, WRITE | USED)
        assert both.ring.take() == []


@pytest.mark.parametrize("part", ["descriptors", "driver", "device"])
def test_a_part_outside_the_memory_is_refused(part: str) -> None:
    memory = GuestMemory()
    memory.add(Region(BASE, BYTES), memoryview(bytearray(BYTES)))
    places = {"descriptors": BASE, "driver": BASE + 0x400, "device": BASE + 0x404, part: 0x40}
    with pytest.raises(BadGeometry, match=rf"ring\.{part}"):
        PackedDeviceRing(
            memory, PackedAddresses(8, **places), position=0, event_idx=False, indirect=False
        )


_DESCRIPTORS = st.tuples(
    st.integers(BASE - 8, BASE + BYTES + 8) | st.integers(0, (1 << 64) - 1),
    st.integers(0, 64) | st.sampled_from([16, 32, 48]) | st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, 7),
)


@given(
    st.lists(_DESCRIPTORS, min_size=6, max_size=6),
    st.lists(_DESCRIPTORS, min_size=3, max_size=3),
    st.integers(0, 11),
    st.booleans(),
)
def test_whatever_the_driver_wrote_an_answer_stays_inside_the_memory(
    ring: list[tuple[int, int, int, int]],
    table: list[tuple[int, int, int, int]],
    position: int,
    indirect: bool,
) -> None:
    with pair(6, position, indirect=indirect) as both:
        for at, (address, length, number, flags) in enumerate(table):
            struct.pack_into(
                "<QIHH", both.memory, BUFFERS + 16 * at, address, length, number, flags
            )
        for at, (address, length, number, flags) in enumerate(ring):
            if flags & INDIRECT:
                address = BASE + BUFFERS
            place = position + at
            marks = USED if place // 6 % 2 else AVAIL
            struct.pack_into(
                "<QIHH", both.memory, 16 * (place % 6), address, length, number, flags | marks
            )
        try:
            chains = both.ring.take()
        except BadChain:
            return
        assert sum(chain.descriptors for chain in chains) <= 6
        assert len({chain.head for chain in chains}) == len(chains)
        for chain in chains:
            assert len(chain.readable) <= 6 * BYTES
            for address, size in chain.writable:
                assert BASE <= address < address + size <= BASE + BYTES


@given(
    size=st.integers(1, 12),
    position=st.integers(0, 30),
    indirect=st.booleans(),
    in_one=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
def test_a_device_writes_answers_and_what_it_returns_and_nothing_else(
    size: int, position: int, indirect: bool, in_one: bool, seed: int
) -> None:
    with pair(size, position % (2 * size), indirect=indirect) as both:
        both.dice.seed(seed)
        for _ in range(20):
            if both.driver.free:
                both.submit(indirect=indirect)
            expected, at = bytearray(both.memory), both.ring.next_used
            chains = both.ring.take()
            for chain in chains:
                both.ring.answer(chain, b"\7")
                expected[chain.writable[0].iova - BASE] = 7
            if chains and in_one:
                both.ring.put_in_one([(chain.head, 1) for chain in chains])
            else:
                both.ring.put_together([(chain.head, 1) for chain in chains])
            told = [chains[-1]] if in_one and chains else chains
            for chain in told:
                # Length, id and flags; the address stays what it was.
                marks = (AVAIL | USED) * (1 - at // size % 2) | WRITE
                struct.pack_into("<IHH", expected, 16 * (at % size) + 8, 1, chain.head, marks)
                at += chain.descriptors
            area = slice(16 * size + 4, 16 * size + 8)  # has tests of its own
            expected[area] = both.memory[area]
            assert both.memory == expected
            # The driver has all of them back, however it was told.
            for chain in chains:
                del both.driver.out[chain.head]
