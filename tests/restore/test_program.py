"""The program: every command once and in order, in descriptors and buffers that never overlap."""

import struct
import tracemalloc
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.batches import mixed, vlans
from tests.support.commands import COMMANDS
from tests.support.marks import with_and_without_event_idx
from vdpad.errors import VdpadError
from vdpad.restore.program import Bank, Program, check_room, encode, largest_command
from vdpad.virtio.commands import ACK_NONE, CoalVqSet, Command, MacTableSet, MqRssConfig
from vdpad.virtio.rings import BadGeometry, Region
from vdpad.virtio.split_ring import DESCRIPTOR, SplitGeometry, lay_out

IOVA = 0x7F0000000000
SIZES = [1 << power for power in range(1, 16)]


def _geometry(size: int, buffers: int) -> SplitGeometry:
    ring = lay_out(size, Region(IOVA, 1 << 40)).buffers.iova - IOVA
    return lay_out(size, Region(IOVA, ring + buffers))


class Placed(NamedTuple):
    """Where a command of a bank stands: its head, what it may touch, and its bytes."""

    head: int
    descriptors: frozenset[int]
    buffers: frozenset[int]
    readable: bytes


class _Memory:
    """Applies banks as the replay does, and reads them back as a device does."""

    def __init__(self, geometry: SplitGeometry) -> None:
        self._geometry = geometry
        self._descriptors = bytearray(DESCRIPTOR.size * geometry.size)
        self._buffers = bytearray(geometry.buffers.size)

    def copy(self, bank: Bank) -> list[Placed]:
        self._buffers[bank.buffers_at] = bank.buffers
        if bank.descriptors is not None:
            self._descriptors[bank.descriptors_at] = bank.descriptors
        assert len(self._buffers) == self._geometry.buffers.size
        assert len(self._descriptors) == DESCRIPTOR.size * self._geometry.size
        assert self._buffers[bank.acks_at] == bytes([ACK_NONE]) * bank.count
        return [self._placed(head) for (head,) in struct.iter_unpack("<H", bank.heads)]

    def _descriptor(self, index: int) -> tuple[int, int, int, int]:
        address, length, flags, following = DESCRIPTOR.unpack_from(
            self._descriptors, index * DESCRIPTOR.size
        )
        at = address - self._geometry.buffers.iova
        assert at >= 0
        assert length > 0
        assert at + length <= self._geometry.buffers.size
        return at, length, flags, following

    def _placed(self, head: int) -> Placed:
        at, length, flags, following = self._descriptor(head)
        ack_at, ack_length, ack_flags, _ = self._descriptor(following)
        assert (flags, ack_flags, ack_length) == (1, 2, 1)  # NEXT; WRITE; one byte
        assert self._buffers[ack_at] == ACK_NONE
        return Placed(
            head,
            frozenset({head, following}),
            frozenset({ack_at, *range(at, at + length)}),
            bytes(self._buffers[at : at + length]),
        )


def _in_flight_together(program: Program) -> Iterator[list[Placed]]:
    """Whenever a bank is copied in: all commands that may be in flight with it, in its order."""
    assert isinstance(program.geometry, SplitGeometry)
    memory = _Memory(program.geometry)
    recent: list[list[Placed]] = []
    for bank in program.banks:
        recent = [*recent, memory.copy(bank)][-len(program.segments) :]
        yield [placed for each in recent for placed in each]


def _assert_sound(program: Program) -> None:
    """All commands once and in order; nothing in flight shares a descriptor or a byte."""
    sent: list[bytes] = []
    for bank, together in zip(program.banks, _in_flight_together(program), strict=True):
        assert bank.first == len(sent)
        assert bank.count >= 1
        assert len(bank.heads) == 2 * bank.count
        sent += [placed.readable for placed in together[-bank.count :]]
        assert len(together) <= program.geometry.size // 2
        descriptors = [index for placed in together for index in placed.descriptors]
        assert len(set(descriptors)) == len(descriptors)
        touched = [at for placed in together for at in placed.buffers]
        assert len(set(touched)) == len(touched)
    assert sent == [command.encode() for command in program.commands]


@with_and_without_event_idx
@pytest.mark.parametrize("size", SIZES)
def test_a_ring_of_any_size_takes_all_commands(size: int, event_idx: bool) -> None:
    program = encode(mixed(600), _geometry(size, 64 * size), event_idx=event_idx)
    _assert_sound(program)


@with_and_without_event_idx
@pytest.mark.parametrize("size", [2, 4, 8, 64])
def test_a_batch_of_every_short_length_is_sound(size: int, event_idx: bool) -> None:
    for count in range(6, 70):
        _assert_sound(encode(mixed(count), _geometry(size, 64 * size), event_idx=event_idx))


@given(
    commands=st.lists(COMMANDS, max_size=40).map(tuple),
    size=st.sampled_from(SIZES[:8]),
    event_idx=st.booleans(),
    spare=st.integers(0, 3000),
)
def test_any_commands_fit_any_ring_that_takes_the_largest(
    commands: tuple[Command, ...], size: int, event_idx: bool, spare: int
) -> None:
    largest = max((len(command.encode()) for command in commands), default=31)
    geometry = _geometry(size, max(largest + 1, 32) + spare)
    assert largest <= largest_command(geometry)
    _assert_sound(encode(commands, geometry, event_idx=event_idx))


@with_and_without_event_idx
def test_one_command_may_fill_all_the_buffers(event_idx: bool) -> None:
    macs = tuple(n.to_bytes(6, "big") for n in range(200))
    huge = MacTableSet(macs, ())
    geometry = _geometry(64, len(huge.encode()) + 1)
    assert largest_command(geometry) == len(huge.encode())
    program = encode((*vlans(100), huge, *vlans(100)), geometry, event_idx=event_idx)
    _assert_sound(program)
    assert [bank.count for bank in program.banks if bank.first == 100] == [1]


@with_and_without_event_idx
def test_tiny_buffers_take_as_many_commands_as_fit(event_idx: bool) -> None:
    # A VLAN_ADD takes 4 bytes and its ack one: 6 of them in 32 bytes, 3 in each half.
    program = encode(vlans(20), _geometry(64, 32), event_idx=event_idx)
    _assert_sound(program)
    each = 3 if event_idx else 6
    assert {bank.count for bank in program.banks[:-1]} == {each}


@with_and_without_event_idx
def test_no_bank_goes_a_byte_past_its_buffers(event_idx: bool) -> None:
    for buffers in range(32, 100):
        _assert_sound(encode(vlans(30), _geometry(64, buffers), event_idx=event_idx))


@with_and_without_event_idx
def test_a_command_of_about_half_the_buffers_goes_into_half_or_all_of_them(event_idx: bool) -> None:
    half = MacTableSet((bytes(6),) * 4, ())
    length = len(half.encode())
    for buffers in range(2 * length - 2, 2 * length + 6):
        commands = (half, *vlans(9), half, half)
        _assert_sound(encode(commands, _geometry(64, buffers), event_idx=event_idx))


@with_and_without_event_idx
def test_no_commands_make_no_banks(event_idx: bool) -> None:
    program = encode((), _geometry(8, 100), event_idx=event_idx)
    assert (program.banks, program.segments, program.most_doorbells) == ((), (), 0)


# --- banks ---


@pytest.mark.parametrize(
    ("size", "event_idx", "banks"),
    [
        (64, False, [32, 32, 32, 4]),
        (64, True, [16, 16, 16, 16, 16, 16, 4]),
        (8, False, [4] * 25),
        (8, True, [2] * 50),
        (4, True, [1] * 100),
        (2, False, [1] * 100),
        (2, True, [1] * 100),
        (1024, False, [100]),
        (1024, True, [100]),
        (128, True, [32, 32, 32, 4]),
    ],
)
def test_a_bank_is_half_a_ring_with_event_idx_and_a_whole_one_without(
    size: int, event_idx: bool, banks: list[int]
) -> None:
    program = encode(vlans(100), _geometry(size, 64 * size), event_idx=event_idx)
    assert [bank.count for bank in program.banks] == banks


@pytest.mark.parametrize(
    ("count", "event_idx", "doorbells"),
    [
        (1, False, 1),
        (32, False, 1),
        (33, False, 2),
        (64, False, 2),
        (65, False, 3),
        (1, True, 1),
        (16, True, 1),
        (17, True, 1),
        (32, True, 1),
        (33, True, 2),
        (48, True, 2),
        (49, True, 3),
    ],
)
def test_a_batch_that_fits_the_ring_takes_one_doorbell_and_a_longer_one_few(
    count: int, event_idx: bool, doorbells: int
) -> None:
    program = encode(vlans(count), _geometry(64, 4096), event_idx=event_idx)
    assert program.most_doorbells == doorbells


@with_and_without_event_idx
def test_descriptors_are_written_once_for_commands_of_one_length(event_idx: bool) -> None:
    program = encode(vlans(4096), _geometry(64, 4096), event_idx=event_idx)
    written = [bank.first for bank in program.banks if bank.descriptors is not None]
    assert written == ([0, 16] if event_idx else [0])


def test_descriptors_are_written_again_where_a_length_changes() -> None:
    commands = (*vlans(32), *mixed(20)[:1], *vlans(31), *vlans(32))
    program = encode(commands, _geometry(64, 4096), event_idx=False)
    assert [bank.descriptors is not None for bank in program.banks] == [True, True, True]


def test_completions_are_what_an_orderly_device_writes() -> None:
    first, second, third = encode(vlans(5), _geometry(8, 4096), event_idx=True).banks
    assert first.completions == bytes.fromhex("00000000 01000000  02000000 01000000")
    assert second.completions == bytes.fromhex("04000000 01000000  06000000 01000000")
    assert third.completions == bytes.fromhex("00000000 01000000")
    assert first.heads + second.heads + third.heads == bytes.fromhex("0000 0200 0400 0600 0000")


# --- room ---


def test_a_ring_of_one_descriptor_takes_no_command() -> None:
    check_room(_geometry(2, 32))
    with pytest.raises(BadGeometry, match=r"ring\.size: expected at least 2, got 1") as refused:
        check_room(_geometry(1, 32))
    assert isinstance(refused.value, VdpadError)


def test_buffers_without_room_for_any_command_of_a_fixed_size_are_refused() -> None:
    check_room(_geometry(8, 32))
    with pytest.raises(BadGeometry, match=r"ring\.buffers: expected at least 32 bytes, got 31"):
        check_room(_geometry(8, 31))


@given(COMMANDS)
def test_the_smallest_buffers_take_every_command_of_a_fixed_size(command: Command) -> None:
    sized = {"MAC_TABLE_SET", "MQ_RSS_CONFIG", "MQ_HASH_CONFIG"}
    assert command.NAME in sized or len(command.encode()) <= largest_command(_geometry(2, 32))


# --- memory ---


def _coalescing() -> tuple[Command, ...]:
    return tuple(CoalVqSet(index, 1000 + index, 2000 + index) for index in range(4000))


def _rss() -> tuple[Command, ...]:
    table = tuple(1000 + at % 8000 for at in range(32768))
    return (MqRssConfig(frozenset({0}), 0, table, 9000, bytes(40)),)


def _vlans() -> tuple[Command, ...]:
    return tuple(vlans(4096))


@pytest.mark.parametrize("size", [2, 64, 32768])
@pytest.mark.parametrize("commands", [_coalescing, _rss, _vlans])
def test_a_program_takes_about_the_memory_that_it_says(
    size: int, commands: Callable[[], tuple[Command, ...]]
) -> None:
    """What holds memory from being filled reckons with it."""
    geometry = _geometry(size, 1 << 17)
    tracemalloc.start()
    try:
        program = encode(commands(), geometry, event_idx=True)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.6 < program.memory / taken < 2.5
