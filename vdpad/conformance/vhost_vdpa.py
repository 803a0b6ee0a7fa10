"""A vhost-vdpa device under test: opened for each case, and closed behind it, which resets it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from vdpad.conformance.device_under_test import DeviceUp, Origin, StillInFlight
from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.vhost_vdpa.device import VhostVdpaDevice
from vdpad.queues.vhost_vdpa.errors import DeviceRefused
from vdpad.virtio.config import NetConfig
from vdpad.virtio.features import FeatureSet

_EVERY_FEATURE: FeatureSet = frozenset(range(64))


class VhostVdpaUnderTest:
    """Implements DeviceUnderTest."""

    def __init__(self, node: Path, origin: Origin) -> None:
        self.origin = origin
        self._node = node

    @asynccontextmanager
    async def up(self) -> AsyncIterator[DeviceUp]:
        """The device with all that it offers. Raises as VhostVdpaDevice does."""
        device = VhostVdpaDevice(self._node, _EVERY_FEATURE)
        try:
            yield _VhostVdpaUp(device)
        finally:
            device.close()


class _VhostVdpaUp:
    def __init__(self, device: VhostVdpaDevice) -> None:
        self.offered = device.offered
        self.features = device.features
        self.config = device.config
        self.geometry = device.geometry
        self.event_idx = device.event_idx
        self._device = device

    def queue(self) -> ControlQueue:
        try:
            return self._device.queue()
        except DeviceRefused as error:
            raise StillInFlight(str(error)) from error

    async def config_now(self) -> NetConfig:
        return self._device.config_now()
