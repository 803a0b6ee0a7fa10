"""A device with all that drives it, from its opening to its closing.

A back end has one of them at a time. While another is to take its place there are two, which know
nothing of each other: what both have to know, the settings of the guest, belongs to neither.
"""

from vdpad.backend.device_lifecycle import DeviceLifecycle
from vdpad.backend.guest_settings import GuestSettings
from vdpad.backend.listeners import Listeners
from vdpad.backend.logging import Logging
from vdpad.backend.moving.announcement import Announcement
from vdpad.backend.own_address import put_back
from vdpad.backend.owned_device import OwnedDevice


class DrivenDevice:
    """One; it is stopped, and has no memory."""

    def __init__(
        self, owned: OwnedDevice, settings: GuestSettings, name: str, listeners: Listeners
    ) -> None:
        """
        Args:
            owned: the device, which is closed with this.
            settings: what the guest has set, whoever drives its device.
            name: of the back end.
            listeners: who is told of what.
        """
        self.owned = owned
        self._name = name
        self._announce = listeners.announce
        self.announcement = Announcement(settings, owned, name, listeners)
        self.lifecycle = DeviceLifecycle(owned, settings, self.announcement, name, listeners)
        self.memory = self.lifecycle.memory
        self.logging = Logging(owned, self.lifecycle, settings, name, listeners)

    async def close(self) -> None:
        """Gives the device back, with its own address. It is stopped, or has been left."""
        try:
            await put_back(self.owned, self._name, self.memory.marking.end, self._announce)
        finally:
            await self.lifecycle.close()
            await self.owned.close()
