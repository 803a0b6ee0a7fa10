"""The pages that chains were written to: one by one, all together, and for any ring whatever."""

import struct
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backend.relay.bench import PAGE, Bench
from tests.support.split_driver import Request, Way
from vdpad.backend.relay import written
from vdpad.backend.relay.bulk import written_pages
from vdpad.virtio.chains import BadChain
from vdpad.virtio.split_ring import USED_ELEMENT

_WRITE, _NEXT, _INDIRECT = 2, 1, 4


@pytest.fixture(params=[1, 1 << 30], ids=["together", "one by one"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "BULK", request.param)


def _expected(request: Request, length: int) -> set[int]:
    pages: set[int] = set()
    for address, size in request.writable:
        here = min(size, length)
        length -= here
        pages.update({at >> 12 for at in range(address, address + here)})
    return pages


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("seed", range(20))
def test_the_pages_are_those_of_the_bytes_written(seed: int) -> None:
    bench = Bench(size=64, seed=seed)
    random = Random(seed)
    returned: list[tuple[int, int]] = []
    expected = bench.ring_pages
    while bench.driver.free > 4 and len(returned) < 30:
        sizes = [random.choice((1, 12, 700, 1536, 5000, 9000)) for _ in range(random.randint(1, 3))]
        readable = [b"r"] * random.choice((0, 0, 1))
        request = bench.driver.submit(readable, sizes, random.choice(list(Way)))
        length = random.choice((0, 1, sizes[0], random.randint(0, sum(sizes)), sum(sizes)))
        expected |= _expected(request, length)
        returned.append((request.head, length))
    bench.driver.publish()
    random.shuffle(returned)
    bench.turn(*returned)
    assert bench.log.pages == expected


# --- written down by hand ---


def _table(bench: Bench, *descriptors: tuple[int, int, int, int]) -> None:
    for at, descriptor in enumerate(descriptors):
        _describe(bench, at, descriptor)


def _describe(bench: Bench, at: int, descriptor: tuple[int, ...]) -> None:
    bench.memory.poke(bench.driver.descriptors + 16 * at, struct.pack("<QIHH", *descriptor))


def _free_page(bench: Bench) -> int:
    """The address of a page that nothing else lies in."""
    start, region = max(bench.memory.regions.items())
    return start + len(region) - PAGE


@pytest.mark.usefixtures("way")
def test_a_length_beyond_the_buffers_marks_them_all() -> None:
    bench = Bench()
    page = _free_page(bench)
    _table(bench, (page, 10, _WRITE, 0))
    bench.turn((0, 4000000000))
    assert page >> 12 in bench.log.pages


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("descriptors", "told"),
    [
        ([(0, 10, _WRITE, 0)], "reach outside the memory"),
        ([((1 << 64) - 8, 8, _WRITE, 0)], "reach outside the memory"),
        ([(-1, 1, _WRITE | _NEXT, 0)], "a loop"),
        ([(-1, 0, _WRITE | _NEXT, 0)], "a loop"),
        ([(-1, 1, _WRITE | _NEXT, 8)], "descriptor 8 in a ring of 8"),
        ([(-1, 17, _INDIRECT, 0)], "indirect table of 16 to"),
        ([(-1, 16, _INDIRECT | _NEXT, 0)], "another behind it"),
        ([(8, 16, _INDIRECT, 0)], "reach outside the memory"),
    ],
)
def test_what_no_device_can_have_written_to_is_told(
    descriptors: list[tuple[int, int, int, int]], told: str
) -> None:
    bench = Bench()
    page = _free_page(bench)
    for at, (address, *rest) in enumerate(descriptors):
        _describe(bench, at, (page if address == -1 else address, *rest))
    with pytest.raises(BadChain, match=told):
        bench.turn((0, 100))


@pytest.mark.usefixtures("way")
def test_an_indirect_table_in_an_indirect_table_is_told() -> None:
    bench = Bench()
    page = _free_page(bench)
    _table(bench, (page, 16, _INDIRECT, 0))
    bench.memory.poke(page, struct.pack("<QIHH", page, 16, _INDIRECT, 0))
    with pytest.raises(BadChain, match="got an indirect descriptor"):
        bench.turn((0, 100))


@pytest.mark.usefixtures("way")
def test_without_the_feature_no_table_is_indirect() -> None:
    bench = Bench(indirect=False)
    _table(bench, (_free_page(bench), 16, _INDIRECT, 0))
    with pytest.raises(BadChain, match="expected none without RING_INDIRECT_DESC"):
        bench.turn((0, 100))


@pytest.mark.usefixtures("way")
def test_chains_through_one_long_table_cost_no_more_than_chains_of_their_own() -> None:
    bench = Bench(size=128)
    page = _free_page(bench)
    _table(bench, *((page, 1, _WRITE | _NEXT, at + 1) for at in range(127)), (page, 1, _WRITE, 0))
    with pytest.raises(BadChain, match="at most 8192 descriptors together"):
        bench.turn(*[(0, 128)] * 128)


@pytest.mark.parametrize(
    "descriptors",
    [
        [(0, 1536, _WRITE, 0)],
        [(0, 12, _WRITE | _NEXT, 1), (4090, 20000, _WRITE, 0)],
        [(4090, 20000, _WRITE, 0)],
        [(0, 32, _INDIRECT, 0)],
        [(0, 12, _WRITE | _NEXT, 1), (0, 32, _INDIRECT, 0)],
    ],
    ids=["direct", "chained", "large", "indirect", "both"],
)
def test_what_drivers_make_available_needs_no_look_one_by_one(
    descriptors: list[tuple[int, int, int, int]],
) -> None:
    bench = Bench()
    start = _free_page(bench) - 10 * PAGE
    for at, (address, *rest) in enumerate(descriptors):
        _describe(bench, at, (start + address, *rest))
    # What the indirect table holds.
    bench.memory.poke(start, struct.pack("<QIHHQIHH", start, 12, 3, 1, start + PAGE, PAGE, 2, 0))
    contents = USED_ELEMENT.pack(0, 12000)
    pages = written_pages(bench.guest, bench.queue.descriptors, contents, most=8)
    assert pages is not None
    written.WrittenBuffers(bench.guest, bench.queue.descriptors, bench.log, size=8).mark(contents)
    assert {int(page) for page in pages} == bench.log.pages


# --- whatever stands there ---


_numbers = st.integers(0, 7) | st.integers(0, 0xFFFF)
_descriptors = st.tuples(
    st.integers(0x40000, 0x140000) | st.integers(0, (1 << 64) - 1),
    st.sampled_from((0, 1, 16, 32, 5000)) | st.integers(0, (1 << 32) - 1),
    st.integers(0, 7) | st.integers(0, 0xFFFF),
    _numbers,
)


@settings(max_examples=3 * settings().max_examples)
@given(
    table=st.lists(_descriptors, min_size=8, max_size=8),
    elements=st.lists(
        st.tuples(_numbers, st.sampled_from((0, 1, 100, 65562)) | st.integers(0, 1 << 24)),
        min_size=1,
        max_size=8,
    ),
)
def test_all_together_finds_what_one_by_one_does(
    table: list[tuple[int, int, int, int]], elements: list[tuple[int, int]]
) -> None:
    together, singly = _written(table, elements, bulk=True), _written(table, elements, bulk=False)
    assert together is None or together == singly


def _written(
    table: list[tuple[int, int, int, int]], elements: list[tuple[int, int]], *, bulk: bool
) -> "set[int] | str | None":
    """The pages; None where all together cannot tell; what is the matter."""
    bench = Bench(size=8)
    _table(bench, *table)
    contents = b"".join(USED_ELEMENT.pack(*each) for each in elements)
    descriptors = bench.queue.descriptors
    if bulk:
        pages = written_pages(bench.guest, descriptors, contents, most=512)
        return None if pages is None else {int(page) for page in pages}
    buffers = written.WrittenBuffers(bench.guest, descriptors, bench.log, size=8)
    try:
        buffers.mark(contents)
    except BadChain as error:
        return str(error)
    return bench.log.pages
