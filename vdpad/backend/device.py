"""One device behind one VMM: what its front end is served, and what others are shown of it.

Nothing happens here. Each call goes to the one part of the device that it is the business of:

    device_lifecycle.py   from a start to its stop
    memory.py             the guest's memory
    logging.py            the log of what is written there
    moving/               the state of a guest that comes or goes, while the device is stopped; and
                          another device that takes over

They share the device in use (device_in_use.py) and what the guest has set (guest_settings.py).
"""

from collections.abc import Mapping
from typing import Self

from vdpad.backend.device_in_use import DeviceInUse
from vdpad.backend.device_lifecycle import DeviceLifecycle, Status
from vdpad.backend.driven_device import DrivenDevice
from vdpad.backend.driving import as_rings_stand, check_descriptors
from vdpad.backend.faults import BackEndError
from vdpad.backend.guest_settings import GuestSettings
from vdpad.backend.kept.addresses import Addresses
from vdpad.backend.kept_queue import KeptQueue
from vdpad.backend.listeners import Listeners
from vdpad.backend.marking import Logged
from vdpad.backend.moving.moving import Moving
from vdpad.backend.moving.switching import Switching
from vdpad.backend.owned_device import KnownAddresses, OwnedDevice
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.restore.report import Report
from vdpad.restore.terms import Terms
from vdpad.vhost_user.device import Start
from vdpad.vhost_user.dirty_log import DirtyLog
from vdpad.vhost_user.memory_table import MappedRegion
from vdpad.virtio.features import FeatureSet


class BackEndDevice:
    """Implements VhostUserDevice and ShownDevice."""

    @classmethod
    async def open(
        cls,
        device: ShadowedDevice,
        name: str,
        listeners: Listeners,
        *,
        shared_address_space: bool = False,
        follows_filter: bool = False,
        card_mac: bytes | None = None,
        rehearses: bool = True,
        addresses: KnownAddresses = Addresses,
        in_order: bool = False,
    ) -> Self:
        """Looks at a device that was just opened, and resets it.

        Args:
            device: closed by `close`, and where this raises.
            name: of the back end.
            listeners: who is told of what.
            shared_address_space: the guest may reach the CVQ's ring.
            follows_filter: somebody follows the filter of a guest whose VMM keeps its CVQ.
            card_mac: what such a guest's card has; None for the device's own.
            rehearses: whether a state that comes in by a stream is tried.
            addresses: tells them by the one that the device shows; by default that is its own.
            in_order: the device works so.

        Raises:
            VdpadError: it is no device for a guest.
        """
        owned = await OwnedDevice.open(
            device,
            shared_address_space=shared_address_space,
            follows_filter=follows_filter,
            card_mac=card_mac,
            addresses=addresses,
            in_order=in_order,
        )
        return cls(owned, name, listeners, rehearses=rehearses)

    def __init__(
        self, owned: OwnedDevice, name: str, listeners: Listeners, *, rehearses: bool
    ) -> None:
        """For `open`."""
        self.settings = GuestSettings()
        """What the guest has set."""
        self._in_use = DeviceInUse(DrivenDevice(owned, self.settings, name, listeners))
        self.moving = Moving(
            lambda: self._owned,
            self.settings,
            name,
            listeners,
            rehearses=rehearses,
            runs=lambda: self.is_running,
            logs=lambda: self.logged is not None,
            behind_memory=lambda: self._in_use.driven.memory.marking.end,
            reported=lambda report: self._lifecycle.reported(report),
        )
        self.switching = Switching(self._in_use, self.moving.turn, self.settings, name, listeners)

    async def close(self) -> None:
        """Gives the device back, with the address that it had at first. It is stopped."""
        await self.switching.close()
        await self._in_use.driven.close()

    @property
    def _owned(self) -> OwnedDevice:
        return self._in_use.driven.owned

    @property
    def _lifecycle(self) -> DeviceLifecycle:
        return self._in_use.driven.lifecycle

    # --- what it is ---

    @property
    def device_name(self) -> str:
        """What people call the device itself."""
        return self._owned.name

    @property
    def addresses(self) -> Addresses:
        """Its own, and those that it may show instead."""
        return self._owned.addresses

    @property
    def features(self) -> FeatureSet:
        """What a driver may be offered."""
        return self._owned.offer.features

    @property
    def queues(self) -> int:
        """How many rings a front end may set up."""
        return self._owned.offer.queues

    @property
    def can_move(self) -> bool:
        """Its state travels with the front end's."""
        return True

    @property
    def can_announce(self) -> bool:
        """Whether it can tell the network where its guest is."""
        return self._owned.device.can_announce

    def terms(self, guest: FeatureSet) -> Terms:
        """What it would take of the state of a guest with these features."""
        return self._owned.offer.terms(guest)

    def last_queue(self, features: FeatureSet) -> int:
        """The highest queue of a driver with these features."""
        return self._owned.offer.last_queue(features)

    # --- how it is ---

    @property
    def is_running(self) -> bool:
        """Whether it has started and not stopped; it may have failed since."""
        return self._lifecycle.is_running

    @property
    def status(self) -> Status:
        """How it is; one that has failed stays so until the next start."""
        return self._lifecycle.status

    @property
    def failure(self) -> str:
        """Why it failed, until the next start; "" where it did not."""
        return self._lifecycle.failure

    @property
    def needs_reset(self) -> bool:
        """Whether DEVICE_NEEDS_RESET stands in its status."""
        return bool(self.failure) and self._lifecycle.has_guest

    @property
    def report(self) -> Report | None:
        """Of the last start that went on, or of a state that was tried since."""
        return self._lifecycle.report

    @property
    def shadows(self) -> bool:
        """Whether the guest's commands are seen: it runs, and its VMM hands the CVQ over."""
        running = self._lifecycle.running
        return running is not None and running.has_control_queue

    @property
    def kept_queue(self) -> KeptQueue | None:
        """The device's CVQ, where it runs, has not failed, and its VMM keeps the guest's."""
        running = self._lifecycle.running
        return None if running is None or self.failure else running.kept_queue

    @property
    def queue_pairs(self) -> int:
        """That the guest uses, also while it is stopped, where its VMM keeps its CVQ."""
        return self.settings.queue_pairs

    @property
    def logged(self) -> Logged | None:
        """How the guest's memory is logged, if it is."""
        return self._in_use.driven.memory.logged

    @property
    def dropped(self) -> int | None:
        """How many packets the device in use has dropped; None where it does not tell."""
        return self._owned.device.dropped

    # --- the config space ---

    async def config(self) -> bytes:
        """As the device has it, with the address that the guest has given it while it runs.

        A device may keep an address through its reset. Who looks while it is stopped is the guest's
        next driver, which must not see it: a guest that goes on stands still until the start.
        """
        async with self._in_use.serving:
            return await self._config()

    async def _config(self) -> bytes:
        offer = self._owned.offer
        if not self.is_running:
            return offer.config
        space = await self._owned.config()
        mac = self.settings.mac or offer.net.mac
        return self._in_use.driven.announcement.shown(mac + space[len(mac) :])

    async def set_config(self, offset: int, data: bytes, *, moving: bool) -> None:
        """
        Raises:
            BackEndError: always; no field is the driver's to write (virtio 1.4, 5.1.4).
        """
        raise BackEndError(
            "expected no write to the config space, which is read-only, got "
            f"{len(data)} bytes at {offset}"
        )

    # --- memory ---

    async def add_memory(self, mapped: MappedRegion) -> None:
        """Maps a region for the device, which may take seconds."""
        async with self._in_use.serving:
            await self._in_use.add_memory(mapped)

    async def remove_memory(self, mapped: MappedRegion) -> None:
        """Takes a region from the device."""
        async with self._in_use.serving:
            await self._in_use.remove_memory(mapped)

    async def log(self, log: DirtyLog | None) -> None:
        """Marks what is written to the guest's memory, or no more."""
        async with self._in_use.serving:
            await self._in_use.driven.logging.log(log, self.moving.turn)

    # --- moving ---

    async def save(self, fd: int) -> None:
        """Writes what the guest has set; Moving.save."""
        await self.moving.save(fd)

    async def load(self, fd: int) -> None:
        """Reads what a guest had set elsewhere; Moving.load."""
        await self.moving.load(fd)

    # --- from start to stop ---

    async def start(self, start: Start) -> None:
        """Begins to serve the rings.

        Raises:
            VdpadError: it does not; the device was reset.
        """
        check_descriptors(start)
        async with self._in_use.serving, self.moving.turn:
            await self._lifecycle.start(as_rings_stand(start))

    async def enable(self, index: int, enabled: bool) -> None:
        """Enables a ring. One that is disabled again stays with the device.

        Some drivers know no way back from it but a reset; and where fewer queue pairs are used, the
        device is told so.
        """
        async with self._in_use.serving:
            await self._lifecycle.up.enable(index, enabled)

    async def set_call(self, index: int, call: int | None) -> None:
        """Calls by another descriptor from now on."""
        async with self._in_use.serving:
            await self._lifecycle.up.set_call(index, call)

    async def announce(self, mac: bytes) -> None:
        """Sends a frame by which the network knows an address; Announcement.send."""
        async with self._in_use.serving:
            await self._in_use.driven.announcement.send(mac)

    async def stop(self) -> Mapping[int, int]:
        """Stops it. What the guest has set stays.

        Returns:
            where each ring stands.

        Raises:
            BasesUnknown: it has stopped as it should, and does not tell all of them.
        """
        async with self._in_use.serving:
            return await self._lifecycle.stop()

    async def reset(self) -> None:
        """Forgets all that a guest has set."""
        async with self._in_use.serving:
            self._lifecycle.reset()
