"""The device's side of a ring against a driver's side that knows nothing of it."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.split_driver import Memory, Request, SplitDriver, Way
from vdpad.virtio.device_ring import DeviceRing
from vdpad.virtio.device_side import Chain
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitAddresses


@dataclass(frozen=True)
class Setting:
    """What driver and device agree on, and what chance does with it."""

    sizes: list[int]
    gaps: list[int]
    ring_size: int
    index: int
    event_idx: bool
    indirect: bool
    seed: int


_SIZES = st.sampled_from([16, 48, 8192, 16384])
_GAPS = st.sampled_from([0, 0, 0, 16, 4096])
SETTINGS = st.integers(1, 5).flatmap(
    lambda regions: st.builds(
        Setting,
        # One at least has room for a ring.
        sizes=st.lists(_SIZES, min_size=regions, max_size=regions).map(
            lambda sizes: [*sizes[:-1], 16384]
        ),
        gaps=st.lists(_GAPS, min_size=regions, max_size=regions),
        ring_size=st.sampled_from([1, 2, 4, 8, 16]),
        index=st.integers(0, 65535) | st.integers(65500, 65535),
        event_idx=st.booleans(),
        indirect=st.booleans(),
        seed=st.integers(0, 2**32),
    )
)


class Pair:
    """A driver, and the device on the same memory."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.random = Random(setting.seed)
        self.memory = Memory(setting.sizes, setting.gaps)
        for region in self.memory.regions.values():
            region[:] = self.random.randbytes(len(region))
        self.driver = SplitDriver(
            self.memory,
            self.random,
            size=setting.ring_size,
            event_idx=setting.event_idx,
            index=setting.index,
        )
        self.guest_memory = GuestMemory()
        for start, region in self.memory.regions.items():
            self.guest_memory.add(Region(start, len(region)), memoryview(region))
        self.ring = self.begin(setting.index)
        self.held: list[tuple[Request, Chain]] = []
        """What the device has taken and not returned."""

    def begin(self, index: int) -> DeviceRing:
        """The device's side, from an available index on."""
        driver, before = self.driver, self.memory.copy()
        ring = DeviceRing(
            self.guest_memory,
            SplitAddresses(driver.size, driver.descriptors, driver.available, driver.used),
            next_available=index,
            event_idx=self.setting.event_idx,
            indirect=self.setting.indirect,
        )
        assert self.memory.regions == before.regions, "a ring that only begins writes nothing"
        return ring

    def close(self) -> None:
        """Checks that nobody looks at the memory any more."""
        self.ring.release()
        self.guest_memory.release()
        for region in self.memory.regions.values():
            region.clear()  # BufferError where somebody does

    def submit(self) -> list[Request]:
        """As many chains as chance wants and there is room for, not made available yet."""
        submitted = []
        for _ in range(self.random.randrange(1, self.setting.ring_size + 1)):
            readable = [self.random.randbytes(self.random.randrange(1, 200)) for _ in range(3)]
            writable = [self.random.randrange(1, 100) for _ in range(self.random.randrange(1, 4))]
            readable = readable[: self.random.randrange(4)]
            way = self._way(len(readable) + len(writable))
            if way is not None:
                submitted.append(self.driver.submit(readable, writable, way))
        return submitted

    def _way(self, buffers: int) -> Way | None:
        """One that the ring has descriptors left for."""
        takes = {Way.DIRECT: buffers}
        if self.setting.indirect:
            takes |= {Way.INDIRECT: 1}
            if buffers > 1:
                takes |= {Way.BOTH: 2}
        fitting = [way for way, count in takes.items() if count <= self.driver.free]
        return self.random.choice(fitting) if fitting else None

    def serve(self) -> list[tuple[Request, bytes]]:
        """Answers some of what is held and returns it, in any order."""
        self.random.shuffle(self.held)
        count = self.random.randrange(len(self.held) + 1)
        served, self.held = self.held[:count], self.held[count:]
        answers = []
        for request, chain in served:
            answer = self.random.randbytes(self.random.randrange(request.room + 1))
            self.ring.answer(chain, answer)
            self.ring.put(chain.head, len(answer))
            answers.append((request, answer))
        return answers


@contextmanager
def _pair(setting: Setting) -> Iterator[Pair]:
    pair = Pair(setting)
    try:
        yield pair
    finally:
        pair.close()


@given(SETTINGS)
@settings(max_examples=3 * settings().max_examples)
def test_what_a_driver_sends_is_taken_and_what_is_answered_comes_back(setting: Setting) -> None:
    with _pair(setting) as pair:
        for _ in range(12):
            sent = pair.submit()
            pair.driver.publish()
            chains = pair.ring.take()
            assert [(each.head, each.readable) for each in chains] == [
                (each.head, each.readable) for each in sent
            ]
            assert [list(each.writable) for each in chains] == [each.writable for each in sent]
            pair.held += zip(sent, chains, strict=True)
            answered = pair.serve()
            for (request, length, got), (of, answer) in zip(
                pair.driver.collect(), answered, strict=True
            ):
                assert request is of
                assert length == len(answer)
                assert got[:length] == answer


@given(SETTINGS)
@settings(max_examples=60)
def test_a_device_writes_answers_and_its_used_ring_and_nothing_else(setting: Setting) -> None:
    with _pair(setting) as pair:
        memory, used = pair.memory, setting.index
        for _ in range(4):
            sent = pair.submit()
            pair.driver.publish()
            expected = memory.copy()
            pair.held += zip(sent, pair.ring.take(), strict=True)
            for request, answer in pair.serve():
                at = pair.driver.used + 4 + 8 * (used % setting.ring_size)
                expected.poke(at, struct.pack("<II", request.head, len(answer)))
                for address, size in request.writable:
                    expected.poke(address, answer[:size])
                    answer = answer[size:]
                used = (used + 1) % 65536
            expected.poke(pair.driver.used + 2, used.to_bytes(2, "little"))
            # Flags and event index have tests of their own.
            for word in (pair.driver.used, pair.driver.used + 4 + 8 * setting.ring_size):
                expected.poke(word, memory.peek(word, 2))
            assert memory.regions == expected.regions
            pair.driver.collect()


@given(SETTINGS)
@settings(max_examples=60)
def test_no_doorbell_is_missed_and_none_is_asked_for_while_the_device_works(
    setting: Setting,
) -> None:
    with _pair(setting) as pair:
        pair.ring.take()
        assert pair.ring.idle()
        for _ in range(6):
            if not (sent := pair.submit()):
                break
            assert not pair.ring.idle() or pair.driver.publish()
            taken = pair.ring.take()
            sent += (again := pair.submit())
            wanted = pair.driver.publish()
            assert not (wanted and again)
            assert pair.ring.idle() is not bool(again)
            taken += pair.ring.take()
            assert pair.ring.idle()
            pair.held += zip(sent, taken, strict=True)
            pair.serve()
            pair.ring.wants_interrupt()
            pair.driver.collect()


@given(SETTINGS)
@settings(max_examples=60)
def test_the_driver_hears_of_the_chain_that_it_asked_for(setting: Setting) -> None:
    with _pair(setting) as pair:
        for _ in range(6):
            pair.held += zip(pair.submit(), _published(pair), strict=True)
            if not setting.event_idx:
                continue
            after = pair.random.randrange(1, setting.ring_size + 1)
            pair.driver.ask_for_interrupt(after)
            count = len(pair.serve())
            assert pair.ring.wants_interrupt() is (count >= after)
            pair.driver.collect()


def _published(pair: Pair) -> list[Chain]:
    pair.driver.publish()
    return pair.ring.take()


@given(SETTINGS)
@settings(max_examples=40)
def test_a_ring_goes_on_where_another_stopped_with_chains_in_flight(setting: Setting) -> None:
    with _pair(setting) as pair:
        for _ in range(6):
            sent = pair.submit()
            pair.held += zip(sent, _published(pair), strict=True)
            answered = pair.serve()
            assert [request for request, _, _ in pair.driver.collect()] == [
                request for request, _ in answered
            ]
            index = pair.ring.next_available
            pair.ring.release()
            pair.ring = pair.begin(index)
