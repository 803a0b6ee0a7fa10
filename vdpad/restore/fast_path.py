"""Where a program's full banks come back, worked out ahead: what the fast loop of a replay reads.

Banks go round the ring, and a full one takes a whole segment, so full banks are returned at the
same few places, in turn. For each of these the used elements and the acks are views that were made
beforehand. `Pipeline.run_fast` has the loop.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import NamedTuple

from vdpad.restore.program import Bank, Program
from vdpad.virtio.commands import ACK_OK
from vdpad.virtio.driver_ring import DriverRing
from vdpad.virtio.split_ring import USED_ELEMENT


class BankPlace(NamedTuple):
    """Where a full bank comes back: reads its used elements and its acks."""

    used_elements: Callable[[], bytes]
    completions: bytes
    acks: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class FastPath:
    """Where full banks come back: always at the same few places, one after the other."""

    banks: tuple[Bank, ...]
    slots: int
    """Commands of a full bank."""
    full: int
    """So many banks are full: all, or all but the last."""
    segments: int
    places: tuple[BankPlace, ...]
    """By a bank's number modulo how many there are, a power of two."""
    all_ok: bytes
    views: tuple[memoryview, ...]
    """What the places read, to be released."""

    def fit(self, returned: int, following: int) -> bool:
        """Whether each segment's full bank is in flight, and none of them came back in part."""
        oldest = following - self.segments
        return oldest >= 0 and following < self.full and returned == oldest * self.slots

    def after(self, oldest: int) -> Iterator[tuple[Bank, BankPlace]]:
        """Each full bank that follows those in flight, and the place of the bank it replaces."""
        first = oldest % len(self.places)
        places = self.places[first:] + self.places[:first]
        return zip(self.banks[oldest + self.segments : self.full], cycle(places), strict=False)

    def close(self) -> None:
        """Lets go of the ring's memory."""
        for view in self.views:
            view.release()


def fast_path(program: Program, ring: DriverRing, start: int) -> FastPath | None:
    """Where this program's full banks come back; None where they are not all full."""
    if not program.heads_in_ring:
        return None
    segments, slots = program.segments, program.segments[0].slots
    views: list[memoryview] = []
    places = []
    for turn in range(ring.size // slots):
        segment = segments[turn % len(segments)]
        begin = (start + turn * slots) % ring.size
        acks = ring.buffers[segment.buffers_at : segment.buffers_at + slots]
        used = ring.used_bytes[begin * USED_ELEMENT.size : (begin + slots) * USED_ELEMENT.size]
        views += [acks, used]
        in_one = len(used) == len(segment.completions)
        read = used.tobytes if in_one else partial(ring.used_elements, begin, slots)
        places.append(BankPlace(read, segment.completions, acks.tobytes))
    full = sum(bank.count == slots for bank in program.banks)
    all_ok = bytes([ACK_OK]) * slots
    return FastPath(program.banks, slots, full, len(segments), tuple(places), all_ok, tuple(views))
