"""The device that a back end owns, with what it offers, and the one way to have it do something."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

from vdpad.backend.driving import look
from vdpad.backend.offer import Offer
from vdpad.backend.steps import Steps
from vdpad.queues.shadowed_device import ShadowedDevice

OwnAddress = Callable[[bytes], bytes]
"""Tells a device's own address by the one that it shows, which may be a guest's."""


def as_shown(shown: bytes) -> bytes:
    """That of a device which nobody knows anything else of."""
    return shown


@dataclass(frozen=True, slots=True)
class OwnedDevice:
    """One, from its opening to its closing."""

    device: ShadowedDevice
    """Which is used by steps."""
    offer: Offer
    """What it is to a guest."""
    steps: Steps
    """Its own."""
    address: bytes
    """Its own, which it had before any guest; the offer's, unless a guest knows another."""

    @classmethod
    async def open(
        cls,
        device: ShadowedDevice,
        *,
        shared_address_space: bool = False,
        follows_filter: bool = False,
        own_address: OwnAddress = as_shown,
    ) -> Self:
        """Looks at a device that was just opened, and resets it.

        Args:
            device: closed by `close`, and where this raises.
            shared_address_space: the guest may reach the CVQ's ring.
            follows_filter: somebody follows the filter of a guest whose VMM keeps its CVQ.
            own_address: as it says.

        Raises:
            VdpadError: it is no device for a guest.
        """
        steps = Steps()
        try:
            step = partial(
                look,
                device,
                shared_address_space=shared_address_space,
                follows_filter=follows_filter,
            )
            offer = await steps.take(step)
        except BaseException:
            await steps.take(device.close)
            raise
        address = own_address(offer.net.mac)
        return cls(device, offer.with_address(address), steps, address)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.device.name

    async def config(self) -> bytes:
        """Its config space, as it has it now."""
        return await self.steps.take(self.device.config)

    async def close(self) -> None:
        """Gives it back. It is stopped."""
        await self.steps.take(self.device.close)
