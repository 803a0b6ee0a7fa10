"""The device that a back end owns, with what it offers, and the one way to have it do something."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

from vdpad.backend.driving import look
from vdpad.backend.kept.addresses import Addresses
from vdpad.backend.offer import Offer
from vdpad.backend.steps import Steps
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.wire.user_threads import NoThread

KnownAddresses = Callable[[bytes], Addresses]
"""Tells a device's addresses by the one that it shows, which may be a guest's."""


@dataclass(frozen=True, slots=True)
class OwnedDevice:
    """One, from its opening to its closing."""

    device: ShadowedDevice
    """Which is used by steps."""
    offer: Offer
    """What it is to a guest."""
    steps: Steps
    """Its own."""
    addresses: Addresses
    """Its own is the offer's, unless a guest knows another."""
    works_in_order: bool = False
    """It returns buffers in the order in which they were made available, the operator says."""

    @classmethod
    async def open(
        cls,
        device: ShadowedDevice,
        *,
        shared_address_space: bool = False,
        follows_filter: bool = False,
        card_mac: bytes | None = None,
        addresses: KnownAddresses = Addresses,
        in_order: bool = False,
    ) -> Self:
        """Looks at a device that was just opened, and resets it.

        Args:
            device: closed by `close`, and where this raises.
            shared_address_space: the guest may reach the CVQ's ring.
            follows_filter: somebody follows the filter of a guest whose VMM keeps its CVQ.
            card_mac: what such a guest's card has; None for the device's own.
            addresses: as it says; by default the one that it shows is its own.
            in_order: the operator says that it works so.

        Raises:
            VdpadError: it is no device for a guest.
        """
        try:
            steps = Steps()
        except NoThread:
            # Here, as there is none for that either. Nobody has used it yet.
            device.close()
            raise
        try:
            step = partial(
                look,
                device,
                shared_address_space=shared_address_space,
                follows_filter=follows_filter,
            )
            offer = await steps.take(step)
            if card_mac is not None:
                offer = offer.with_card(card_mac, device.name)
        except BaseException:
            await steps.take_last(device.close)
            raise
        known = addresses(offer.net.mac)
        return cls(device, offer.with_address(known.own), steps, known, in_order)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.device.name

    def tells_bases(self, features: FeatureSet) -> bool:
        """Whether it is known where it leaves its rings, of a guest that took these features."""
        in_order = self.works_in_order or Feature.IN_ORDER in features
        return in_order or self.device.can_suspend

    async def config(self) -> bytes:
        """Its config space, as it has it now."""
        return await self.steps.take(self.device.config)

    async def close(self) -> None:
        """Gives it back. It is stopped."""
        await self.steps.take_last(self.device.close)
