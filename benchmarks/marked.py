"""Pages that are marked while a guest's memory is logged, against those that were written.

    make bench-moving

The software device gives back what it is sent, so what it has written is known: each packet's bytes
in the buffers of its chain, and the used rings of the queues that it used. That is held against the
log, by the relay and on a device whose queues cannot be relayed, where everything is marked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.fixed_ring import new_guest
from benchmarks.tables import show
from tests.backend.devices import NeverSuspended
from tests.backend.vmm import HEADER, PLAIN, BackEnd, Vmm, back_end, vmm
from tests.backend.written import used_ring
from tests.support.split_driver import Extent
from tests.support.waiting import until
from tests.vhost_user.log_file import log_file, pages_in
from tests.vm.steps.logged import LOG_SIZE
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.virtio.features import Feature

MARKED = (
    *("way", "packet", "buffers", "packets", "pages of memory", "written", "marked"),
    *("marked, not written", "written, not marked"),
)
_PAGE_SHIFT = 12
_BATCH, _BATCHES = 16, 4


@dataclass(frozen=True, slots=True)
class Kind:
    """What goes round."""

    packet: int
    """Bytes."""
    buffers: tuple[int, ...]
    """Of each chain of the receive queue, in bytes."""


KINDS = (Kind(64, (1536,)), Kind(1500, (1536,)), Kind(1500, (12, 1536)), Kind(9000, (4096,) * 3))


@dataclass(frozen=True, slots=True)
class Pages:
    """Their numbers."""

    memory: set[int]
    written: set[int]
    marked: set[int]


def _pages_of(extents: Sequence[Extent], length: int) -> Iterator[int]:
    """Of so many bytes in a chain."""
    for address, size in extents:
        filled = min(size, length)
        if filled:
            yield from range(address >> _PAGE_SHIFT, (address + filled - 1 >> _PAGE_SHIFT) + 1)
        length -= filled


async def _written(machine: Vmm, kind: Kind) -> set[int]:
    """The pages that the device writes while packets of a kind go round."""
    receive, transmit = machine.guest.queues[:2]
    pages = used_ring(machine.guest, 0) | used_ring(machine.guest, 1)
    for _ in range(_BATCHES):
        for _ in range(_BATCH):
            receive.driver.submit([], kind.buffers, receive.way)
            transmit.driver.submit([HEADER + bytes(kind.packet)], [], transmit.way)
        receive.publish()
        transmit.publish()
        await until(lambda: receive.returned == transmit.returned == _BATCH, every=0.0005)
        transmit.collect()
        for request, length, _ in receive.collect():
            assert length == len(HEADER) + kind.packet
            pages |= {*_pages_of(request.writable, length)}
    return pages


async def _pages(on: BackEnd, kind: Kind) -> Pages:
    """Of a guest that is logged from its start to its stop."""
    guest = new_guest()
    try:
        async with vmm(on, guest=guest, features=PLAIN - {Feature.MQ}) as machine:
            await machine.start()
            with log_file(LOG_SIZE) as log:
                await machine.log(log)
                written = await _written(machine, kind)
                await machine.stop()
                return Pages(guest.pages, written, pages_in(log))
    finally:
        guest.close()


async def marked(device: LoopDevice, way: str) -> list[list[str]]:
    """A line for each kind of packets."""
    rows = []
    async with back_end(device, in_order=not device.can_suspend) as on:
        for kind in KINDS:
            pages = await _pages(on, kind)
            counts = (
                *(_BATCH * _BATCHES, len(pages.memory), len(pages.written), len(pages.marked)),
                *(len(pages.marked - pages.written), len(pages.written - pages.marked)),
            )
            buffers = " + ".join(map(str, kind.buffers))
            rows.append([way, str(kind.packet), buffers, *map(str, counts)])
    return rows


def main() -> None:
    """Measures and prints the table."""
    relayed = asyncio.run(marked(LoopDevice(), "relay"))
    show(MARKED, relayed + asyncio.run(marked(NeverSuspended(), "everything")))


if __name__ == "__main__":
    main()
