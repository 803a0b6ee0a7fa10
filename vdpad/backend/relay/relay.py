"""One receive queue's used ring, relayed to the guest, so that what the device writes is logged.

How it works. There are two used rings of one size and with the same indices: the *guest's*, in its
memory, and *ours*, which the device was told is the queue's. Descriptor table and available ring
stay the guest's. A *turn* takes what the device has returned in ours, marks the pages that it can
have written, and returns it to the guest in bulk; and it passes on what the device asks to be
kicked for. It says whether the guest is to be called and the device kicked; who takes turns does
both, at least every few milliseconds, since neither side's wishes are seen by anyone else (rule
10), and on one thread only (rule 12). Between `begin` and `finish` nobody but a turn stores to the
guest's used ring, and nobody but the device to ours.

What orders what. Each was found to be needed; the model in the tests has a mutation for each.

1. `begin` comes while the device stands still, with the guest's used index where the device goes
   on. Ours is a copy of the guest's, so that neither side sees an index or a wish leap.
2. A turn loads our index, then elements, then their descriptors, all before it stores the guest's
   index: from then on descriptors are the guest's to reuse.
3. Pages are marked after our index was loaded: the device's data were there before it. They go by
   the length returned and never by the available ring, whose buffers the device has not filled;
   but for the chains that IN_ORDER lets it skip, up to the one that it tells (in_order.py).
4. Elements are stored, then the index: by one 16-bit store, and only a value that the device itself
   has published, so that packets in several buffers stay whole.
5. The guest's used ring is marked after those stores, and always. A mark that is skipped since its
   bit is set goes by a bit that the front end may clear, and copy the page, while our store is
   still on its way.
6. The device's avail_event (flags without RING_EVENT_IDX), where it has moved, is stored to the
   guest's ring, which is marked for it too.
7. A full fence stands between 4 to 6 and 8 to 9: each stores what one side looks at, and loads what
   that side has stored before it looked.
8. Whether the guest is called goes by its own used_event (available flags) and by how far its
   index has moved. The device judges by ours, which runs ahead: its calls only wake us.
9. Where avail_event has moved, the guest may have published by the old one, and not kicked: the
   device is kicked if anything is available past the new one. Of flags, at every 1 → 0.

`finish`, of a device that stands still again, is rule 11: turns until nothing is new.

The fences are fences.py's. On x86-64 loads are kept in order, and so are stores, mark and ring
among them; only 7 needs an instruction, which taking a lock is. arm64 keeps neither, so there a
full fence, by libatomic, stands at each place that says `ordering_fence`: behind the load of our
index (2, 3), before the store of the guest's (4), and before the mark of its ring (5). A device's
own stores are in the order in which it published them on either (virtio 1.4, 2.7.13). Indices and
events are single native accesses, through views of format "H"; driver_ring.py says why.

A ring that makes no sense ends the relay: what can be marked is, and nothing more is returned.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from vdpad.backend.relay.faults import DeviceBroken, RingMoved
from vdpad.backend.relay.in_order import each_returned
from vdpad.backend.relay.written import MemoryLog, WrittenBuffers
from vdpad.virtio.chains import DescriptorTable
from vdpad.virtio.device_side import ring_stretches
from vdpad.virtio.fences import full_fence, ordering_fence
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import (
    AVAIL_F_NO_INTERRUPT,
    RING_HEADER,
    USED_ELEMENT,
    USED_F_NO_NOTIFY,
    SplitAddresses,
    distance,
    wants_event,
)

# Of a ring as 16-bit words.
_FLAGS, _INDEX, _ENTRIES, _EVENT = 0, 1, 2, -1

# An index that is less than half of all indices ahead is ahead, and not behind.
_HALF = 1 << 15


class Words(Protocol):
    """A ring as 16-bit words, each loaded and stored at once: a memoryview of format "H"."""

    def __getitem__(self, at: int, /) -> int: ...

    def __setitem__(self, at: int, word: int, /) -> None: ...


class Contents(Protocol):
    """A ring as bytes."""

    def __getitem__(self, at: slice, /) -> "memoryview | bytes": ...

    def __setitem__(self, at: slice, contents: "memoryview | bytes", /) -> None: ...


@dataclass(frozen=True, slots=True)
class UsedRing:
    """A used ring, event index included."""

    words: Words
    contents: Contents


@dataclass(frozen=True, slots=True)
class RelayedQueue:
    """What a relay works on."""

    size: int
    """Entries of the ring."""
    place: Region
    """Of the guest's used ring."""
    available: Words
    guests: UsedRing
    ours: UsedRing
    descriptors: DescriptorTable


class Due(NamedTuple):
    """What a turn leaves to be done."""

    returned: int
    """Chains that it returned to the guest."""
    calls: bool
    """The guest is to be called."""
    kicks: bool
    """The device is to be kicked."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing was returned and nothing is to be done."""
        return self == _NOTHING


_NOTHING = Due(0, calls=False, kicks=False)


def queue_in(
    views: ExitStack,
    memory: GuestMemory,
    addresses: SplitAddresses,
    ours: memoryview,
    *,
    indirect: bool,
) -> RelayedQueue:
    """A guest's queue, with a used ring of ours.

    Args:
        views: releases the stretches of the guest's memory when it is closed.
        memory: where the queue lies.
        addresses: of its ring, checked.
        ours: the bytes of our used ring, on a multiple of 4; they stay the caller's.
        indirect: RING_INDIRECT_DESC was negotiated.

    Raises:
        BadGeometry: a part lies outside the memory, or across two regions of it.
    """
    descriptors, available, guests = ring_stretches(views, memory, addresses)
    place = addresses.parts()["used"]
    own = views.enter_context(ours[: place.size])
    return RelayedQueue(
        addresses.size,
        place,
        views.enter_context(available.cast("H")),
        UsedRing(views.enter_context(guests.cast("H")), guests),
        UsedRing(views.enter_context(own.cast("H")), own),
        DescriptorTable(memory, addresses.descriptors, descriptors, indirect=indirect),
    )


class Relay:
    """The relay of one queue. It makes no system call and knows no thread."""

    def __init__(
        self,
        queue: RelayedQueue,
        memory: GuestMemory,
        log: MemoryLog,
        *,
        event_idx: bool,
        in_order: bool = False,
    ) -> None:
        """
        Args:
            queue: in that memory.
            memory: changed between two turns only.
            log: what is marked; of the thread that takes turns.
            event_idx: RING_EVENT_IDX was negotiated.
            in_order: IN_ORDER was negotiated.
        """
        self._size = queue.size
        self._place = queue.place
        self._available = queue.available
        self._guests = queue.guests
        self._ours = queue.ours
        self._written = WrittenBuffers(memory, queue.descriptors, log, size=queue.size)
        self._log = log
        self._event_idx = event_idx
        self._in_order = in_order
        self._wish_at = _EVENT if event_idx else _FLAGS
        self._seen = self._told = 0

    def set_log(self, log: MemoryLog) -> None:
        """Marks in another log from the next turn on."""
        self._log = log
        self._written.set_log(log)

    def begin(self) -> None:
        """Makes our used ring the guest's (rule 1); the device stands still."""
        self._ours.contents[:] = self._guests.contents[:]
        self._seen = self._ours.words[_INDEX]
        self._told = self._ours.words[self._wish_at]

    def turn(self) -> Due:
        """Relays what there is, in a time bounded by the ring's size.

        Raises:
            RingMoved: the device does not write to our ring.
            DeviceBroken: it cannot have returned so many chains.
            BadChain: what it returned is nothing that the guest can have made available. All else
                that came with it was marked.
        """
        self._check_unmoved()
        old, new = self._seen, self._ours.words[_INDEX]
        ordering_fence()
        if new != old:
            self._give_back(old, distance(new, old))
        wish = self._ours.words[self._wish_at]
        moved = wish != self._told
        if moved:
            self._pass_on(wish)
        if new == old and not moved:
            return _NOTHING
        ordering_fence()
        self._log.mark(self._place.iova, self._place.size)
        full_fence()
        return Due(
            distance(new, old),
            calls=new != old and self._guest_wants_call(new, old),
            kicks=moved and self._device_wants_kick(wish),
        )

    def finish(self) -> Due:
        """Relays all that a device has left which stands still by now (rule 11).

        Raises:
            DeviceBroken: it does not stand still; or as of `turn`, with the rest.
        """
        first, second = self.turn(), self.turn()
        if not second.is_idle:
            raise DeviceBroken(
                "expected a device that stands still to leave our used ring alone, it returned "
                f"{second.returned} chains more"
            )
        self._check_unmoved()
        return first

    def _give_back(self, old: int, count: int) -> None:
        if count > self._size:
            raise DeviceBroken(
                f"expected at most {self._size} chains back in a ring of as many entries, got "
                f"{count}; the device is broken"
            )
        stretches = self._stretches(old, count)
        elements = [bytes(self._ours.contents[at]) for at in stretches]
        self._written.mark(self._each(b"".join(elements), old, count))
        for at, contents in zip(stretches, elements, strict=True):
            self._guests.contents[at] = contents
        self._seen = (old + count) & 0xFFFF
        ordering_fence()
        self._guests.words[_INDEX] = self._seen

    def _each(self, elements: bytes, old: int, count: int) -> bytes:
        """An element for each chain, also where the device has told of a batch by one."""
        if not self._in_order:
            return elements
        heads = [self._available[_ENTRIES + at % self._size] for at in range(old, old + count)]
        return each_returned(elements, heads)

    def _stretches(self, old: int, count: int) -> list[slice]:
        """Where these elements stand: two stretches where they go round the ring's end."""
        first = old % self._size
        upto = min(first + count, self._size)
        stretches = [_elements(first, upto)]
        if upto < first + count:
            stretches.append(_elements(0, first + count - upto))
        return stretches

    def _pass_on(self, wish: int) -> None:
        self._guests.words[self._wish_at] = wish
        self._told = wish

    def _guest_wants_call(self, new: int, old: int) -> bool:
        if self._event_idx:
            return wants_event(self._available[_EVENT], new, old)
        return not self._available[_FLAGS] & AVAIL_F_NO_INTERRUPT

    def _device_wants_kick(self, wish: int) -> bool:
        if self._event_idx:
            return distance(self._available[_INDEX], wish + 1) < _HALF
        return not wish & USED_F_NO_NOTIFY

    def _check_unmoved(self) -> None:
        index = self._guests.words[_INDEX]
        if index != self._seen:
            raise RingMoved(
                f"expected the guest's used index to stay at {self._seen}, got {index}: the device "
                "does not write to our used ring; all memory has to be taken as written"
            )


def _elements(first: int, upto: int) -> slice:
    size = USED_ELEMENT.size
    return slice(RING_HEADER + first * size, RING_HEADER + upto * size)
