"""The device's side of a split ring: takes what is available, returns what is used.

How it works. A chain is *taken* when its descriptors were found to make sense and its readable part
was copied. It is *in flight* until it is *put* back, in any order. In between its answer is
written, at addresses that are looked up again, since memory may have come and gone meanwhile.

While it works it asks for no doorbell; when nothing is left it asks for the next one and looks once
more, since a driver that published in between saw the old wish (virtio 1.4, 2.7.10).

It trusts the driver as little as a device may (device_side.py): whatever one does, a call takes no
more than about twice MAX_READABLE bytes, and MOST_BUFFERS or one chain; and no more chains are in
flight than the ring has entries.

Indices are stored and read as one native access; driver_ring.py says why.

Source: virtio 1.4, 2.7 "Split Virtqueues".
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from vdpad.virtio.chains import BadChain, DescriptorTable
from vdpad.virtio.device_side import (
    MAX_READABLE,
    Chain,
    DeviceSide,
    copied,
    ring_stretches,
    some,
)
from vdpad.virtio.fences import full_fence, ordering_fence
from vdpad.virtio.guest_memory import GuestMemory, OutsideMemory
from vdpad.virtio.rings import DESC_F_NEXT, DESC_F_WRITE, BadGeometry, Region
from vdpad.virtio.split_ring import (
    AVAIL_F_NO_INTERRUPT,
    DESCRIPTOR,
    INDEX_MASK,
    RING_HEADER,
    USED_ELEMENT,
    USED_F_NO_NOTIFY,
    SplitAddresses,
    distance,
    wants_event,
)

# Two descriptors side by side.
_PAIR = struct.Struct(DESCRIPTOR.format + DESCRIPTOR.format[1:])


class DeviceRing(DeviceSide):
    """The device's side of a ring in a driver's memory. Not for two users at once."""

    def __init__(
        self,
        memory: GuestMemory,
        addresses: SplitAddresses,
        *,
        next_available: int,
        event_idx: bool,
        indirect: bool,
        answered: bool = True,
    ) -> None:
        """Looks at the ring and writes nothing; `idle` asks for the first doorbell.

        Args:
            memory: where the ring and its buffers lie.
            addresses: unchecked; each part may lie in another region.
            next_available: the available index to go on from: 0 … 65535. The used ring says
                where the used index goes on; what lies between is in flight already.
            event_idx: RING_EVENT_IDX was negotiated.
            indirect: RING_INDIRECT_DESC was negotiated.
            answered: each chain must have room for an answer, as those of a CVQ; not so where
                packets are sent.

        Raises:
            BadGeometry: this cannot be a ring; a part lies outside the memory, or across two
                regions of it; or there are more chains in flight than the ring has entries.
        """
        addresses.check()
        self._memory = memory
        self._size = addresses.size
        self._event_idx = event_idx
        self._answered = answered
        with ExitStack() as views:
            parts = ring_stretches(views, memory, addresses)
            self._descriptors, available, self._used_bytes = parts
            self._table = DescriptorTable(
                memory, addresses.descriptors, self._descriptors, indirect=indirect
            )
            self._available = views.enter_context(available.cast("H"))
            self._used = views.enter_context(self._used_bytes.cast("H"))
            used_index = self._used[1]
            _check_start(next_available, used_index, addresses.size)
            self._views = views.pop_all()
        self._go_on_from(next_available, used_index)

    def begin_anew(self, index: int) -> None:
        """Its driver has made the ring anew: it is idle, both indices are this: 0 … 65535."""
        self._go_on_from(index, index)

    def _go_on_from(self, next_available: int, next_used: int) -> None:
        self._next_available = next_available
        self._next_used = self._interrupted_at = next_used
        self._ahead = 0

    @property
    def next_available(self) -> int:
        """Where the next chain will be taken from."""
        return self._next_available

    @property
    def next_used(self) -> int:
        """Where the next chain will be returned to. Where chains are returned in the order in which
        they were taken, a ring that stops here starts with it, and those in flight are taken anew.
        """
        return self._next_used

    def take(self) -> list[Chain]:
        """Chains that have been made available, and asks for no doorbell meanwhile.

        All of them, or as many as come to MAX_READABLE bytes, or to MOST_BUFFERS; the next call
        gives the others.

        Raises:
            BadChain: the driver's ring makes no sense. Chains before a bad one are taken first, so
                it is raised by the call that would begin with it.
        """
        if not self._event_idx:
            self._used[0] = USED_F_NO_NOTIFY
        chains = some(self._available_chains())
        self._next_available = (self._next_available + len(chains)) & INDEX_MASK
        return chains

    def idle(self) -> bool:
        """Asks for the next doorbell; False where something has come in the meantime."""
        if self._event_idx:
            self._used[-1] = self._next_available
        else:
            self._used[0] = 0
        full_fence()
        return self._available[1] == self._next_available

    def put_together(self, returned: Sequence[tuple[int, int]]) -> None:
        """Returns chains, so that the driver sees all of them or none; each as of `put`."""
        for head, length in returned:
            at = RING_HEADER + self._next_used % self._size * USED_ELEMENT.size
            self._used_bytes[at : at + USED_ELEMENT.size] = USED_ELEMENT.pack(head, length)
            self._next_used = (self._next_used + 1) & INDEX_MASK
        ordering_fence()
        self._used[1] = (self._next_used + self._ahead) & INDEX_MASK

    def put_in_one(self, returned: Sequence[tuple[int, int]]) -> None:
        """Returns chains in the order in which they were taken, and tells of the last one alone.

        For who has negotiated IN_ORDER (virtio 1.4, 2.7.9). Each as of `put`, at least one.
        """
        head, length = returned[-1]
        at = RING_HEADER + self._next_used % self._size * USED_ELEMENT.size
        self._used_bytes[at : at + USED_ELEMENT.size] = USED_ELEMENT.pack(head, length)
        self._next_used = (self._next_used + len(returned)) & INDEX_MASK
        ordering_fence()
        self._used[1] = self._next_used

    def run_ahead(self) -> None:
        """From now on shows a used index that no driver can believe."""
        self._ahead = self._size

    def wants_interrupt(self) -> bool:
        """Whether the driver wants to hear of what was returned since this was last asked."""
        full_fence()
        old, self._interrupted_at = self._interrupted_at, self._next_used
        if old == self._next_used:
            return False
        if self._event_idx:
            return wants_event(self._available[-1], self._next_used, old)
        return not self._available[0] & AVAIL_F_NO_INTERRUPT

    def _made_available(self) -> range:
        """The available indices of the chains that are there to take, which may exceed 16 bits."""
        start = self._next_available
        count = distance(self._available[1], start)
        ordering_fence()
        in_flight = distance(start, self._next_used)
        if count + in_flight > self._size:
            raise BadChain(
                f"expected room for them beside the {in_flight} in flight, "
                f"got {count} chains available in a ring of {self._size}"
            )
        return range(start, start + count)

    def _available_chains(self) -> Iterator[tuple[Chain, int]]:
        for index in self._made_available():
            # Behind flags and index, which are two words.
            head = self._available[2 + index % self._size]
            try:
                found = self._command(head) or self._chain(head)
            except (BadChain, OutsideMemory) as error:
                raise BadChain(f"chain {head}: {error}") from error
            yield found

    def _command(self, head: int) -> tuple[Chain, int] | None:
        """A chain as drivers send commands: two descriptors side by side, one buffer to read and
        one to write; and how many buffers it has. None for any other: it is looked at anew.

        Raises:
            OutsideMemory: a buffer is not all memory.
        """
        if head + 1 >= self._size:
            return None
        pair = _PAIR.unpack_from(self._descriptors, head * DESCRIPTOR.size)
        address, length, flags, following, answer, room, answer_flags, _ = pair
        is_command = flags == DESC_F_NEXT and following == head + 1 and answer_flags == DESC_F_WRITE
        if not is_command or not room or not 0 < length <= MAX_READABLE:
            return None
        self._memory.check(answer, room)
        return Chain(head, self._memory.read(address, length), (Region(answer, room),), 2), 2

    def _chain(self, head: int) -> tuple[Chain, int]:
        return copied(self._memory, head, self._table.walk(head), answered=self._answered)


def _check_start(next_available: int, used_index: int, size: int) -> None:
    if distance(next_available, used_index) > size:
        raise BadGeometry(
            f"ring.used: expected its index at most {size} behind the available index "
            f"{next_available}, got {used_index}"
        )
