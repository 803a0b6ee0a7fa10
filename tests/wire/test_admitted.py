"""The memory of what was let in: over restarts, deaths at any moment, and what no daemon left."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdpad.wire.admitted import Admitted, BadMemory, NoRoom, begin, recall, since_boot, size_of

NOW = 10**12

NEVER = 10**6
"""What is sealed by then is never early."""


def memory_of(places: int) -> memoryview:
    return memoryview(bytearray(size_of(places)))


def copy_of(memory: memoryview) -> memoryview:
    return memoryview(bytearray(memory))


def test_it_begins_where_there_is_nothing() -> None:
    memory = memory_of(4)
    for now in (NOW, NOW + 5):
        admitted = recall(memory, now)
        assert (admitted.began, 7 in admitted) == (NOW, False)


def test_the_time_since_boot_is_the_kernel_s() -> None:
    with open("/proc/uptime") as file:
        up = float(file.read().split()[0])
    assert 0 <= since_boot() / 1e9 - up < 10


def test_what_is_remembered_is_as_much_as_there_is_room_for() -> None:
    memory = memory_of(3)
    admitted = recall(memory, NOW)
    for mac in (0, 5, 2**64 - 1):
        admitted.add(100, mac, over=50, early=NEVER)
    for each in (admitted, recall(memory, NOW)):
        assert {mac for mac in (0, 1, 5, 2**64 - 1) if mac in each} == {0, 5, 2**64 - 1}
        with pytest.raises(NoRoom, match="at most 3"):
            each.add(100, 6, over=100, early=NEVER)
        assert 6 not in each
        assert each.floor <= 100
    admitted.add(101, 6, over=101, early=NEVER)
    assert admitted.floor == 101
    assert 6 in recall(memory, NOW)


@pytest.mark.parametrize("restarts", [False, True])
def test_the_oldest_make_way_first(restarts: bool) -> None:
    memory = memory_of(4)
    admitted = recall(memory, NOW)
    for second in (4, 2, 9, 3):
        admitted.add(second, second, over=0, early=NEVER)
    for new, floor in ((11, 3), (12, 4), (13, 5), (14, 10)):
        if restarts:
            admitted = recall(memory, NOW)
        admitted.add(new, new, over=10, early=NEVER)
        assert admitted.floor == recall(memory, NOW).floor == floor
    with pytest.raises(NoRoom):
        admitted.add(15, 15, over=10, early=NEVER)
    assert all(mac in recall(memory, NOW) for mac in (11, 12, 13, 14))


class Dying:
    """Words of which a copy is made at each store: what a process leaves that is killed there."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._words = memory.cast("Q")
        self.left: list[memoryview] = []

    def __getitem__(self, at: Any) -> Any:
        return self._words[at]

    def __setitem__(self, at: int, value: int) -> None:
        self._words[at] = value
        self.left.append(copy_of(self._memory))


@given(
    places=st.integers(1, 4),
    seconds=st.lists(st.integers(1, 8), max_size=30),
    time_to_live=st.integers(0, 3),
    steps=st.booleans(),
)
def test_at_whatever_store_it_is_killed_nothing_is_let_in_twice(
    places: int, seconds: list[int], time_to_live: int, steps: bool
) -> None:
    memory = memory_of(places)
    admitted = recall(memory, NOW)
    words = Dying(memory)
    admitted._words = words  # type: ignore[assignment]
    let_in: list[tuple[int, int]] = []
    for mac, second in enumerate(seconds):
        words.left.clear()
        # By a clock that goes on, or is set to each second that comes.
        now = second if steps else max(seconds[: mac + 1])
        if second < now - time_to_live or admitted.is_shut(second):
            continue
        try:
            admitted.add(second, mac, now - time_to_live, now)
        except NoRoom:
            assert not words.left
            continue
        for left in words.left:
            known = recall(left, NOW)
            assert all(known.is_shut(each) or one in known for each, one in let_in)
        let_in.append((second, mac))
        known = recall(copy_of(memory), NOW)
        assert mac in known
        assert not known.is_shut(second)


@pytest.mark.parametrize("restarts", [False, True])
def test_what_a_clock_far_ahead_let_in_makes_way(restarts: bool) -> None:
    memory = memory_of(4)
    admitted = recall(memory, NOW)
    for mac, second in enumerate((1000, 1001, 1003, 1003)):
        admitted.add(second, mac, over=995, early=1005)
    for mac in range(10, 14):
        if restarts:
            admitted = recall(memory, NOW)
        admitted.add(50, mac, over=40, early=60)
        assert not admitted.is_shut(51)
    with pytest.raises(NoRoom):
        admitted.add(51, 14, over=40, early=60)
    # When it is there again, nothing of then is let in; and soon after all is.
    again = recall(memory, NOW)
    assert [each for each in range(990, 1010) if again.is_shut(each)] == [1000, 1001, 1002, 1003]
    again.add(1004, 20, over=1003, early=1005)
    assert again.floor == 51


def test_another_time_far_ahead_is_shut_beside_one_that_is_past() -> None:
    memory = memory_of(1)
    admitted = recall(memory, NOW)
    for mac, (second, now) in enumerate([(1000, 1000), (50, 50), (5000, 5000), (2000, 2000)]):
        admitted.add(second, mac, over=now - 10, early=now + 10)
    known = recall(memory, NOW)
    assert [each for each in (999, 1000, 1001, 1999, 5000) if known.is_shut(each)] == [
        *(999, 1000),
        5000,
    ]


# --- what no daemon left ---


def words_of(memory: memoryview) -> memoryview:
    return memory.cast("Q")


def spoil_mark(memory: memoryview) -> None:
    memory[0] ^= 1


def spoil_only_the_mark(memory: memoryview) -> None:
    words_of(memory)[0] = 0


def spoil_beginning(memory: memoryview) -> None:
    """Of another boot, on a disk."""
    words_of(memory)[1] = NOW + 1


def spoil_floor_above_all(memory: memoryview) -> None:
    words_of(memory)[2] = 2**40


def spoil_floor_of_zero(memory: memoryview) -> None:
    words_of(memory)[2] = 0


def spoil_by_one_twice(memory: memoryview) -> None:
    words = words_of(memory)
    words[7:9] = words[5:7]


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_mark,
        spoil_only_the_mark,
        spoil_beginning,
        spoil_floor_above_all,
        spoil_floor_of_zero,
        spoil_by_one_twice,
    ],
)
def test_what_no_daemon_leaves_is_not_gone_by(spoil: Callable[[memoryview], None]) -> None:
    memory = memory_of(3)
    admitted = recall(memory, NOW)
    for second in range(1, 6):
        admitted.add(second, second, over=10, early=NEVER)
    spoil(memory)
    with pytest.raises(BadMemory, match=r"^expected .*, got |^expected each "):
        recall(memory, NOW)
    assert begin(memory, NOW).floor == 1
    assert not [mac for mac in range(6) if mac in recall(memory, NOW)]


@given(st.data())
def test_any_bytes_are_refused_or_gone_by(data: st.DataObject) -> None:
    places = 3
    whole = bytearray(size_of(places))
    begin(memoryview(whole), NOW)
    kinds = st.sampled_from([0, 1, 2, 3, 2**32, 2**63, 2**64 - 1])
    for at in range(2, 5 + 2 * places):
        memoryview(whole).cast("Q")[at] = data.draw(kinds)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    try:
        admitted = recall(memoryview(whole), NOW)
    except BadMemory:
        return
    for second, mac in itertools.product((3, 4), range(10, 13)):
        if not admitted.is_shut(second) and mac not in admitted:
            try:
                admitted.add(second, mac, over=3, early=NEVER)
            except NoRoom:
                break
            assert mac in recall(memoryview(bytearray(whole)), NOW)


def test_it_says_what_is_wrong_of_memory_of_another_kind() -> None:
    with pytest.raises(BadMemory, match="other bytes"):
        Admitted(memoryview(bytearray(b"x" * size_of(2))), NOW)
