"""A software device under test, in this process: begun anew for each case."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vdpad.conformance.device_under_test import DeviceUp, Origin, StillInFlight
from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.lent_memory import BadLend
from vdpad.queues.lent_queue import LentQueue
from vdpad.queues.software.device import SoftwareConfig, SoftwareDevice
from vdpad.virtio.config import NetConfig
from vdpad.virtio.features import Feature


class SoftwareUnderTest:
    """Implements DeviceUnderTest."""

    def __init__(self, name: str, config: SoftwareConfig) -> None:
        self.origin = Origin(name, parent_driver="software")
        self._config = config

    @asynccontextmanager
    async def up(self) -> AsyncIterator[DeviceUp]:
        """The device with the features and the misbehaviour that it was configured with."""
        device = SoftwareDevice(self._config)
        device.start()
        try:
            yield _SoftwareUp(device)
        finally:
            await device.stop()


class _SoftwareUp:
    def __init__(self, device: SoftwareDevice) -> None:
        self.offered = self.features = device.config.features
        self.config = device.net.config
        self.geometry = device.geometry
        self.event_idx = Feature.RING_EVENT_IDX in self.features
        self._device = device

    def queue(self) -> ControlQueue:
        try:
            return LentQueue(
                self.geometry,
                self._device.lend(),
                self._device.lent_at,
                event_idx=self.event_idx,
                in_order=Feature.IN_ORDER in self.features,
                worth_polling=False,
            )
        except BadLend as error:
            raise StillInFlight(str(error)) from error

    async def config_now(self) -> NetConfig:
        return self._device.net.config
