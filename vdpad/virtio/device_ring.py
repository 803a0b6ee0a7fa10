"""The device's side of a split ring: takes what is available, returns what is used.

How it works. A chain is *taken* when its descriptors were found to make sense and its readable part
was copied. It is *in flight* until it is *put* back, in any order. In between its answer is
written, at addresses that are looked up again, since memory may have come and gone meanwhile.

While it works it asks for no doorbell; when nothing is left it asks for the next one and looks once
more, since a driver that published in between saw the old wish (virtio 1.4, 2.7.10).

It trusts the driver as little as a device may, beginning with its chains (chains.py): a buffer is
checked to be memory, and how much there is to read is bounded, before any of it is read. Whatever
a driver does, one call takes no more than about twice MAX_READABLE bytes, and no more chains are in
flight than the ring has entries.

Indices are stored and read as one native access; driver_ring.py says why.

Source: virtio 1.4, 2.7 "Split Virtqueues".
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from vdpad.virtio.chains import BadChain, DescriptorTable
from vdpad.virtio.fences import full_fence, ordering_fence
from vdpad.virtio.guest_memory import GuestMemory, OutsideMemory
from vdpad.virtio.rings import DESC_F_WRITE, BadGeometry, Region
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

MAX_READABLE = 1 << 20
"""Bytes that a chain may have for the device to read. The largest RSS command has 131 KiB. Stops a
chain whose descriptors all name the same gigabyte."""


class Chain(NamedTuple):
    """A command that was made available."""

    head: int
    """Its first descriptor, which is its name in the used ring."""
    readable: bytes
    """A copy of all device-readable buffers."""
    writable: tuple[Region, ...]
    """The device-writable buffers. Of a command at least a byte: the ack, and behind it what some
    commands answer (virtio 1.4, 5.1.6.5)."""
    descriptors: int
    """How many of the ring's it takes: at least one, whatever stands in an indirect table."""

    @property
    def room(self) -> int:
        """How many bytes may be written."""
        return sum(size for _, size in self.writable)


class DeviceRing:
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
            descriptors, available, self._used_bytes = parts
            self._table = DescriptorTable(
                memory, addresses.descriptors, descriptors, indirect=indirect
            )
            self._available = views.enter_context(available.cast("H"))
            self._used = views.enter_context(self._used_bytes.cast("H"))
            used_index = self._used[1]
            _check_start(next_available, used_index, addresses.size)
            self._views = views.pop_all()
        self._next_available = next_available
        self._next_used = self._interrupted_at = used_index
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

        All of them, or as many as come to MAX_READABLE bytes; the next call gives the others.

        Raises:
            BadChain: the driver's ring makes no sense. Chains before a bad one are taken first, so
                it is raised by the call that would begin with it.
        """
        if not self._event_idx:
            self._used[0] = USED_F_NO_NOTIFY
        chains: list[Chain] = []
        room = MAX_READABLE
        for index in self._made_available():
            # Behind flags and index, which are two words.
            head = self._available[2 + index % self._size]
            try:
                chain = self._chain(head)
            except (BadChain, OutsideMemory) as error:
                if chains:
                    break
                raise BadChain(f"chain {head}: {error}") from error
            chains.append(chain)
            room -= len(chain.readable) + DESCRIPTOR.size * len(chain.writable)
            if room <= 0:
                break
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

    def answer(self, chain: Chain, answer: bytes) -> None:
        """Writes a chain's writable part from its first byte on; the chain is not returned yet.

        Raises:
            BadChain: the answer is longer than that, or its memory is there no more. Part of it may
                have been written.
        """
        left = answer
        try:
            for address, size in chain.writable:
                if len(left) <= size:
                    self._memory.write(address, left)
                    return
                self._memory.write(address, left[:size])
                left = left[size:]
        except OutsideMemory as error:
            raise BadChain(f"chain {chain.head}: {error}") from error
        raise BadChain(
            f"chain {chain.head}: expected room for an answer of {len(answer)} bytes, "
            f"got {len(answer) - len(left)} device-writable ones"
        )

    def put(self, head: int, length: int) -> None:
        """Returns a chain that was taken.

        Args:
            head: its first descriptor.
            length: how many bytes were written into it.
        """
        self.put_together([(head, length)])

    def put_together(self, returned: Sequence[tuple[int, int]]) -> None:
        """Returns chains, so that the driver sees all of them or none; each as of `put`."""
        for head, length in returned:
            at = RING_HEADER + self._next_used % self._size * USED_ELEMENT.size
            self._used_bytes[at : at + USED_ELEMENT.size] = USED_ELEMENT.pack(head, length)
            self._next_used = (self._next_used + 1) & INDEX_MASK
        ordering_fence()
        self._used[1] = (self._next_used + self._ahead) & INDEX_MASK

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

    def release(self) -> None:
        """Lets go of the memory."""
        self._views.close()

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

    def _chain(self, head: int) -> Chain:
        readable: list[bytes] = []
        writable: list[Region] = []
        room = MAX_READABLE
        descriptors = 0
        for address, length, flags, descriptors in self._table.walk(head):  # noqa: B007
            if not length:
                raise BadChain(f"expected at least a byte, got a buffer of 0 bytes at {address:#x}")
            if flags & DESC_F_WRITE:
                self._memory.check(address, length)
                writable.append(Region(address, length))
                continue
            if writable:
                raise BadChain(
                    "expected all readable buffers before the writable ones, "
                    f"got one at {address:#x} behind them"
                )
            room -= length
            if room < 0:
                self._memory.check(address, length)
                raise BadChain(f"expected at most {MAX_READABLE} readable bytes, got more")
            readable.append(self._memory.read(address, length))
        if self._answered and not writable:
            raise BadChain("expected a byte for an ack, got no device-writable byte")
        return Chain(head, b"".join(readable), tuple(writable), descriptors)


def ring_stretches(
    views: ExitStack, memory: GuestMemory, addresses: SplitAddresses
) -> list[memoryview]:
    """A ring's parts in memory: descriptor table, available ring, used ring.

    Args:
        views: releases them when it is closed.
        memory: in which they lie.
        addresses: of the ring.

    Raises:
        BadGeometry: one lies outside the memory, or across two regions of it.
    """
    found = []
    for name, part in addresses.parts().items():
        try:
            found.append(views.enter_context(memory.stretch(part)))
        except OutsideMemory as error:
            raise BadGeometry(f"ring.{name}: {error}") from error
    return found


def _check_start(next_available: int, used_index: int, size: int) -> None:
    if distance(next_available, used_index) > size:
        raise BadGeometry(
            f"ring.used: expected its index at most {size} behind the available index "
            f"{next_available}, got {used_index}"
        )
