"""The announcement: a guest that has moved is asked to tell the network where it is now.

Switches send its packets to where it was until they see one of its own. So at the start that a
moved guest goes on with, the bit ANNOUNCE stands in the status of the config space as the guest
sees it, and a config interrupt tells it to look. The guest sends what makes it known and then
ANNOUNCE_ACK over its control queue, which clears the bit. The device has not asked, and would
refuse that command: it is answered here, unless the device has asked too.

It takes a guest that has negotiated GUEST_ANNOUNCE and STATUS, and a VMM that hands the control
queue over. Nobody else can be asked here, and nobody here can send a packet for the guest: transmit
queues are the device's. Who announces then, docs/backend.md says.

The guest is asked until it has answered, at each start that goes on; one that begins anew makes
itself known by itself.

Source: virtio 1.4, 5.1.6.5.4 "Gratuitous Packet Sending".
"""

from collections.abc import Awaitable, Callable

from vdpad.backend.forwarder import Forwards
from vdpad.backend.guest_settings import GuestSettings
from vdpad.virtio.commands import ACK_OK, AnnounceAck
from vdpad.virtio.config import STATUS_ANNOUNCE, pull_config, with_status
from vdpad.virtio.features import Feature, FeatureSet

_ACK = AnnounceAck().encode()


class Announcement:
    """Of one device's guests."""

    def __init__(
        self, settings: GuestSettings, device_config: Callable[[], Awaitable[bytes]]
    ) -> None:
        """Nobody is asked yet.

        Args:
            settings: which know whether the guest has moved.
            device_config: the device's own config space.
        """
        self._settings = settings
        self._device_config = device_config
        self._is_asked = False
        self._answered = False

    def begin(self, features: FeatureSet, *, has_control_queue: bool) -> bool:
        """The device starts; whether its guest is asked to announce itself.

        Args:
            features: what the guest's driver took.
            has_control_queue: the VMM hands the guest's over.
        """
        needed = {Feature.GUEST_ANNOUNCE, Feature.STATUS}
        self._is_asked = self._settings.has_moved and has_control_queue and needed <= features
        self._answered = False
        return self._is_asked

    def shown(self, space: bytes) -> bytes:
        """The config space as the guest sees it."""
        if not self._is_asked:
            return space
        return with_status(space, pull_config(space).status | STATUS_ANNOUNCE)

    async def takes(self, command: bytes) -> bool:
        """Whether a command of the guest's is answered here, and not the device's to answer."""
        if not self._is_asked or command != _ACK:
            return False
        self._is_asked = self._settings.has_moved = False
        own = pull_config(await self._device_config()).status
        self._answered = not own & STATUS_ANNOUNCE
        return self._answered

    def was_answered(self) -> bool:
        """Whether the command that was just answered was answered here; told once."""
        answered, self._answered = self._answered, False
        return answered


class Announcing:
    """Implements Forwards: what the announcement does not take goes to the device."""

    def __init__(self, announcement: Announcement, forwarder: Forwards) -> None:
        self._announcement = announcement
        self._forwarder = forwarder

    async def forward(self, command: bytes, room: int) -> bytes:
        """The answer to a command."""
        if await self._announcement.takes(command):
            return bytes((ACK_OK,))
        return await self._forwarder.forward(command, room)
