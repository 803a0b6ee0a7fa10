"""A device that a test moves by hand, one thing at a time, and that watches its driver.

The software device takes and returns all that is available at once. Here a test says what is
returned and when: it is asked for a step whenever the driver waits (or whenever it kicks). And it
complains where the driver has touched what belonged to the device in the meantime.
"""

import asyncio
import fcntl
import mmap
import os
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.devices import DEADLINE, Words, read_words
from vdpad.queues.lent_indices import Indices
from vdpad.queues.lent_queue import LentDescriptors, LentQueue
from vdpad.restore.program import encode
from vdpad.restore.replay import Replayed, replay
from vdpad.virtio.commands import ACK_NONE, ACK_OK, Command
from vdpad.virtio.rings import Region, RingGeometry
from vdpad.virtio.split_ring import DESCRIPTOR, USED_ELEMENT, SplitGeometry, lay_out

IOVA = 0x40000000
_NEXT, _WRITE = 1, 2


@dataclass(frozen=True, slots=True)
class Taken:
    """A chain that is the device's."""

    head: int
    readable_at: int
    """In bytes from the start of the memory."""
    readable: bytes
    """As it was when it was taken."""
    ack_at: int


class SteppedDevice:
    """The device's side of a ring, moved by hand."""

    def __init__(
        self,
        size: int,
        *,
        event_idx: bool,
        start_index: int = 0,
        buffers: int = 4096,
        in_order: bool = False,
    ) -> None:
        self.event_idx = event_idx
        self.in_order = in_order
        self.start_index = start_index
        self.geometry = self._laid_out(size, buffers)
        self.in_flight: dict[int, Taken] = {}
        """By head, in the order in which they were made available."""
        self.served: list[bytes] = []
        """The commands that were carried out, in the order of that."""
        self.kicks = 0
        self._fd = _sealed_memfd(self.geometry.memory.size)
        self.memory = mmap.mmap(self._fd, self.geometry.memory.size)
        self._kick, self._call = os.eventfd(0, os.EFD_CLOEXEC), os.eventfd(0, os.EFD_CLOEXEC)
        self._taken = self._used = start_index
        self.begin()

    def begin(self) -> None:
        """Writes what stands in an idle ring."""
        self._put_word(self._split.available + 2, self.start_index)
        self._put_word(self._split.used + 2, self.start_index)

    @property
    def indices(self) -> Indices:
        """What its lender says of the ring."""
        return Indices()

    @property
    def end(self) -> int:
        """Where the ring stands behind all that was returned, as ControlQueue has it."""
        return self._used

    def close(self) -> None:
        """Lets go of memory and descriptors."""
        self.memory.close()
        for fd in (self._fd, self._kick, self._call):
            os.close(fd)

    def lend(self) -> LentDescriptors:
        """Duplicates, as a VMM sends them."""
        return LentDescriptors(self._fd, self._kick, self._call).duplicate()

    @property
    def words(self) -> Words:
        """The ring's words as they stand."""
        return read_words(self.memory[:], self.geometry)

    # --- what a well-behaved device does ---

    def take(self) -> list[Taken]:
        """Takes all that has become available; returns all that is in flight."""
        index = self.words.available_index
        while self._taken != index:
            slot = self._taken % self.geometry.size
            (head,) = struct.unpack_from(
                "<H", self.memory, self._at(self._split.available) + 4 + 2 * slot
            )
            assert head not in self.in_flight, f"chain {head} was made available twice"
            self.in_flight[head] = self._chain(head)
            self._taken = (self._taken + 1) & 0xFFFF
        assert len(self.in_flight) <= self.geometry.size
        self._assert_untouched()
        return list(self.in_flight.values())

    def complete(self, chain: Taken, *, ack: int | None = ACK_OK, length: int = 1) -> None:
        """Carries out a chain and returns it; with no ack where that is None."""
        self._assert_untouched()
        self.served.append(chain.readable)
        del self.in_flight[chain.head]
        if ack is not None:
            self.memory[chain.ack_at] = ack
        self.put(chain.head, length)

    def complete_together(self, chains: list[Taken]) -> None:
        """Carries out chains that came one behind the other, and tells of the last one alone."""
        self._assert_untouched()
        for chain in chains:
            self.served.append(chain.readable)
            del self.in_flight[chain.head]
            self.memory[chain.ack_at] = ACK_OK
        self.put_for(chains[-1].head, len(chains))

    # --- what any device can do ---

    def put_for(self, head: int, count: int) -> None:
        """Tells by one used element, with this id, that so many chains are back."""
        at = self._at(self._split.used) + 4 + self._used % self.geometry.size * USED_ELEMENT.size
        USED_ELEMENT.pack_into(self.memory, at, head, 1)
        self._used = (self._used + count) & 0xFFFF
        self._put_word(self._split.used + 2, self._used)

    def put(self, head: int, length: int) -> None:
        """Writes a used element and moves the index past it."""
        at = self._at(self._split.used) + 4 + self._used % self.geometry.size * USED_ELEMENT.size
        USED_ELEMENT.pack_into(self.memory, at, head, length)
        self._used = (self._used + 1) & 0xFFFF
        self._put_word(self._split.used + 2, self._used)

    def show_used_index(self, index: int) -> None:
        """Shows another used index than there is."""
        self._put_word(self._split.used + 2, index & 0xFFFF)

    def put_used_flags(self, flags: int) -> None:
        """Says whether it wants to hear the doorbell (without event_idx)."""
        self._put_word(self._split.used, flags)

    def put_avail_event(self, index: int) -> None:
        """Says when it wants to hear the doorbell (with event_idx)."""
        end = self._split.used + 4 + USED_ELEMENT.size * self.geometry.size
        self._put_word(end, index & 0xFFFF)

    # --- inside ---

    def _laid_out(self, size: int, buffers: int) -> RingGeometry:
        ring = lay_out(size, Region(IOVA, 1 << 30)).buffers.iova - IOVA
        return lay_out(size, Region(IOVA, ring + buffers))

    @property
    def _split(self) -> SplitGeometry:
        assert isinstance(self.geometry, SplitGeometry)
        return self.geometry

    def _at(self, address: int) -> int:
        return address - self.geometry.memory.iova

    def _put_word(self, address: int, word: int) -> None:
        struct.pack_into("<H", self.memory, self._at(address), word)

    def _descriptor(self, index: int) -> tuple[int, int, int, int]:
        at = self._at(self.geometry.descriptors) + index * DESCRIPTOR.size
        address, length, flags, following = DESCRIPTOR.unpack_from(self.memory, at)
        return self._at(address), length, flags, following

    def _chain(self, head: int) -> Taken:
        at, length, flags, following = self._descriptor(head)
        ack_at, ack_length, ack_flags, _ = self._descriptor(following)
        assert (flags, ack_flags, ack_length) == (_NEXT, _WRITE, 1)
        buffers = self.geometry.buffers
        first, end = self._at(buffers.iova), self._at(buffers.end)
        assert first <= at < at + length <= end
        assert first <= ack_at < end
        assert self.memory[ack_at] == ACK_NONE, "the ack was not filled beforehand"
        return Taken(head, at, self.memory[at : at + length], ack_at)

    def _assert_untouched(self) -> None:
        for chain in self.in_flight.values():
            assert self._chain(chain.head) == chain, f"the driver touched chain {chain.head}"


Step = Callable[[SteppedDevice], None]


class SteppedQueue(LentQueue):
    """The queue of such a device: each wait lets it do a step, and some time pass."""

    def __init__(self, device: SteppedDevice, on_wait: Step, on_kick: Step | None) -> None:
        super().__init__(
            device.geometry,
            device.lend(),
            device.indices,
            event_idx=device.event_idx,
            in_order=device.in_order,
            worth_polling=False,
        )
        self.waits = 0
        self._device = device
        self._on_wait = on_wait
        self._on_kick = on_kick

    def kick(self) -> None:
        self._device.kicks += 1
        if self._on_kick is not None:
            self._on_kick(self._device)

    async def called(self, seconds: float) -> None:
        self.waits += 1
        await asyncio.sleep(seconds)
        self._on_wait(self._device)


@contextmanager
def stepped(
    device: SteppedDevice, on_wait: Step, on_kick: Step | None = None
) -> Iterator[SteppedQueue]:
    """The device's queue, and both closed at the end."""
    try:
        queue = SteppedQueue(device, on_wait, on_kick)
        try:
            yield queue
        finally:
            queue.close()
    finally:
        device.close()


# --- replays on it ---


async def replay_on(
    device: SteppedDevice,
    commands: tuple[Command, ...],
    on_wait: Step,
    on_kick: Step | None = None,
    seconds: float = DEADLINE,
) -> Replayed:
    """What comes of these commands, with so many seconds for them; the device is closed then."""
    program = encode(commands, device.geometry, event_idx=device.event_idx)
    with stepped(device, on_wait, on_kick) as queue:
        deadline = asyncio.get_running_loop().time() + seconds
        return await replay(program, queue, deadline=deadline, poll_ns=0)


def complete_all(device: SteppedDevice) -> None:
    """A device that has done all there is to do."""
    for chain in device.take():
        device.complete(chain)


def complete_one(device: SteppedDevice) -> None:
    """A device that does one command at a time."""
    for chain in device.take()[:1]:
        device.complete(chain)


def complete_some(device: SteppedDevice, dice: random.Random) -> None:
    """A device that does a few commands at a time, whichever it likes."""
    chains = device.take()
    dice.shuffle(chains)
    for chain in chains[: dice.randint(0, 3)]:
        device.complete(chain)


def nothing(device: SteppedDevice) -> None:
    """A device that does not care."""


def _sealed_memfd(size: int) -> int:
    fd = os.memfd_create("stepped", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.pwrite(fd, bytes(size), 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd
