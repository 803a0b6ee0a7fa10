# How a ring gets an index other than 0
#
# virtio-pci has no register for a ring's first index: after a reset it is 0. So the ring is worn
# in. Every slot of the available ring names the same one-command chain, and the available index
# goes up, a ring's size at a time, until it stands where it should. The command is of a class that
# nobody has: the device refuses it and changes nothing. (Naming a chain that is still in flight is
# a driver's fault by the specification, 2.7.13; QEMU takes the slots one by one and doesn't mind.)
#
# Interrupts are asked not to come; one that comes all the same (with RING_EVENT_IDX the first
# element always interrupts) is the caller's to take from the ISR. What the driver's side wrote is
# zeroed again but for the index.
"""Moves an idle control ring of QEMU's to another index."""

from __future__ import annotations

import asyncio
import mmap
import struct
from dataclasses import dataclass

from tests.support.waiting import GUARD

from .layout import Ring
from .qtest import Qtest

NO_SUCH_CLASS = b"\xff\xff"
DESCRIPTOR = struct.Struct("<QIHH")
NEXT = 1
WRITE = 2
NO_INTERRUPT = 1


@dataclass(frozen=True)
class Doorbell:
    """A queue's notify address, and what is written there."""

    address: int
    queue: int


async def wear_in(
    qtest: Qtest, memory: mmap.mmap, ring: Ring, scratch: int, doorbell: Doorbell, index: int
) -> None:
    """Bring a fresh ring's available and used index to `index`.

    A lap takes about 170 us: the last index 0.2 s with a ring of 64, and 6 s with a ring of 2.
    `scratch` is the address of three bytes. Raises TimeoutError where the device doesn't follow.
    """
    _write_command(memory, ring, scratch)
    at = 0
    async with asyncio.timeout(GUARD):
        while at != index:
            at = min(at + ring.size, index)
            _publish(memory, ring, at)
            await qtest.writew(doorbell.address, doorbell.queue)
            while struct.unpack_from("<H", memory, ring.used + 2)[0] != at:
                # Any exchange will do to let QEMU's main loop turn to its queue.
                await qtest.readb(scratch)
    _clean_up(memory, ring, scratch)


def _write_command(memory: mmap.mmap, ring: Ring, scratch: int) -> None:
    memory[scratch : scratch + 2] = NO_SUCH_CLASS
    DESCRIPTOR.pack_into(memory, ring.descriptors, scratch, 2, NEXT, 1)
    DESCRIPTOR.pack_into(memory, ring.descriptors + DESCRIPTOR.size, scratch + 2, 1, WRITE, 0)


def _publish(memory: mmap.mmap, ring: Ring, index: int) -> None:
    # The element numbered `index` is the one after these, so with RING_EVENT_IDX none interrupts.
    struct.pack_into("<H", memory, ring.available + 4 + 2 * ring.size, index)
    struct.pack_into("<HH", memory, ring.available, NO_INTERRUPT, index)


def _clean_up(memory: mmap.mmap, ring: Ring, scratch: int) -> None:
    # The indices are stepped around, for the device may be looking at them once more; and so is
    # avail_event, the device's own word for when it wants the next doorbell.
    _zero(memory, scratch, 3)
    _zero(memory, ring.descriptors, 2 * DESCRIPTOR.size)
    _zero(memory, ring.available, 2)
    _zero(memory, ring.available + 4, 2 * ring.size + 2)
    _zero(memory, ring.used + 4, 8 * ring.size)


def _zero(memory: mmap.mmap, address: int, size: int) -> None:
    memory[address : address + size] = bytes(size)
