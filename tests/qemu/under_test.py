# The conformance suite and the harness meet here; the harness itself knows nothing of vdpad.
"""QEMU's device under test: lent by a guest-less machine, and reset over qtest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vdpad.conformance.device_under_test import DeviceUp, Origin, StillInFlight
from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.lent_indices import Indices
from vdpad.queues.lent_memory import BadLend
from vdpad.queues.lent_queue import LentDescriptors, LentQueue
from vdpad.virtio.config import NetConfig
from vdpad.virtio.driver_rings import AnyDriverRing
from vdpad.virtio.features import Feature
from vdpad.virtio.layouts import AnyGeometry
from vdpad.virtio.packed_driver_ring import PackedDriverRing
from vdpad.virtio.packed_ring import WRAP, PackedGeometry
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import SplitGeometry

from .device import DeviceConfig, bits
from .guestless import Guestless, Lend
from .lender import descriptors


class QemuUnderTest:
    """Implements DeviceUnderTest."""

    def __init__(self, qemu: Guestless, version: str) -> None:
        self.origin = Origin("virtio-net-pci", parent_driver=f"QEMU {version}")
        self._qemu = qemu

    @asynccontextmanager
    async def up(self) -> AsyncIterator[DeviceUp]:
        """The device, reset, with the features that it was first brought up with."""
        await self._qemu.bring_up_again()
        yield _QemuUp(self._qemu, await self._qemu.config_now())


class _QemuUp:
    def __init__(self, qemu: Guestless, config: DeviceConfig) -> None:
        self.offered = qemu.offered
        self.features = qemu.features
        self.config = _net_config(config)
        self.geometry = _geometry(qemu.lend)
        self.event_idx = Feature.RING_EVENT_IDX in qemu.features
        self._qemu = qemu
        self._last: AnyDriverRing | None = None

    def queue(self) -> ControlQueue:
        try:
            queue = LentQueue(
                self.geometry,
                LentDescriptors(*descriptors(self._qemu.lend)).duplicate(),
                self._indices(),
                event_idx=self.event_idx,
                in_order=Feature.IN_ORDER in self.features,
                # Doorbells and interrupts go through this process's event loop.
                worth_polling=False,
            )
        except BadLend as error:
            raise StillInFlight(str(error)) from error
        self._last = queue.ring
        return queue

    def _indices(self) -> Indices:
        """Where a packed ring was left; a split one says so itself."""
        if not isinstance(self._last, PackedDriverRing):
            return Indices()
        if self._last.idle_index is None:
            raise StillInFlight("expected an idle ring, got chains that never came back")
        word = self._last.idle_index & 0xFFFF
        at, wrap = word & ~WRAP, word // WRAP
        return Indices(at, at, wrap, wrap)

    async def config_now(self) -> NetConfig:
        return _net_config(await self._qemu.config_now())


def _net_config(config: DeviceConfig) -> NetConfig:
    return NetConfig(
        mac=bytes.fromhex(config.mac.replace(":", "")),
        max_virtqueue_pairs=config.max_virtqueue_pairs,
        rss_max_key_size=config.rss_max_key_size,
        rss_max_indirection_table_length=config.rss_max_indirection_table_length,
        supported_hash_types=bits(config.supported_hash_types),
    )


def _geometry(lend: Lend) -> AnyGeometry:
    kind = PackedGeometry if lend.packed else SplitGeometry
    return kind(
        lend.ring_size,
        Region(lend.memory_iova, lend.memory_size),
        Region(lend.buffers_iova, lend.buffers_size),
        lend.descriptors,
        lend.available,
        lend.used,
    )
