"""Regions that come and go: what is read and written, what is refused, and that nothing is kept."""

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdpad.errors import VdpadError
from vdpad.virtio.guest_memory import BadRegion, GuestMemory, OutsideMemory
from vdpad.virtio.rings import Region

# Two that touch, a hole of 16 bytes, and one more.
FIRST, SECOND, THIRD = Region(0x1000, 64), Region(0x1040, 32), Region(0x1070, 16)


class Host:
    """Mappings, and the memory made of them."""

    def __init__(self, *regions: Region) -> None:
        self.memory = GuestMemory()
        self.mappings: dict[Region, mmap.mmap] = {}
        for region in regions:
            self.add(region)

    def add(self, region: Region) -> None:
        self.mappings[region] = mmap.mmap(-1, region.size)
        self.memory.add(region, memoryview(self.mappings[region]))

    def close(self) -> None:
        """Raises BufferError where any view is left."""
        for mapping in self.mappings.values():
            mapping.close()


def _host() -> Host:
    return Host(SECOND, THIRD, FIRST)


# --- the table ---


@pytest.mark.parametrize(
    ("region", "text"),
    [
        (Region(0x2000, 0), "expected as many bytes, got 0"),
        (Region(0x2008, 16), "at a multiple of 16"),
        (Region((1 << 64) - 16, 32), "an end of at most 2\\^64"),
        (FIRST, r"got one at \[0x1000, 0x1040\)"),
        (Region(0xFF0, 32), r"got one at \[0x1000, 0x1040\)"),
        (Region(0x1010, 16), r"got one at \[0x1000, 0x1040\)"),
        (Region(0x1030, 64), r"got one at"),
        (Region(0xFF0, 256), r"got one at"),
        (Region(0x1060, 32), r"got one at \[0x1070, 0x1080\)"),
    ],
)
def test_a_region_that_cannot_be_there_is_refused(region: Region, text: str) -> None:
    host = _host()
    with pytest.raises(BadRegion, match=text) as refused:
        host.memory.add(region, memoryview(bytearray(region.size)))
    assert isinstance(refused.value, VdpadError)


def test_a_region_and_its_bytes_are_of_one_size() -> None:
    with pytest.raises(BadRegion, match=r"region \[0x0, 0x20\): expected as many bytes, got 31"):
        GuestMemory().add(Region(0, 32), memoryview(bytearray(31)))


def test_the_last_address_can_be_memory() -> None:
    last = Region((1 << 64) - 16, 16)
    host = Host(last)
    host.memory.write(last.iova, b"x" * 16)
    with pytest.raises(OutsideMemory, match="expected a region at 0x10000000000000000, got none"):
        host.memory.read(last.iova, 17)


@pytest.mark.parametrize(
    "region", [Region(0, 16), Region(0x1000, 32), Region(0x1010, 48), Region(0x1080, 16)]
)
def test_a_region_that_was_not_added_is_not_removed(region: Region) -> None:
    host = _host()
    with pytest.raises(BadRegion, match="expected one that was added"):
        host.memory.remove(region)
    with pytest.raises(BadRegion, match="expected one that was added"):
        GuestMemory().remove(region)
    assert host.memory.read(0x1000, 96) == bytes(96)


def test_what_was_removed_is_there_no_more_and_can_be_added_again() -> None:
    host = _host()
    host.memory.write(SECOND.iova, b"second")
    host.memory.remove(SECOND)
    host.mappings.pop(SECOND).close()
    for address in (SECOND.iova, SECOND.iova - 1, SECOND.end - 1):
        with pytest.raises(OutsideMemory):
            host.memory.read(address, 2)
    host.add(SECOND)
    assert host.memory.read(SECOND.iova, 6) == bytes(6)


# --- accesses ---


@pytest.mark.parametrize(
    ("address", "size", "hole"),
    [
        (0xFFF, 1, 0xFFF),
        (0xFFF, 2, 0xFFF),
        (0x1000, 97, 0x1060),
        (0x1060, 1, 0x1060),
        (0x106F, 2, 0x106F),
        (0x105F, 18, 0x1060),
        (0x107F, 2, 0x1080),
        (0x1080, 1, 0x1080),
        (0, 1 << 32, 0),
        ((1 << 64) - 1, 1 << 32, (1 << 64) - 1),
    ],
)
def test_an_access_to_what_is_no_memory_is_refused_whole(
    address: int, size: int, hole: int
) -> None:
    host = _host()
    expected = (
        f"{size} bytes at {address:#x} reach outside the memory: "
        f"expected a region at {hole:#x}, got none"
    )
    with pytest.raises(OutsideMemory, match=expected):
        host.memory.read(address, size)
    with pytest.raises(OutsideMemory, match=expected):
        host.memory.check(address, size)
    if size < 1000:
        with pytest.raises(OutsideMemory, match=expected):
            host.memory.write(address, b"x" * size)
    assert host.memory.read(FIRST.iova, 96) == bytes(96)
    assert host.memory.read(THIRD.iova, 16) == bytes(16)


def test_no_memory_at_all_has_no_address() -> None:
    memory = GuestMemory()
    for access in (memory.read, memory.check):
        with pytest.raises(OutsideMemory, match="expected a region at 0x0, got none"):
            access(0, 1)


_UNITS = st.lists(st.integers(1, 4), min_size=1, max_size=6)


@given(_UNITS, st.data())
def test_memory_of_any_regions_is_as_a_dictionary_of_bytes(
    sizes: list[int], data: st.DataObject
) -> None:
    gaps = data.draw(st.lists(st.integers(0, 1), min_size=len(sizes), max_size=len(sizes)))
    regions, at = [], 0x4000
    for size, gap in zip(sizes, gaps, strict=True):
        regions.append(Region(at + 16 * gap, 16 * size))
        at = regions[-1].end
    host = Host(*data.draw(st.permutations(regions)))
    expected = {at: 0 for region in regions for at in range(region.iova, region.end)}
    for _ in range(data.draw(st.integers(1, 12))):
        if data.draw(st.booleans()) and regions:
            gone = regions.pop(data.draw(st.integers(0, len(regions) - 1)))
            host.memory.remove(gone)
            host.mappings.pop(gone).close()
            for address in range(gone.iova, gone.end):
                del expected[address]
        address = data.draw(st.integers(0x3FF8, at + 8))
        wanted = data.draw(st.binary(min_size=1, max_size=100))
        span = range(address, address + len(wanted))
        if all(each in expected for each in span):
            assert host.memory.read(address, len(wanted)) == bytes(expected[each] for each in span)
            host.memory.check(address, len(wanted))
            host.memory.write(address, wanted)
            expected.update(zip(span, wanted, strict=True))
        else:
            with pytest.raises(OutsideMemory):
                host.memory.write(address, wanted)
        for region in regions:
            there = bytes(expected[each] for each in range(region.iova, region.end))
            assert host.memory.read(region.iova, region.size) == there
    host.memory.release()
    host.close()


# --- stretches ---


def test_a_stretch_is_the_memory_itself() -> None:
    host = _host()
    with host.memory.stretch(Region(0x1010, 16)) as stretch:
        stretch[3] = 7
        host.memory.write(0x1014, b"\x08")
        assert bytes(stretch[3:5]) == b"\x07\x08"
        assert host.memory.read(0x1013, 2) == b"\x07\x08"


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (Region(0x1030, 32), r"expected \[0x1030, 0x1050\) within one region, got it in 2"),
        (Region(0x1050, 32), "outside the memory"),
        (Region(0x2000, 2), "outside the memory"),
    ],
)
def test_a_stretch_lies_within_one_region(part: Region, text: str) -> None:
    with pytest.raises(OutsideMemory, match=text):
        _host().memory.stretch(part)


def test_a_region_in_use_is_not_removed_and_others_are() -> None:
    host = _host()
    used = host.memory.stretch(Region(0x1030, 16))
    host.memory.stretch(Region(0x1000, 16)).release()
    expected = r"region \[0x1000, 0x1040\): .* one that uses \[0x1030, 0x1040\); stop it first"
    for _ in range(2):
        with pytest.raises(BadRegion, match=expected):
            host.memory.remove(FIRST)
        with pytest.raises(BadRegion, match=r"one that uses \[0x1030, 0x1040\)"):
            host.memory.release()
        assert host.memory.read(0x1000, 96) == bytes(96)
    host.memory.remove(SECOND)
    used.release()
    host.memory.remove(FIRST)
    host.memory.release()
    host.close()


def test_an_access_keeps_nothing_of_the_memory_not_even_when_it_was_refused() -> None:
    host = _host()
    kept = [host.memory.read(0x1030, 32)]
    host.memory.write(0x1030, kept[0])
    with pytest.raises(OutsideMemory) as read:
        host.memory.read(0x1050, 32)
    with pytest.raises(OutsideMemory) as written:
        host.memory.write(0x1050, bytes(32))
    host.memory.release()
    host.close()
    assert read.value.__traceback__ is not written.value.__traceback__
