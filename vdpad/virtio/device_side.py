"""What the device's sides of both ring layouts have in common: a chain is taken, and answered.

It trusts the driver as little as a device may, beginning with its chains (chains.py): a buffer is
checked to be memory, and how much there is to read is bounded, before any of it is read. Whatever
a driver does, one call takes no more than about twice MAX_READABLE bytes, and MOST_BUFFERS or one
chain.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from vdpad.virtio.chains import BadChain, Buffer
from vdpad.virtio.guest_memory import GuestMemory, OutsideMemory
from vdpad.virtio.rings import DESC_F_WRITE, BadGeometry, Region, RingAddresses
from vdpad.virtio.split_ring import DESCRIPTOR

MAX_READABLE = 1 << 20
"""Bytes that a chain may have for the device to read. The largest RSS command has 131 KiB. Stops a
chain whose descriptors all name the same gigabyte."""

MOST_BUFFERS = 4096
"""How many one call takes before it leaves other chains to the next: 10 ms. Stops chains of buffers
of a byte from keeping whoever takes them for seconds."""


class Chain(NamedTuple):
    """A command that was made available."""

    head: int
    """Its name when it is returned: its first descriptor, or in a packed ring its buffer id."""
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


def copied(
    memory: GuestMemory, head: int, buffers: Iterable[Buffer], *, answered: bool
) -> tuple[Chain, int]:
    """A chain whose descriptors make sense, its readable part copied.

    Args:
        memory: in which its buffers lie.
        head: its name.
        buffers: its descriptors, in their order.
        answered: it must have room for an answer.

    Returns:
        the chain, and how many buffers it has.

    Raises:
        BadChain: they make none.
        OutsideMemory: a buffer is not all memory.
    """
    readable: list[bytes] = []
    writable: list[Region] = []
    room = MAX_READABLE
    count = descriptors = 0
    for count, (address, length, flags, descriptors) in enumerate(buffers, 1):  # noqa: B007
        if not length:
            raise BadChain(f"expected at least a byte, got a buffer of 0 bytes at {address:#x}")
        if flags & DESC_F_WRITE:
            memory.check(address, length)
            writable.append(Region(address, length))
            continue
        if writable:
            raise BadChain(
                "expected all readable buffers before the writable ones, "
                f"got one at {address:#x} behind them"
            )
        room -= length
        if room < 0:
            memory.check(address, length)
            raise BadChain(f"expected at most {MAX_READABLE} readable bytes, got more")
        readable.append(memory.read(address, length))
    if answered and not writable:
        raise BadChain("expected a byte for an ack, got no device-writable byte")
    return Chain(head, b"".join(readable), tuple(writable), descriptors), count


def some(available: Iterator[tuple[Chain, int]]) -> list[Chain]:
    """All of these chains, or as many as come to MAX_READABLE bytes, or to MOST_BUFFERS.

    Args:
        available: as `copied` gives them.

    Raises:
        BadChain: the first one makes no sense. Another one ends it.
    """
    chains: list[Chain] = []
    room, buffers = MAX_READABLE, MOST_BUFFERS
    try:
        for chain, count in available:
            chains.append(chain)
            room -= len(chain.readable) + DESCRIPTOR.size * len(chain.writable)
            buffers -= count
            if room <= 0 or buffers <= 0:
                break
    except BadChain:
        if not chains:
            raise
    return chains


class DeviceSide(ABC):
    """What both do alike with chains that they have taken. Not for two users at once."""

    _memory: GuestMemory
    """Where the ring and its buffers lie."""
    _views: ExitStack
    """Releases the ring's parts."""

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
            head: its name.
            length: how many bytes were written into it.
        """
        self.put_together([(head, length)])

    @abstractmethod
    def put_together(self, returned: Sequence[tuple[int, int]]) -> None:
        """Returns chains, so that the driver sees all of them or none; each as of `put`."""

    @abstractmethod
    def put_in_one(self, returned: Sequence[tuple[int, int]]) -> None:
        """Returns chains in the order in which they were taken, and tells of the last one alone.

        For who has negotiated IN_ORDER. Each as of `put`, at least one.
        """

    def put_all(self, returned: Sequence[tuple[int, int]], *, in_order: bool) -> None:
        """Returns all that there are, together; with IN_ORDER the last one stands for them."""
        if not returned:
            return
        if in_order:
            self.put_in_one(returned)
        else:
            self.put_together(returned)

    def release(self) -> None:
        """Lets go of the memory."""
        self._views.close()


def ring_stretches(
    views: ExitStack, memory: GuestMemory, addresses: RingAddresses
) -> list[memoryview]:
    """A ring's parts in memory, in their order.

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
