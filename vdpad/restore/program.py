"""The program: a plan encoded into what will be copied into the ring.

A ring takes half as many commands as it has descriptors, of a legacy device a quarter (framing.py);
images.py encodes them. These places and the buffers are divided into *segments*: two halves where
RING_EVENT_IDX lets a device be fed without a doorbell each time, else one that takes all
(docs/benchmarks.md). The commands are cut into *banks*, as many as a segment takes at a time; bank
k goes to segment k modulo the number of segments, once the bank before it there has come back
whole.

A bank is ready to be copied: `buffers` holds its acks, pre-filled, and then its commands, so one
slice copy both sends and re-arms; a split ring's `descriptors` are None where the segment's already
say the same, which they do through a run of equally long commands such as VLAN_ADD.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

from vdpad.restore.images import ACK, Buffers, Image, Images, images_for
from vdpad.virtio.commands import ACK_NONE, ACK_OK
from vdpad.virtio.framing import DESCRIPTORS, LEGACY_DESCRIPTORS, buffers_of
from vdpad.virtio.packed_driver_ring import Laps
from vdpad.virtio.packed_ring import PackedGeometry
from vdpad.virtio.raw_command import AnyCommand
from vdpad.virtio.rings import BadGeometry, RingGeometry
from vdpad.virtio.split_ring import DESCRIPTOR

# Commands of a fixed size have at most 18 bytes; the others a plan measures.
_LARGEST_FIXED = 18
_SMALLEST_BUFFERS = 32

# What the parts of a program take in memory, in bytes, as measured with Python 3.11: a bank, a
# command, and each encoded byte of those with a table, whose entries are numbers of their own.
_PER_BANK = 400
_PER_COMMAND = 130
_PER_BYTE_OF_TABLES = 26

# How many kinds of segments are remembered, each of up to 160 KiB: few, unless lenders make many.
_KINDS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A part of the ring's descriptors and buffers, filled with one bank at a time."""

    first_head: int
    """Its first descriptor."""
    slots: int
    """How many commands it takes."""
    per_command: int
    """Descriptors from one head to the next."""
    buffers_at: int
    """Where its buffers begin, in bytes from the start of the ring's buffers."""
    buffers_size: int
    """Bytes."""
    heads: bytes
    """Its chains' heads, le16 each, as they go into a split ring's available ring; a packed ring's
    buffer ids are the same."""
    completions: bytes
    """What the ring tells when the device has returned all its chains in order (track.py)."""


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Commands that are published together."""

    first: int
    """Index of its first command in the program."""
    count: int
    segment: Segment
    buffers: bytes
    """Acks, then commands."""
    buffers_at: slice
    """Where they go, in bytes of the ring's buffers."""
    acks_at: slice
    """Where the acks stand among them."""
    descriptors: bytes | None
    """A split ring's; None where they are there already."""
    descriptors_at: slice
    """Where they go, in bytes of the descriptor table."""
    laps: Laps
    """A packed ring's."""
    heads: bytes
    """What goes into a split ring's available ring, le16 each."""
    completions: bytes
    """What the ring tells when the device has returned all of it in order."""

    @property
    def end(self) -> int:
        """The index behind its last command."""
        return self.first + self.count

    def head(self, slot: int) -> int:
        """The id of the chain of one of its commands, counted from 0."""
        return self.segment.first_head + slot * self.segment.per_command


@dataclass(frozen=True, slots=True, eq=False)
class FullBanks:
    """The banks that a replay may take the fast way with: those that fill their segments."""

    banks: tuple[Bank, ...]
    """All of the program's."""
    segments: tuple[Segment, ...]
    slots: int
    """Commands of a full bank."""
    full: int
    """So many banks are full: all, or all but the last; 0 where others are not."""
    all_ok: bytes
    """The acks of one that was taken whole."""

    def fit(self, returned: int, following: int) -> bool:
        """Whether each segment's full bank is in flight, and none of them came back in part.

        Args:
            returned: how many commands are back.
            following: the number of the bank that is published next.
        """
        oldest = following - len(self.segments)
        return oldest >= 0 and following < self.full and returned == oldest * self.slots


@dataclass(frozen=True, slots=True)
class Program:
    """A plan, encoded for one ring."""

    commands: tuple[AnyCommand, ...]
    banks: tuple[Bank, ...]
    segments: tuple[Segment, ...]
    """Empty where there are no commands."""
    geometry: RingGeometry
    event_idx: bool
    heads_in_ring: bytes
    """What all of a split ring's available ring can hold from the start on, le16 each, so that
    publishing is no more than its index; empty where other banks than the last are not full."""
    full: FullBanks
    lengths: tuple[int, ...]
    """Bytes of each command."""

    @property
    def most_doorbells(self) -> int:
        """How often a replay rings at the most: the first banks share one doorbell."""
        return len(self.banks) - min(len(self.banks), len(self.segments)) + bool(self.banks)

    @property
    def most_in_flight(self) -> int:
        """How many commands the device may have at a time."""
        return min(len(self.commands), sum(segment.slots for segment in self.segments))

    @property
    def memory(self) -> int:
        """About how many bytes of memory it takes."""
        # There is at most one of each kind, so their lengths are as good as all of them.
        tables = sum(length for length in set(self.lengths) if length > _LARGEST_FIXED)
        rings = sum(len(each.heads) + len(each.completions) for each in self.segments)
        images = sum(len(each.descriptors or b"") for each in self.banks)
        images += sum(map(len, {id(lap): lap for each in self.banks for lap in each.laps}.values()))
        parts = _PER_BANK * len(self.banks) + _PER_COMMAND * len(self.commands)
        return parts + _PER_BYTE_OF_TABLES * tables + rings + images + len(self.heads_in_ring)

    @property
    def encoded(self) -> bytes:
        """All commands, one behind the other."""
        return b"".join(bank.buffers[bank.count :] for bank in self.banks)


def check_room(geometry: RingGeometry, *, legacy: bool = False) -> None:
    """Refuses a ring that cannot take even one command.

    Args:
        geometry: a checked one.
        legacy: commands are framed as a legacy device wants them.

    Raises:
        BadGeometry: too few descriptors, or next to no room for buffers.
    """
    least = LEGACY_DESCRIPTORS if legacy else DESCRIPTORS
    if geometry.size < least:
        why = " without VERSION_1 and ANY_LAYOUT" if legacy else ""
        raise BadGeometry(f"ring.size: expected at least {least}{why}, got {geometry.size}")
    if geometry.buffers.size < _SMALLEST_BUFFERS:
        raise BadGeometry(
            f"ring.buffers: expected at least {_SMALLEST_BUFFERS} bytes, "
            f"got {geometry.buffers.size}"
        )


def largest_command(geometry: RingGeometry) -> int:
    """How many bytes one command may have for a ring's buffers."""
    return geometry.buffers.size - ACK


def encode(
    commands: tuple[AnyCommand, ...],
    geometry: RingGeometry,
    *,
    event_idx: bool,
    legacy: bool = False,
) -> Program:
    """Encodes commands for a ring.

    Args:
        commands: none larger than `largest_command(geometry)`, which a plan sees to.
        geometry: a checked one, with room.
        event_idx: RING_EVENT_IDX was negotiated.
        legacy: they are framed as a legacy device wants them (framing.py).

    Raises:
        BadGeometry: a command is larger than the ring's buffers, or than the ring.
    """
    check_room(geometry, legacy=legacy)
    payloads = [command.encode() for command in commands]
    largest = max(map(len, payloads), default=0)
    if largest > largest_command(geometry):
        raise BadGeometry(
            f"ring.buffers: expected room for {largest} bytes, got {geometry.buffers.size}"
        )
    images = images_for(geometry, legacy=legacy)
    segments = _segments(geometry, images, largest, event_idx=event_idx) if payloads else ()
    lengths = tuple(map(len, payloads))
    buffers = tuple(map(partial(buffers_of, legacy=legacy), commands, lengths))
    banks = tuple(_banks(payloads, buffers, segments, images))
    split = not isinstance(geometry, PackedGeometry)
    uniform = all(bank.count == bank.segment.slots for bank in banks[:-1])
    heads_in_ring = _heads_in_ring(segments, geometry.size) if split and uniform else b""
    full = _full_banks(banks, segments, uniform=uniform)
    return Program(commands, banks, segments, geometry, event_idx, heads_in_ring, full, lengths)


def _full_banks(
    banks: tuple[Bank, ...], segments: tuple[Segment, ...], *, uniform: bool
) -> FullBanks:
    slots = segments[0].slots if segments else 0
    full = sum(bank.count == bank.segment.slots for bank in banks) if uniform else 0
    return FullBanks(banks, segments, slots, full, bytes([ACK_OK]) * slots)


def _heads_in_ring(segments: tuple[Segment, ...], size: int) -> bytes:
    heads = b"".join(segment.heads for segment in segments)
    # They come round as often as each command has descriptors.
    return heads * (2 * size // len(heads)) if heads else b""


def _segments(
    geometry: RingGeometry, images: Images, largest: int, *, event_idx: bool
) -> tuple[Segment, ...]:
    slots = geometry.size // images.per_command
    room = geometry.buffers.size
    if event_idx and slots > 1 and largest + ACK <= room // 2:
        return tuple(_segment(half, slots // 2, room // 2, images) for half in range(2))
    return (_segment(0, slots, room, images),)


def _segment(number: int, slots: int, room: int, images: Images) -> Segment:
    first_head = number * slots * images.per_command
    heads, completions = _heads_and_completions(
        first_head, slots, images.per_command, images.completion
    )
    return Segment(
        first_head=first_head,
        slots=slots,
        per_command=images.per_command,
        buffers_at=number * room,
        buffers_size=room,
        heads=heads,
        completions=completions,
    )


@lru_cache(_KINDS)
def _heads_and_completions(
    first_head: int, slots: int, step: int, completion: Callable[[int], bytes]
) -> tuple[bytes, bytes]:
    heads = range(first_head, first_head + slots * step, step)
    in_ring = b"".join(head.to_bytes(2, "little") for head in heads)
    return in_ring, b"".join(map(completion, heads))


def _banks(
    payloads: list[bytes], buffers: Buffers, segments: tuple[Segment, ...], images: Images
) -> Iterator[Bank]:
    first = number = 0
    while first < len(payloads):
        segment = segments[number % len(segments)]
        end = first + _fitting(payloads, first, segment)
        image = images.image(segment.first_head, segment.buffers_at, buffers[first:end])
        yield _bank(first, payloads[first:end], segment, image)
        first = end
        number += 1


def _bank(first: int, taken: list[bytes], segment: Segment, image: Image) -> Bank:
    count = len(taken)
    buffers = bytes([ACK_NONE]) * count + b"".join(taken)
    start = segment.first_head * DESCRIPTOR.size
    return Bank(
        first=first,
        count=count,
        segment=segment,
        buffers=buffers,
        buffers_at=slice(segment.buffers_at, segment.buffers_at + len(buffers)),
        acks_at=slice(segment.buffers_at, segment.buffers_at + count),
        descriptors=image.descriptors,
        descriptors_at=slice(start, start + len(image.descriptors or b"")),
        laps=image.laps,
        heads=segment.heads[: 2 * count],
        completions=segment.completions[: len(segment.completions) // segment.slots * count],
    )


def _fitting(payloads: list[bytes], first: int, segment: Segment) -> int:
    """How many of the payloads from first on a segment takes: at least one."""
    count = room_taken = 0
    for payload in payloads[first : first + segment.slots]:
        room_taken += len(payload) + ACK
        if room_taken > segment.buffers_size:
            break
        count += 1
    return count


def by_name(commands: tuple[AnyCommand, ...]) -> Counter[str]:
    """How many there are of each. To be counted when an operation is prepared: there is time."""
    return Counter(command.NAME for command in commands)
