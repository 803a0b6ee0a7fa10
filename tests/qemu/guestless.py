# How it goes together
#
# QEMU is started with its machine paused, and stays paused: no guest ever runs. This process
# stands in for the guest's firmware and driver over qtest, up to DRIVER_OK, and then for the VMM
# that owns the device and lends its control queue: it hands out the memory and two eventfds, and
# forwards what goes over them (wires.py). Whoever borrows the queue works on the ring itself, in
# shared memory, from any process.
#
# What the device made of it is read from QEMU, never from the ring: the receive filter by QMP,
# the rest from a migration stream.
"""A real virtio-net device without a guest, its control queue on loan: see `guestless`."""

from __future__ import annotations

import asyncio
import mmap
import os
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import GUARD

from .device import Device, DeviceConfig, Feature, Refused, data_queues, sensible
from .layout import BUFFERS, CONTROL_RING, MEMORY_SIZE, Ring, control_ring
from .options import Options
from .pci import NotFound, VirtioBlocks, open_virtio_net
from .process import (
    Process,
    StartError,
    Unavailable,
    open_guest_memory,
    run_qemu,
    why_unavailable,
)
from .qmp import Qmp, QmpError, RxFilter
from .qtest import Qtest, QtestError
from .stream import NetSettings, read_net_settings
from .wear import Doorbell, wear_in
from .wires import Wires

__all__ = [
    "Guestless",
    "Lend",
    "Options",
    "StartError",
    "Unavailable",
    "guestless",
    "why_unavailable",
]

IO_APIC = "ioapic"


@dataclass(frozen=True)
class Lend:
    """What a borrower of the control queue gets. Addresses and sizes are in bytes.

    The descriptors are the harness's and are closed with it.
    """

    memory_fd: int
    """A memfd sealed against shrinking; its first byte stands at `memory_iova`."""
    kick_fd: int
    """An eventfd; each wake becomes one doorbell."""
    call_fd: int
    """An eventfd, non-blocking; written once for each interrupt."""
    memory_iova: int
    memory_size: int
    ring_size: int
    """In descriptors."""
    descriptors: int
    available: int
    """Of a packed ring the driver's event suppression structure."""
    used: int
    """Of a packed ring the device's."""
    packed: bool
    buffers_iova: int
    buffers_size: int
    start_index: int
    """Where the available and the used index stand."""


@dataclass(frozen=True)
class _Live:
    """A device at DRIVER_OK."""

    blocks: VirtioBlocks
    doorbell: Doorbell
    offered: frozenset[int]
    features: frozenset[int]
    config: DeviceConfig


class Guestless:
    """A running, guest-less machine. Made by `guestless`, and dead after its context."""

    def __init__(
        self, process: Process, qtest: Qtest, qmp: Qmp, live: _Live, lend: Lend, wires: Wires
    ) -> None:
        self._live = live
        self.pid = process.pid
        self.qtest = qtest
        self.qmp = qmp
        self.lend = lend
        self.offered = live.offered
        """The bit numbers of all features that the device offers."""
        self.features = live.features
        """The bit numbers of those that were negotiated."""
        self.config = live.config
        self._process = process
        self._wires = wires

    @property
    def kicks(self) -> int:
        """The sum of what was written to the kick eventfd."""
        return self._wires.kicks

    @property
    def doorbells(self) -> int:
        """Doorbells rung at the device: kicks between two wakes of the event loop are one."""
        return self._wires.doorbells

    @property
    def interrupts(self) -> int:
        """Interrupts of the device that were forwarded to the call eventfd.

        A borrower that polls may see its answers before the last interrupt is counted here.
        """
        return self._wires.interrupts

    def printed(self) -> str:
        """Return what QEMU has printed: its warnings, and what it says of a broken device."""
        return self._process.printed()

    async def bring_up_again(self) -> None:
        """Reset the device and bring it up as it was, on the same ring, which is empty again."""
        device = Device(self.qtest, self._live.blocks)
        await device.acknowledge()
        ring = control_ring(self.lend.ring_size)
        with mmap.mmap(self.lend.memory_fd, self.lend.memory_size) as memory:
            memory[CONTROL_RING:BUFFERS] = bytes(BUFFERS - CONTROL_RING)
        await _negotiated(self.qtest, self._live.blocks, ring, self.features)

    async def config_now(self) -> DeviceConfig:
        """Return the device's config space as it is by now."""
        return await Device(self.qtest, self._live.blocks).config(self.features)

    async def rx_filter(self) -> RxFilter:
        """Return the receive filter as QEMU shows it. Leaves the device as it is."""
        return await self.qmp.query_rx_filter()

    async def stream(self) -> bytes:
        """Migrate the machine away and return the stream.

        This ends the device's use: the machine is "postmigrate" afterwards. The receive filter may
        still be asked for. Raises QmpError where the migration fails, TimeoutError after
        GUARD.
        """
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "stream"
            return await _receive_stream(self.qmp, path)

    async def settings(self) -> NetSettings:
        """Return the device's settings out of a migration stream. Ends its use, as `stream` does.

        Raises StreamError where the stream isn't as its description says.
        """
        return read_net_settings(await self.stream())


@asynccontextmanager
async def guestless(options: Options | None = None) -> AsyncIterator[Guestless]:
    """Start QEMU, bring its device up and lend its control queue, for the time of the context.

    `async with guestless(Options(queue_pairs=4)) as qemu:`, then work on `qemu.lend` and judge by
    `await qemu.rx_filter()` and, last of all, `await qemu.settings()`.

    Needs the running event loop the whole time: that is what forwards doorbells and interrupts.
    Raises Unavailable where this machine can't run it, and StartError where the start fails.
    """
    reason = await asyncio.to_thread(why_unavailable)
    if reason is not None:
        raise Unavailable(reason)
    async with AsyncExitStack() as stack:
        yield await _start(stack, options or Options())


async def _start(stack: AsyncExitStack, options: Options) -> Guestless:
    process = await stack.enter_async_context(run_qemu(options))
    try:
        async with asyncio.timeout(GUARD):
            return await _set_up(stack, process, options)
    except (OSError, TimeoutError, NotFound, QmpError, QtestError, Refused, StartError) as error:
        raise StartError(f"{error!r}; QEMU printed: {process.printed()}") from error


async def _set_up(stack: AsyncExitStack, process: Process, options: Options) -> Guestless:
    qtest = await Qtest.over(process.qtest)
    stack.push_async_callback(qtest.close)
    qmp = await Qmp.over(process.qmp)
    stack.push_async_callback(qmp.close)
    memory_fd = open_guest_memory(process.pid)
    stack.callback(os.close, memory_fd)
    ring = control_ring(options.ring_size)
    live = await _bring_up(qtest, ring, options)
    if options.start_index:
        await _wear(qtest, memory_fd, ring, live.doorbell, options.start_index)
    lend = _lend(stack, memory_fd, ring, options)
    wires = await _wire(stack, qtest, live, lend)
    return Guestless(process, qtest, qmp, live, lend, wires)


async def _bring_up(qtest: Qtest, ring: Ring, options: Options) -> _Live:
    blocks = await open_virtio_net(qtest)
    offered = await Device(qtest, blocks).acknowledge()
    wanted = sensible(offered) if options.negotiate is None else options.negotiate
    wanted |= options.also
    if options.packed:
        wanted |= {Feature.RING_PACKED}
    return await _negotiated(qtest, blocks, ring, wanted - options.without)


async def _negotiated(
    qtest: Qtest, blocks: VirtioBlocks, ring: Ring, features: frozenset[int]
) -> _Live:
    device = Device(qtest, blocks)
    offered = await device.acknowledge()
    await device.negotiate(features, offered)
    config = await device.config(features)
    queue = data_queues(features, config)
    await device.set_up_data_queues(queue)
    address = await device.set_up_queue(queue, ring)
    await device.start()
    return _Live(blocks, Doorbell(address, queue), offered, features, config)


async def _wear(qtest: Qtest, memory_fd: int, ring: Ring, doorbell: Doorbell, index: int) -> None:
    with mmap.mmap(memory_fd, MEMORY_SIZE) as memory:
        await wear_in(qtest, memory, ring, BUFFERS, doorbell, index)


def _lend(stack: AsyncExitStack, memory_fd: int, ring: Ring, options: Options) -> Lend:
    kick_fd, call_fd = _eventfd(stack), _eventfd(stack)
    _touch(memory_fd, range(CONTROL_RING, BUFFERS + options.buffers_size, mmap.PAGESIZE))
    return Lend(
        memory_fd=memory_fd,
        kick_fd=kick_fd,
        call_fd=call_fd,
        memory_iova=0,
        memory_size=MEMORY_SIZE,
        ring_size=ring.size,
        descriptors=ring.descriptors,
        available=ring.available,
        used=ring.used,
        packed=options.packed,
        buffers_iova=BUFFERS,
        buffers_size=options.buffers_size,
        start_index=options.start_index,
    )


def _touch(memory_fd: int, pages: Iterable[int]) -> None:
    """Sees that these pages are there, whatever is in them."""
    with mmap.mmap(memory_fd, MEMORY_SIZE) as memory:
        for page in pages:
            memory[page] = memory[page]


def _eventfd(stack: AsyncExitStack) -> int:
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


async def _wire(stack: AsyncExitStack, qtest: Qtest, live: _Live, lend: Lend) -> Wires:
    wires = Wires(
        qtest,
        kick_fd=lend.kick_fd,
        call_fd=lend.call_fd,
        doorbell=live.doorbell.address,
        queue=live.doorbell.queue,
        isr=live.blocks.isr,
    )
    stack.callback(wires.close)
    # An interrupt from before (wear.py) would hold the line up, and no later one would be heard.
    await qtest.readb(live.blocks.isr)
    await qtest.irq_intercept_in(IO_APIC, wires.on_irq)
    return wires


async def _receive_stream(qmp: Qmp, path: Path) -> bytes:
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read())
        writer.close()

    async with asyncio.timeout(GUARD), await asyncio.start_unix_server(receive, path):
        await qmp.migrate_to_socket(path)
        return await received
