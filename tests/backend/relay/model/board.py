"""What all sides of the model see: memory, eventfds, and what an episode is like."""

from dataclasses import dataclass
from random import Random

from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import lay_out, wants_event

BASE = 0x100000
PAGE = 4096
USED_PAGE, TRANSMIT_PAGE, ACK_PAGE, _FIRST_BUFFER = 1, 2, 3, 4
"""The ring's other parts have page 0, which the device does not write to."""
FLAGS, INDEX, EVENT = 0, 1, -1
BUFFER = 2 * PAGE
BUFFERS_PER_ENTRY = 3
"""More than a ring can name at once, so that a descriptor is used again for another buffer."""


class Wrong(AssertionError):
    """Something is not as it must be."""


@dataclass(frozen=True)
class Ways:
    """What an episode is like, and what in it is done wrong outside of the relay."""

    size: int
    event_idx: bool
    in_order: bool
    skips: bool
    """IN_ORDER was negotiated: the device may tell of a packet by its last buffer alone."""
    polls: bool
    """The guest polls and is never called."""
    stores_in_order: bool
    """As on x86-64."""
    bulk: bool
    """All chains are looked at together, also few."""
    chained: bool
    first_index: int
    begins_running: bool = False
    acked_early: bool = False
    ticks: bool = True
    device_calls_guest: bool = False
    relay_calls_guest: bool = True
    finishes: bool = True
    abandons: bool = False
    marks_transmit: bool = True
    takes_over: bool = True
    two_threads_mark: bool = False
    kicks_at_switch: bool = True
    calls_at_switch: bool = False


@dataclass(frozen=True)
class Filled:
    """What the guest must find in a buffer that comes back."""

    version: int
    follow: int
    """How many buffers of the same packet come behind it."""


class Board:
    """Memory that others see, each store at once, and the notifications."""

    def __init__(self, ways: Ways, random: Random) -> None:
        self.ways = ways
        self.random = random
        self.pages = _FIRST_BUFFER + 2 * BUFFERS_PER_ENTRY * ways.size
        self.bytes = memoryview(bytearray(self.pages * PAGE))
        ring = lay_out(ways.size, Region(BASE, PAGE))
        self.used_size = ring.parts()["used"].size
        self.descriptors = self.bytes[: 16 * ways.size]
        at = ring.available - BASE
        self.available = self.bytes[at : at + 6 + 2 * ways.size].cast("H")
        self.guests = self.page(USED_PAGE)[: self.used_size].cast("H")
        self.ours = memoryview(bytearray(self.used_size)).cast("H")
        self.used = self.guests
        """Where the device writes."""
        self.available[INDEX] = self.guests[INDEX] = ways.first_index
        self.filled: dict[int, Filled] = {}
        """By the chain's head."""
        self.called = False
        """The guest was."""
        self.kicked = True
        self.woken = False
        """The relay was, by the device's call."""
        self.suspended = False
        self.at_rest = False
        """Nothing new is begun."""

    def page(self, page: int) -> memoryview:
        """Its bytes."""
        return self.bytes[page * PAGE : (page + 1) * PAGE]

    def buffer_at(self, buffer: int) -> int:
        """Where a buffer stands in the bytes."""
        return _FIRST_BUFFER * PAGE + buffer * BUFFER

    def chance(self, of: float) -> bool:
        """True so often; always, where all is to come to rest."""
        return self.at_rest or self.random.random() < of

    def wants(self, ring: memoryview, old: int, new: int) -> bool:
        """Whether who writes this ring wants to hear of an index that has moved in the other."""
        if self.ways.event_idx:
            return wants_event(ring[EVENT], new, old)
        return not ring[FLAGS] & 1

    def kick(self) -> None:
        """Kicks the device; one that is suspended does not hear it."""
        if not self.suspended:
            self.kicked = True

    def device_calls(self) -> None:
        """The device's call goes to whoever holds its eventfd."""
        relayed = self.used is self.ours
        if relayed:
            self.woken = True
        if not relayed or self.ways.device_calls_guest:
            self.called = True
