"""A guest's queue pair on a device that loops, whose chains stay as they are: it costs little.

All chains are described before anything is measured; each is made available again once it has come
back. So the device must return them in order, as those do that are measured.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from tests.backend.vmm import HEADER, Vmm
from tests.support.guest import Guest
from tests.support.split_driver import SplitDriver, Way
from vdpad.virtio.features import Feature

BROADCAST = b"\xff" * 6
PACKET = HEADER + (BROADCAST + bytes(6) + b"\x88\xb5").ljust(64, b"\0")
"""Of 64 bytes, which every device takes for its own."""
RING = 256
"""Its entries."""
_ROOM = 128
# One pair and the CVQ; room for as many buffers as a ring has entries.
_QUEUES, _REGIONS = 3, 8
_NO_NOTIFY = _NO_INTERRUPT = 1


class FixedRing:
    """One queue, from both sides of which nothing else is done."""

    def __init__(
        self, driver: SplitDriver, kick: Callable[[], None], *, receives: bool, event_idx: bool
    ) -> None:
        """
        Args:
            driver: of the queue, which is as it began; its ring is this object's from now on.
            kick: tells the device that something was made available.
            receives: the chains are for packets that come.
            event_idx: RING_EVENT_IDX is negotiated.
        """
        self._kick = kick
        self._event_idx = event_idx
        self._size = driver.size
        for _ in range(driver.size):
            driver.submit([] if receives else [PACKET], [_ROOM] if receives else [], Way.DIRECT)
        self._available = _words(driver, driver.available, 3 + driver.size)
        self._used = _words(driver, driver.used, 3 + 4 * driver.size)
        self.offered = 0
        """How many were made available, modulo 65536."""

    def release(self) -> None:
        """Lets go of the memory."""
        self._available.release()
        self._used.release()

    @property
    def returned(self) -> int:
        """How many have come back, modulo 65536."""
        return self._used[1]

    @property
    def last_length(self) -> int:
        """How many bytes the last chain that has come back was filled with."""
        at = 2 + 4 * ((self.returned - 1) % self._size)
        return self._used[at + 2] | self._used[at + 3] << 16

    def ask_for_calls(self, *, wanted: bool) -> None:
        """Has the device call for the chain that is offered next, or for none."""
        if self._event_idx:
            self._available[2 + self._size] = (self.offered - (not wanted)) & 0xFFFF
        else:
            self._available[0] = 0 if wanted else _NO_INTERRUPT

    def offer(self, count: int) -> None:
        """Makes the next so many chains available, and kicks where the device wants it."""
        before, self.offered = self.offered, (self.offered + count) & 0xFFFF
        self._available[1] = self.offered
        if self._wants_kick(before):
            self._kick()

    def _wants_kick(self, before: int) -> bool:
        if not self._event_idx:
            return not self._used[0] & _NO_NOTIFY
        event = self._used[2 + 4 * self._size]
        return (self.offered - event - 1) & 0xFFFF < (self.offered - before) & 0xFFFF


def _words(driver: SplitDriver, address: int, count: int) -> memoryview:
    for start, region in driver.memory.regions.items():
        if start <= address < start + len(region):
            at = address - start
            return memoryview(region)[at : at + 2 * count].cast("H")
    raise AssertionError(f"no memory at {address:#x}")


class Pair:
    """A receive queue and a transmit queue; what goes out comes in."""

    def __init__(self, receive: FixedRing, transmit: FixedRing) -> None:
        self.receive = receive
        self.transmit = transmit

    def go_round(self, count: int) -> None:
        """Sends so many packets at once, and sees them back.

        Raises:
            SystemExit: the last is no whole packet.
        """
        self.receive.offer(count)
        self.transmit.offer(count)
        for ring in (self.receive, self.transmit):
            while ring.returned != ring.offered:
                os.sched_yield()
        if (length := self.receive.last_length) != len(PACKET):
            raise SystemExit(f"expected packets of {len(PACKET)} bytes, got one of {length}")


def new_guest(*, event_idx: bool = True) -> Guest:
    """With one pair and the CVQ, without MQ therefore."""
    return Guest(_QUEUES, size=RING, regions=_REGIONS, event_idx=event_idx)


@contextmanager
def looping_pair(receive: FixedRing, transmit: FixedRing) -> Iterator[Pair]:
    """Both, for the time of the context."""
    try:
        yield Pair(receive, transmit)
    finally:
        receive.release()
        transmit.release()


@contextmanager
def pair_of(guest: Vmm) -> Iterator[Pair]:
    """The first queue pair of a guest that has sent nothing yet, for the time of the context."""
    event_idx = Feature.RING_EVENT_IDX in guest.features
    receive, transmit = (
        FixedRing(
            queue.driver,
            partial(os.eventfd_write, queue.kick, 1),
            receives=not queue.index % 2,
            event_idx=event_idx,
        )
        for queue in guest.guest.queues[:2]
    )
    with looping_pair(receive, transmit) as pair:
        yield pair
