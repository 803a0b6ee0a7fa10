"""Which device a back end's front end is served by; a switch changes it.

The front end's calls come one after the other (vhost_user/device.py), but a switch comes when an
operator asks for it. So each call has `serving` to itself, and so has a switch while one device
leaves the rings and another takes them (moving/switching.py): the front end waits for it then.

Where memory is taken away from the device in use, it is taken from the one beside it first.
"""

import asyncio

from vdpad.backend.driven_device import DrivenDevice
from vdpad.vhost_user.memory_table import MappedRegion


class DeviceInUse:
    """That of one back end."""

    def __init__(self, driven: DrivenDevice) -> None:
        """A device that is stopped."""
        self.driven = driven
        self.beside: DrivenDevice | None = None
        """One that reaches the guest's memory as well: it is to take over, or has been left."""
        self.serving = asyncio.Lock()
        """Of a call of the front end's, or of a switch that takes the rings over."""
        self.mapping = asyncio.Lock()
        """Of whoever gives memory to a device, or takes it away."""

    # --- memory ---

    async def add_memory(self, mapped: MappedRegion) -> None:
        """Maps a region for the device in use, which may take seconds."""
        async with self.mapping:
            await self.driven.memory.add(mapped)

    async def remove_memory(self, mapped: MappedRegion) -> None:
        """Takes a region away."""
        async with self.mapping:
            if self.beside is not None:
                await self.beside.memory.remove(mapped)
            await self.driven.memory.remove(mapped)
