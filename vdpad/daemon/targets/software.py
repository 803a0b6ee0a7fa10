"""A software device in the daemon's process."""

import json

from vdpad.daemon.settings import Software
from vdpad.errors import why
from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.lent_queue import LentQueue
from vdpad.queues.software.device import SoftwareDevice
from vdpad.restore.capabilities import Capabilities
from vdpad.service.events.announcing import Announce, log_event
from vdpad.service.events.kinds import FileNotWritten
from vdpad.service.textfile import write_whole
from vdpad.virtio.features import Feature, FeatureSet


class SoftwareTarget:
    """Implements Target and Destination: the device is always up."""

    def __init__(self, settings: Software, announce: Announce = log_event) -> None:
        self._settings = settings
        self._announce = announce
        self.name = settings.name
        self._device = SoftwareDevice(settings.device())
        self.geometry = self._device.geometry
        config = self._device.config
        self.event_idx = Feature.RING_EVENT_IDX in config.features
        self.capabilities = Capabilities.of(config.features, config.net, self.geometry)

    def start(self) -> None:
        """Begins to serve, in the running loop."""
        self._device.start()

    async def stop(self) -> None:
        """Ends the device. On cancellation it is ended all the same."""
        await self._device.stop()

    async def look(self, guest: FeatureSet) -> "SoftwareTarget":
        """The device itself, whose settings are the daemon's."""
        return self

    async def bring_up(self, guest: FeatureSet, migration: str) -> "SoftwareTarget":
        """Nothing more: it is reset when its ring is opened."""
        return self

    def identity(self, fds: list[int]) -> object:
        """The device itself; it needs no descriptors."""
        return self._settings.name

    def open(self, fds: list[int], user: int) -> ControlQueue:
        """Resets the device, as whoever brings one up for a guest does, and lends its ring."""
        self._device.reset()
        return LentQueue(
            self.geometry,
            self._device.lend(),
            self._device.lent_at,
            event_idx=self.event_idx,
            in_order=Feature.IN_ORDER in self._device.config.features,
            worth_polling=False,
        )

    def done(self) -> None:
        """Writes down what the device holds now, where that is wished."""
        if self._settings.state_file is None:
            return
        try:
            settings = json.dumps(self._device.net.settings())
            write_whole(self._settings.state_file, settings.encode())
        except (OSError, ValueError) as error:
            self._announce(FileNotWritten(str(self._settings.state_file), why(error)))

    async def give_up(self) -> None:
        """Nothing: the device was not touched."""
