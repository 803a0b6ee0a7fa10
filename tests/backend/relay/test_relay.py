"""What a turn gives to the guest, marks, and leaves to be done."""

import pytest

from tests.backend.relay.bench import Bench
from tests.support.split_driver import Way
from vdpad.backend.relay.faults import DeviceBroken, RingMoved
from vdpad.virtio.chains import BadChain


def test_a_turn_gives_back_what_the_device_has_returned() -> None:
    bench = Bench()
    requests = [bench.driver.submit([], [100], Way.DIRECT) for _ in range(3)]
    bench.driver.publish()
    assert bench.turn((requests[2].head, 7), (requests[0].head, 100)).returned == 2
    found = [(request, length) for request, length, _ in bench.driver.collect()]
    assert found == [(requests[2], 7), (requests[0], 100)]
    assert bench.turn().is_idle
    assert bench.turn((requests[1].head, 1)).returned == 1


@pytest.mark.parametrize("index", [0, 6, 65530])
def test_indices_and_elements_go_round(index: int) -> None:
    bench = Bench(size=4, index=index)
    for _ in range(5):
        requests = [bench.driver.submit([], [10], Way.DIRECT) for _ in range(3)]
        bench.driver.publish()
        assert bench.turn(*((each.head, 5) for each in requests)).returned == 3
        assert [each for each, _, _ in bench.driver.collect()] == requests


def test_an_idle_turn_marks_nothing() -> None:
    bench = Bench()
    assert bench.turn().is_idle
    assert bench.log.pages == set()


def test_the_guest_s_used_ring_is_marked_with_what_is_returned() -> None:
    bench = Bench()
    request = bench.driver.submit([], [100], Way.DIRECT)
    bench.driver.publish()
    bench.turn((request.head, 0))
    assert bench.log.pages == bench.ring_pages


# --- notifications ---


def test_the_guest_is_called_when_its_index_passes_used_event() -> None:
    bench = Bench()
    requests = [bench.driver.submit([], [10], Way.DIRECT) for _ in range(4)]
    bench.driver.publish()
    bench.driver.ask_for_interrupt(2)
    due = [bench.turn((each.head, 1)).calls for each in requests]
    assert due == [False, True, False, False]


def test_without_event_idx_the_available_flags_say_whether() -> None:
    bench = Bench(event_idx=False)
    requests = [bench.driver.submit([], [10], Way.DIRECT) for _ in range(2)]
    bench.driver.publish()
    bench.driver.ask_for_interrupt(1)
    assert bench.turn((requests[0].head, 1)).calls
    bench.driver.ask_for_interrupt(2)
    assert not bench.turn((requests[1].head, 1)).calls


def test_the_device_s_avail_event_goes_to_the_guest_and_its_ring_is_marked() -> None:
    bench = Bench()
    bench.words[-1] = 2
    due = bench.turn()
    assert (due.returned, due.calls, due.kicks, due.is_idle) == (0, False, False, True)
    assert bench.log.pages == bench.ring_pages
    bench.driver.submit([], [10], Way.DIRECT)
    assert not bench.driver.publish()
    for _ in range(2):
        bench.driver.submit([], [10], Way.DIRECT)
    assert bench.driver.publish()


@pytest.mark.parametrize(("available", "kicks"), [(2, False), (3, True), (4, True)])
def test_a_chain_past_a_new_avail_event_kicks_the_device(available: int, kicks: bool) -> None:
    bench = Bench()
    for _ in range(available):
        bench.driver.submit([], [10], Way.DIRECT)
    bench.driver.publish()
    bench.words[-1] = 2
    assert bench.turn().kicks is kicks


def test_without_event_idx_the_device_is_kicked_when_it_asks_for_kicks_again() -> None:
    bench = Bench(event_idx=False)
    bench.words[0] = 1
    assert not bench.turn().kicks
    bench.driver.submit([], [10], Way.DIRECT)
    assert not bench.driver.publish()
    bench.words[0] = 0
    assert bench.turn().kicks
    assert not bench.turn().kicks


# --- begin and finish ---


def test_ours_begins_as_the_guest_s() -> None:
    bench = Bench(index=9, seed=3)
    bench.driver.memory.poke(bench.driver.used + 6 + 8 * bench.size - 2, b"\x34\x12")
    bench.relay.begin()
    used = bench.memory.peek(bench.driver.used, 6 + 8 * bench.size)
    assert bytes(bench.ours[: len(used)]) == used
    assert bench.turn().is_idle


def test_the_end_takes_what_is_there() -> None:
    bench = Bench()
    request = bench.driver.submit([], [100], Way.DIRECT)
    bench.driver.publish()
    bench.put((request.head, 100))
    assert bench.relay.finish().returned == 1
    assert bench.relay.finish().is_idle


# --- what no device may do ---


def test_an_index_that_runs_ahead_breaks_the_device() -> None:
    bench = Bench()
    bench.words[1] = 9
    with pytest.raises(DeviceBroken, match=r"at most 8 chains .* got 9"):
        bench.relay.turn()


def test_a_guest_s_used_index_that_moves_by_itself_is_told() -> None:
    bench = Bench()
    bench.driver.memory.poke(bench.driver.used + 2, b"\x01\x00")
    with pytest.raises(RingMoved, match="stay at 0, got 1"):
        bench.relay.turn()
    with pytest.raises(RingMoved, match="all memory"):
        bench.relay.finish()


def test_a_chain_that_makes_no_sense_is_not_given_back_and_the_others_are_marked() -> None:
    bench = Bench()
    request = bench.driver.submit([], [100], Way.DIRECT)
    bench.driver.publish()
    with pytest.raises(BadChain, match=r"chain 77: .* got descriptor 77 in a ring of 8"):
        bench.turn((77, 4), (request.head, 100))
    ((address, _),) = request.writable
    assert address >> 12 in bench.log.pages
    assert bench.driver.returned == 0
