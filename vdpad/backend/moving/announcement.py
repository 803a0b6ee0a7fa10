"""The announcement: a guest that has moved is asked to tell the network where it is now.

Switches send its packets to where it was until they see one of its own. So at the start that a
moved guest goes on with, the bit ANNOUNCE stands in the status of the config space as the guest
sees it, and a config interrupt tells it to look. The guest sends what makes it known and then
ANNOUNCE_ACK over its control queue, which clears the bit. The device has not asked, and would
refuse that command: it is answered here, unless the device has asked too.

It takes a guest that has negotiated GUEST_ANNOUNCE and STATUS, and a VMM that hands the control
queue over. For another the device tells the network, if it has one of its own: a software device
with a TAP interface. Of others transmit queues are the guest's alone. It is told where the guest's
address is known here: its VMM hands the control queue over, or the operator has said it (--mac).
Else its VMM may say it (SEND_RARP). Who announces in which case, docs/backend.md says.

A guest is asked until it has answered, at each start that goes on; one that begins anew makes
itself known by itself. A frame that did not go is sent at the next such start.

Source: virtio 1.4, 5.1.6.5.4 "Gratuitous Packet Sending".
"""

from contextlib import suppress
from functools import partial

from vdpad.backend.events import AnnouncementAsked, GuestAnnounced
from vdpad.backend.forwarder import Forwards
from vdpad.backend.guest_settings import GuestSettings
from vdpad.backend.listeners import Listeners
from vdpad.backend.owned_device import OwnedDevice
from vdpad.errors import VdpadError
from vdpad.virtio.commands import ACK_OK, AnnounceAck
from vdpad.virtio.config import STATUS_ANNOUNCE, pull_config, with_status
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.mac import format_mac

_NEEDED: FeatureSet = frozenset({Feature.GUEST_ANNOUNCE, Feature.STATUS})
_ACK = AnnounceAck().encode()


class Announcement:
    """Of one device's guests."""

    def __init__(
        self, settings: GuestSettings, owned: OwnedDevice, name: str, listeners: Listeners
    ) -> None:
        """Nobody is asked yet.

        Args:
            settings: which know whether the guest has moved.
            owned: its device.
            name: of the back end.
            listeners: who is told.
        """
        self._settings = settings
        self._owned = owned
        self._name = name
        self._listeners = listeners
        self._is_asked = False
        self._answered = False
        self._address: bytes | None = None
        """That the device makes known."""

    def begin(self, features: FeatureSet, *, has_control_queue: bool) -> None:
        """The device starts; whether its guest is asked to announce itself shows from now on.

        Args:
            features: what the guest's driver took.
            has_control_queue: the VMM hands the guest's over.
        """
        self._is_asked = has_control_queue and features >= _NEEDED and self._settings.has_moved
        self._answered = False
        offer = self._owned.offer
        is_known = has_control_queue or offer.card_mac is not None
        own = offer.mac_of_guest(has_control_queue=has_control_queue)
        self._address = self._settings.mac or own if is_known else None

    async def have_told(self) -> None:
        """Has the guest look, or the device tell the network; once the queues work."""
        if self._is_asked:
            self._listeners.config_changed()
            self._listeners.announce(AnnouncementAsked(self._name))
        elif self._settings.has_moved and self._address is not None:
            with suppress(VdpadError):
                await self.send(self._address)
                self._settings.has_moved = False

    async def send(self, mac: bytes) -> None:
        """Has the device make an address known in its network.

        Raises:
            VdpadError: it has none of its own, or the frame did not go.
        """
        await self._owned.steps.take(partial(self._owned.device.announce, mac))
        self._listeners.announce(GuestAnnounced(self._name, format_mac(mac)))

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
        own = pull_config(await self._owned.config()).status
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
