# How the device is brought up
#
# The order is the specification's: reset; ACKNOWLEDGE; DRIVER; read what is offered; write what
# is wanted; FEATURES_OK, and read it back, for the device may refuse; rings; DRIVER_OK. Features
# are read and written in 32-bit words behind a selector; words 2 and 3 read as 0 where QEMU has
# only two, as 10.0 and before it. A queue's registers are behind a selector too.
#
# QEMU has three queues until MQ or RSS is negotiated, and puts the control queue behind all the
# data queues after that. MQ and RSS commands want their data queues configured (virtio 1.2,
# 5.1.6.5.5), so all of them get a ring; it stays empty, for the guest that would fill it isn't
# there. QEMU 7.2 itself would take MQ and RSS commands without them (tried).
#
# Sources: virtio 1.2, 3.1.1, 4.1.4.3, 5.1.2 and 5.1.4.
"""Bring-up of a virtio-net device over modern virtio-pci."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from .layout import Ring, data_ring
from .pci import VirtioBlocks
from .qtest import Qtest

FEATURE_WORDS = 4


class Common(IntEnum):
    """Offsets in the common configuration, virtio 1.2, 4.1.4.3."""

    DEVICE_FEATURE_SELECT = 0
    DEVICE_FEATURE = 4
    DRIVER_FEATURE_SELECT = 8
    DRIVER_FEATURE = 12
    NUM_QUEUES = 18
    STATUS = 20
    QUEUE_SELECT = 22
    QUEUE_SIZE = 24
    QUEUE_ENABLE = 28
    QUEUE_NOTIFY_OFF = 30
    QUEUE_DESC = 32
    QUEUE_DRIVER = 40
    QUEUE_DEVICE = 48


class Status(IntFlag):
    """Device status bits, virtio 1.2, 2.1."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8


class Feature(IntEnum):
    """The feature bit numbers that the bring-up itself looks at."""

    CTRL_VQ = 17
    MQ = 22
    RING_EVENT_IDX = 29
    VERSION_1 = 32
    RING_PACKED = 34
    IN_ORDER = 35
    NOTIFICATION_DATA = 38
    RING_RESET = 40
    HASH_REPORT = 57
    RSS = 60
    STANDBY = 62


NOT_NEGOTIATED = frozenset(
    {
        Feature.RING_PACKED,
        Feature.IN_ORDER,
        Feature.NOTIFICATION_DATA,
        Feature.RING_RESET,
        Feature.STANDBY,
    }
)
"""What a plain split-ring driver does not take, even where it is offered."""


class NetConfig(IntEnum):
    """Offsets in virtio_net_config, virtio 1.2, 5.1.4."""

    MAC = 0
    MAX_PAIRS = 8
    KEY_SIZE = 17
    TABLE_LENGTH = 18
    HASH_TYPES = 20


class Refused(Exception):
    """The device does not take what the harness asked for."""


@dataclass(frozen=True)
class DeviceConfig:
    """virtio_net_config as far as the negotiated features have it, virtio 1.2, 5.1.4."""

    mac: str
    max_virtqueue_pairs: int
    """1 without MQ and RSS."""
    rss_max_key_size: int
    """In bytes. 0 without RSS and HASH_REPORT, as are the next two."""
    rss_max_indirection_table_length: int
    """In entries."""
    supported_hash_types: int
    """A mask, virtio 1.2, 5.1.6.4.3.1."""


class Device:
    """The device's registers. Methods raise what Qtest raises, and Refused."""

    def __init__(self, qtest: Qtest, blocks: VirtioBlocks) -> None:
        self._qtest = qtest
        self._blocks = blocks

    async def acknowledge(self) -> frozenset[int]:
        """Reset the device, say that a driver is here, and return the offered feature bits."""
        await self._set_status(Status(0))
        await self._set_status(Status.ACKNOWLEDGE)
        await self._set_status(Status.ACKNOWLEDGE | Status.DRIVER)
        return await self._offered()

    async def negotiate(self, features: frozenset[int], offered: frozenset[int]) -> None:
        """Write the wanted features and settle them.

        `offered` is what `acknowledge` returned. Raises Refused where one is not offered (QEMU
        drops it in silence), or where FEATURES_OK doesn't stay.
        """
        if features - offered:
            raise Refused(f"the device doesn't offer these features: {sorted(features - offered)}")
        mask = sum(1 << bit for bit in features)
        for word in range(FEATURE_WORDS):
            await self._write32(Common.DRIVER_FEATURE_SELECT, word)
            await self._write32(Common.DRIVER_FEATURE, mask >> 32 * word & 0xFFFF_FFFF)
        await self._set_status(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK)
        if not await self._status() & Status.FEATURES_OK:
            raise Refused(f"the device refuses these features: {sorted(features)}")

    async def config(self, features: frozenset[int]) -> DeviceConfig:
        """Read the configuration; what the features don't give reads as in DeviceConfig."""
        # Field by field: an access that sticks out of what the device has reads as all ones.
        qtest, at = self._qtest, self._blocks.device
        mac = bytes([await qtest.readb(at + NetConfig.MAC + index) for index in range(6)])
        queues = bool(features & {Feature.MQ, Feature.RSS})
        hashes = bool(features & {Feature.RSS, Feature.HASH_REPORT})
        return DeviceConfig(
            mac=mac.hex(":"),
            max_virtqueue_pairs=await qtest.readw(at + NetConfig.MAX_PAIRS) if queues else 1,
            rss_max_key_size=await qtest.readb(at + NetConfig.KEY_SIZE) if hashes else 0,
            rss_max_indirection_table_length=(
                await qtest.readw(at + NetConfig.TABLE_LENGTH) if hashes else 0
            ),
            supported_hash_types=await qtest.readl(at + NetConfig.HASH_TYPES) if hashes else 0,
        )

    async def set_up_queue(self, index: int, ring: Ring) -> int:
        """Give queue `index` its ring and enable it; return its doorbell's address.

        Raises Refused where there is no such queue, or it doesn't take a ring of that size.
        """
        await self._write16(Common.QUEUE_SELECT, index)
        largest = await self._read16(Common.QUEUE_SIZE)
        await self._write16(Common.QUEUE_SIZE, ring.size)
        if await self._read16(Common.QUEUE_SIZE) != ring.size:
            raise Refused(f"queue {index}, of {largest} at reset, doesn't take {ring.size}")
        await self._write64(Common.QUEUE_DESC, ring.descriptors)
        await self._write64(Common.QUEUE_DRIVER, ring.available)
        await self._write64(Common.QUEUE_DEVICE, ring.used)
        await self._write16(Common.QUEUE_ENABLE, 1)
        offset = await self._read16(Common.QUEUE_NOTIFY_OFF)
        return self._blocks.notify + offset * self._blocks.notify_multiplier

    async def set_up_data_queues(self, count: int) -> None:
        """Give data queues 0 to count-1 an empty ring each."""
        for index in range(count):
            await self.set_up_queue(index, data_ring(index))

    async def start(self) -> None:
        """DRIVER_OK: from now on the device heeds its doorbells."""
        live = Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK
        await self._set_status(live)
        if await self._status() != live:
            raise Refused(f"the device's status is {await self._status():#x}, not {live:#x}")

    async def _offered(self) -> frozenset[int]:
        mask = 0
        for word in range(FEATURE_WORDS):
            await self._write32(Common.DEVICE_FEATURE_SELECT, word)
            mask |= await self._qtest.readl(self._at(Common.DEVICE_FEATURE)) << 32 * word
        return bits(mask)

    async def _status(self) -> int:
        return await self._qtest.readb(self._at(Common.STATUS))

    async def _set_status(self, status: Status) -> None:
        await self._qtest.writeb(self._at(Common.STATUS), status)

    async def _read16(self, register: Common) -> int:
        return await self._qtest.readw(self._at(register))

    async def _write16(self, register: Common, value: int) -> None:
        await self._qtest.writew(self._at(register), value)

    async def _write32(self, register: Common, value: int) -> None:
        await self._qtest.writel(self._at(register), value)

    async def _write64(self, register: Common, value: int) -> None:
        # virtio 1.2, 4.1.3.1: a 64-bit register is written as two 32-bit halves.
        await self._qtest.writel(self._at(register), value & 0xFFFF_FFFF)
        await self._qtest.writel(self._at(register) + 4, value >> 32)

    def _at(self, register: Common) -> int:
        return self._blocks.common + register


def bits(mask: int) -> frozenset[int]:
    """Return the numbers of the bits that are set."""
    return frozenset(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def sensible(offered: frozenset[int], without: Iterable[int] = ()) -> frozenset[int]:
    """Everything offered, but for NOT_NEGOTIATED and the bits in `without`."""
    return offered - NOT_NEGOTIATED - frozenset(without)


def data_queues(features: frozenset[int], config: DeviceConfig) -> int:
    """Return the number of data queues, which is the control queue's index, virtio 1.2, 5.1.2."""
    return 2 * config.max_virtqueue_pairs if features & {Feature.MQ, Feature.RSS} else 2
