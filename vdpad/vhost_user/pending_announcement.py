"""The address that a front end has announced for its guest (SEND_RARP).

QEMU has a guest that has come announced before it starts the device, so what is asked for then is
*pending* until the start.
"""

from contextlib import suppress

from vdpad.errors import VdpadError
from vdpad.vhost_user.device import VhostUserDevice


class PendingAnnouncement:
    """Of one session, which says when its device runs."""

    def __init__(self, device: VhostUserDevice) -> None:
        """Nothing is pending, and the device is stopped."""
        self._device = device
        self._pending: bytes | None = None

    async def ask(self, mac: bytes, *, running: bool) -> None:
        """Announces it now, or when the device starts; the last that was asked for counts.

        Args:
            mac: 6 bytes, the address of one card.
            running: whether the device runs.

        Raises:
            VdpadError: a device that runs could not do so.
        """
        if running:
            await self._device.announce(mac)
        else:
            self._pending = mac

    async def device_started(self) -> None:
        """Announces what is pending."""
        mac, self._pending = self._pending, None
        if mac is not None:
            # Whoever asked for it was answered; and the device runs all the same.
            with suppress(VdpadError):
                await self._device.announce(mac)

    def forget(self) -> None:
        """RESET_DEVICE: what is pending is asked for no more."""
        self._pending = None
