# How the device is found and reached
#
# No firmware has run, so nothing is set up: the BARs have no addresses, bridges have no buses, and
# the interrupt router is off. Configuration space is reached by the old mechanism, which both
# machines have: the address (enable bit, bus, device, function, register) goes to port 0xcf8, the
# data through port 0xcfc. A root port is given bus 1 and a window in memory; what is plugged into
# it is device 0 there. Each BAR is sized by writing ones and reading back which bits stick, and
# placed in the hole below the I/O APIC, which is also where the window stands. Modern virtio-pci
# says by vendor capabilities (id 0x09) in which BAR, and where in it, its four register blocks are.
#
# The function interrupts by INTx, for its driver leaves MSI-X off where it has it. All four of the
# PIIX3's PIRQ lines are routed to one interrupt, so that it does not matter which line the slot is
# wired to. The ICH9's eight are wired to the I/O APIC's inputs 16 to 23 besides, and need no route.
#
# Sources: PCI Local Bus 3.0, 3.2.2.3.2 and 6.2.5; PCI-to-PCI Bridge 1.2, 3.2; virtio 1.2, 4.1.4;
# Intel 82371SB, PIRQRC[A:D]; Intel ICH9, the I/O APIC's interrupt mapping.
"""The virtio-net function in PCI configuration space."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from .qtest import Qtest

CONFIG_ADDRESS = 0xCF8
CONFIG_DATA = 0xCFC
CONFIG_ENABLE = 1 << 31
SLOTS = 32

VENDOR_ID = 0x00
DEVICE_ID = 0x02
COMMAND = 0x04
HEADER_TYPE = 0x0E
BAR_0 = 0x10
BARS = 6
CAPABILITIES = 0x34
COMMAND_MEMORY = 1 << 1
COMMAND_BUS_MASTER = 1 << 2
BAR_IS_IO = 1 << 0
BAR_IS_64 = 1 << 2
BAR_FLAGS = 0xF
CAPABILITY_VENDOR = 0x09

HEADER_BRIDGE = 1
HEADER_KIND = 0x7F
BRIDGE_BUSES = 0x18
BRIDGE_MEMORY = 0x20
BUS_BEHIND = 1

REDHAT = 0x1AF4
VIRTIO_NET_IDS = frozenset({0x1000, 0x1041})
PIIX3 = (0x8086, 0x7000)
PIIX3_PIRQ_ROUTES = 0x60
PIRQ_LINES = 4
PCI_HOLE = 0xE000_0000
WINDOW_BYTES = 0x0100_0000

PIIX3_INTERRUPT = 11
INTERRUPT_LINES = frozenset({PIIX3_INTERRUPT, *range(16, 24)})
"""The I/O APIC's inputs on which the device's INTx may arrive."""


class NotFound(Exception):
    """The machine has no such PCI function, or it lacks a virtio capability."""


class Block(IntEnum):
    """cfg_type of a virtio capability, virtio 1.2, 4.1.4."""

    COMMON = 1
    NOTIFY = 2
    ISR = 3
    DEVICE = 4


@dataclass(frozen=True)
class VirtioBlocks:
    """Guest-physical addresses of a modern virtio device's registers."""

    common: int
    notify: int
    notify_multiplier: int
    """Bytes between the doorbells of two notify offsets."""
    isr: int
    device: int


class Function:
    """Configuration space of function 0 of one slot. Offsets are in bytes."""

    def __init__(self, qtest: Qtest, bus: int, slot: int) -> None:
        self._qtest = qtest
        self._address = CONFIG_ENABLE | bus << 16 | slot << 11

    async def read8(self, offset: int) -> int:
        """Read 8 bits."""
        return (await self.read32(offset) >> 8 * (offset % 4)) & 0xFF

    async def read16(self, offset: int) -> int:
        """Read 16 bits at an even offset."""
        return (await self.read32(offset) >> 8 * (offset % 4)) & 0xFFFF

    async def read32(self, offset: int) -> int:
        """Read the aligned 32 bits that hold an offset."""
        await self._select(offset)
        return await self._qtest.inl(CONFIG_DATA)

    async def write8(self, offset: int, value: int) -> None:
        """Write 8 bits."""
        await self._select(offset)
        await self._qtest.outb(CONFIG_DATA + offset % 4, value)

    async def write16(self, offset: int, value: int) -> None:
        """Write 16 bits at an even offset."""
        await self._select(offset)
        await self._qtest.outw(CONFIG_DATA + offset % 4, value)

    async def write32(self, offset: int, value: int) -> None:
        """Write 32 bits at an aligned offset."""
        await self._select(offset)
        await self._qtest.outl(CONFIG_DATA, value)

    async def ids(self) -> tuple[int, int]:
        """Return the vendor and the device id; (0xffff, 0xffff) in an empty slot."""
        return await self.read16(VENDOR_ID), await self.read16(DEVICE_ID)

    async def _select(self, offset: int) -> None:
        await self._qtest.outl(CONFIG_ADDRESS, self._address | offset & ~3)


async def open_virtio_net(qtest: Qtest) -> VirtioBlocks:
    """Find the virtio-net function, place it in memory, let it do DMA and raise INTx.

    Raises NotFound where there is none, or where it is not a modern virtio device.
    """
    network_card = await _find(qtest)
    bars = await _place_bars(network_card)
    await network_card.write16(COMMAND, COMMAND_MEMORY | COMMAND_BUS_MASTER)
    return await _blocks(network_card, bars)


async def _find(qtest: Qtest) -> Function:
    """Set up what lies on the way to the network card, and return the card."""
    network_card = None
    for slot in range(SLOTS):
        function = Function(qtest, 0, slot)
        ids = await function.ids()
        if ids == PIIX3:
            await _route_interrupts(function)
        elif await _is_bridge(function):
            await _open_bridge(function)
            function = Function(qtest, BUS_BEHIND, 0)
            ids = await function.ids()
        if _is_virtio_net(ids):
            network_card = function
    if network_card is None:
        raise NotFound("no virtio-net function on PCI bus 0 or behind a bridge there")
    return network_card


def _is_virtio_net(ids: tuple[int, int]) -> bool:
    vendor, device = ids
    return vendor == REDHAT and device in VIRTIO_NET_IDS


async def _is_bridge(function: Function) -> bool:
    return await function.read8(HEADER_TYPE) & HEADER_KIND == HEADER_BRIDGE


async def _open_bridge(bridge: Function) -> None:
    """Give the machine's only bridge its bus, and the hole's beginning as its window."""
    await bridge.write32(BRIDGE_BUSES, BUS_BEHIND << 16 | BUS_BEHIND << 8)
    last = PCI_HOLE + WINDOW_BYTES - 1
    await bridge.write32(BRIDGE_MEMORY, last & 0xFFF0_0000 | PCI_HOLE >> 16)
    await bridge.write16(COMMAND, COMMAND_MEMORY | COMMAND_BUS_MASTER)


async def _route_interrupts(isa_bridge: Function) -> None:
    for line in range(PIRQ_LINES):
        await isa_bridge.write8(PIIX3_PIRQ_ROUTES + line, PIIX3_INTERRUPT)


async def _place_bars(function: Function) -> dict[int, int]:
    """Give each memory BAR an address, and return the addresses by BAR number."""
    placed: dict[int, int] = {}
    free = PCI_HOLE
    number = 0
    while number < BARS:
        register = BAR_0 + 4 * number
        await function.write32(register, 0xFFFF_FFFF)
        mask = await function.read32(register)
        is_memory = mask != 0 and not mask & BAR_IS_IO
        if is_memory:
            size = 0x1_0000_0000 - (mask & ~BAR_FLAGS)
            placed[number] = _align(free, size)
            free = placed[number] + size
            await function.write32(register, placed[number])
        if is_memory and mask & BAR_IS_64:
            await function.write32(register + 4, 0)
            number += 1
        number += 1
    return placed


def _align(address: int, size: int) -> int:
    return (address + size - 1) & ~(size - 1)


async def _blocks(function: Function, bars: dict[int, int]) -> VirtioBlocks:
    found: dict[int, int] = {}
    multiplier = 0
    at = await function.read8(CAPABILITIES)
    while at:
        if await function.read8(at) == CAPABILITY_VENDOR:
            kind = await function.read8(at + 3)
            bar = await function.read8(at + 4)
            if bar in bars:
                found.setdefault(kind, bars[bar] + await function.read32(at + 8))
            if kind == Block.NOTIFY:
                multiplier = await function.read32(at + 16)
        at = await function.read8(at + 1)
    missing = [block.name for block in Block if block not in found]
    if missing:
        raise NotFound(f"the virtio-net function has no capability {', '.join(missing)}")
    return VirtioBlocks(
        common=found[Block.COMMON],
        notify=found[Block.NOTIFY],
        notify_multiplier=multiplier,
        isr=found[Block.ISR],
        device=found[Block.DEVICE],
    )
