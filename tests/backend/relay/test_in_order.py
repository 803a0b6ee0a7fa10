"""A device with IN_ORDER may tell of a batch by its last chain: all is marked and returned."""

import pytest

from tests.backend.relay.bench import Bench
from tests.support.split_driver import Request, Way
from vdpad.backend.relay.faults import DeviceBroken

ROOM = 5000


def offered(bench: Bench, number: int) -> list[Request]:
    """Chains that the driver has made available."""
    requests = [bench.driver.submit([], [ROOM], Way.DIRECT) for _ in range(number)]
    bench.driver.publish()
    return requests


def pages_of(request: Request, length: int) -> set[int]:
    """Those that so many bytes of its buffer stand on."""
    ((address, _),) = request.writable
    return set(range(address >> 12, (address + length - 1 >> 12) + 1))


@pytest.mark.parametrize("index", [0, 65533])
@pytest.mark.parametrize("size", [8, 128])
def test_what_is_skipped_is_marked_to_its_end(index: int, size: int) -> None:
    bench = Bench(in_order=True, index=index, size=size, regions=8)
    for _ in range(3):
        requests = offered(bench, size - 1)
        bench.log.pages.clear()
        bench.put_in_one(requests[-1].head, 7, len(requests))
        assert bench.turn().returned == len(requests)
        written = pages_of(requests[-1], 7).union(*(pages_of(each, ROOM) for each in requests[:-1]))
        assert bench.log.pages == bench.ring_pages | written
        told = [(each, length) for each, length, _ in bench.driver.collect()]
        assert told == [*((each, ROOM) for each in requests[:-1]), (requests[-1], 7)]


def test_batches_and_single_chains_together() -> None:
    bench = Bench(in_order=True)
    requests = offered(bench, 6)
    bench.put((requests[0].head, 3))
    bench.put_in_one(requests[2].head, 4, 2)
    bench.put_in_one(requests[4].head, 5, 2)
    assert bench.turn((requests[5].head, 6)).returned == 6
    written = [(0, 3), (1, ROOM), (2, 4), (3, ROOM), (4, 5), (5, 6)]
    expected = bench.ring_pages.union(*(pages_of(requests[at], size) for at, size in written))
    assert bench.log.pages == expected
    assert [(each, length) for each, length, _ in bench.driver.collect()] == [
        (requests[at], size) for at, size in written
    ]


def test_one_by_one_nothing_is_marked_that_was_not_written() -> None:
    bench = Bench(in_order=True)
    requests = offered(bench, 4)
    bench.turn(*((each.head, 1) for each in requests))
    assert bench.log.pages == bench.ring_pages.union(*(pages_of(each, 1) for each in requests))


@pytest.mark.parametrize("at", [0, 3])
def test_a_chain_that_is_not_due_is_the_device_s_fault(at: int) -> None:
    """One that was returned already, and one that is behind what has come back."""
    bench = Bench(in_order=True)
    requests = offered(bench, 4)
    bench.turn((requests[0].head, 1))
    bench.put_in_one(requests[at].head, 1, 2)
    with pytest.raises(DeviceBroken, match="as IN_ORDER has it"):
        bench.turn()
