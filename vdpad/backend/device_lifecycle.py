"""A device from its start to its stop, and what stays in between.

How it works. The device is *stopped* or *running*. While it runs it may *fail*: then its guest is
told that it needs a reset and its commands are served no more, but packets go on. Only this file
changes which it is.

Start. Each comes before the next for a reason:

1. Features, and with them whether the CVQ has an address space of its own. A device that lets its
   guest reach our ring is refused, unless the operator has allowed it.
2. The data rings, as the VMM has them. A device takes none later.
3. DRIVER_OK, with the CVQ enabled alone: no packet goes by settings that are not the guest's yet.
4. The replay of what the guest had set, where it goes on; what devices take of enabled queues only
   goes with 5 (restoring.py). One that starts anew has set nothing, and is given the address that
   the device had at first.
5. The data queues, and a kick each: what was made available before is not looked at otherwise.
6. The guest's own CVQ. Its commands speak of queues that work.

Stop. The shadow comes first, as it finishes a command. Then the device is suspended, and says where
its queues stand. Where it cannot, the guest's used rings say it after the reset, of a device that
works in order: one with IN_ORDER does, and of others the operator says it. Of the rest nobody
knows: the device is reset all the same, as a guest's reset cannot be told from a pause, and whoever
asks for a base is refused. What the guest has set stays, for a start that goes on.

A guest that moves (moving/): what it has set goes out and comes in while the device is stopped.
Whether a start goes on then, and where its rings begin, is the front end's to say, and the guest's
own rings': both know of a reset that has come since, and a state that came for the guest does not.

Steps of the device are taken on threads (steps.py); all else is the event loop's.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import partial

from vdpad.backend.driving import bring_up
from vdpad.backend.events import DeviceFailed, GuestRestored
from vdpad.backend.faults import BackEndError
from vdpad.backend.guest_settings import GuestSettings
from vdpad.backend.listeners import Listeners
from vdpad.backend.memory import Memory
from vdpad.backend.moving.announcement import Announcement
from vdpad.backend.noting import Noting
from vdpad.backend.owned_device import OwnedDevice
from vdpad.backend.running import Running
from vdpad.backend.watch import ConfigWatch
from vdpad.errors import VdpadError
from vdpad.restore.report import Report
from vdpad.vhost_user.device import Start
from vdpad.vhost_user.faults import BasesUnknown, means
from vdpad.virtio.commands import ACK_OK
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.features import Feature


class Status(StrEnum):
    """How the device is."""

    STOPPED = "stopped"
    RUNNING = "running"
    FAILED = "failed"


class DeviceLifecycle:
    """One device's, over all its starts."""

    def __init__(
        self,
        owned: OwnedDevice,
        settings: GuestSettings,
        announcement: Announcement,
        name: str,
        listeners: Listeners,
    ) -> None:
        """It is stopped, and has no memory.

        Args:
            owned: the device.
            settings: what is known of the guest.
            announcement: of a guest that has moved.
            name: of the back end.
            listeners: who is told.
        """
        self.report: Report | None = None
        """Of the last start that went on, or of a state that was tried since."""
        self.failure = ""
        """Why it failed, until the next start."""
        self._owned = owned
        self._settings = settings
        self._announcement = announcement
        self._name = name
        self._listeners = listeners
        self.memory = Memory(owned, listeners, self.fail)
        """The guest's."""
        self._running: Running | None = None
        self._last: Running | None = None
        """The same, and also while it stops and afterwards."""
        self._is_left = False
        """It has left its rings, which another one takes next, or this one again."""
        self._is_lost = False
        """It has left its rings, and no device has taken them."""
        self._watch = ConfigWatch(self._device_changed)

    async def close(self) -> None:
        """Listens to the device no more, and lets go of the guest's memory; it is stopped."""
        await self.memory.close()
        await self._watch.close()

    # --- how it is ---

    @property
    def running(self) -> Running | None:
        """What there is from a start to its stop; it may have failed since."""
        return self._running

    @property
    def up(self) -> Running:
        """The same, of a device that runs.

        Raises:
            BackEndError: it is stopped.
        """
        if self._running is None:
            raise BackEndError("expected a device that runs, it is stopped")
        return self._running

    @property
    def is_running(self) -> bool:
        """Whether it has started and not stopped; it may have failed since.

        A guest whose rings are just being taken over runs, too.
        """
        return self._running is not None or self._is_left

    @property
    def has_guest(self) -> bool:
        """Whether the front end has started it and not stopped it."""
        return self._running is not None or self._is_lost

    @property
    def status(self) -> Status:
        """How it is; one that has failed stays so until the next start."""
        if self.failure:
            return Status.FAILED
        return Status.RUNNING if self.is_running else Status.STOPPED

    # --- from start to stop ---

    async def start(self, start: Start) -> None:
        """Begins to serve the rings. Where it is cancelled, the device was reset.

        Raises:
            VdpadError: it does not; the device was reset.
        """
        self._begin_settings(start)
        self._listeners.began(start)
        await self._run(start, goes_on=not start.is_fresh)
        self._listeners.started(start)

    async def take_over(self, start: Start) -> None:
        """Goes on with rings that another device has left, or this one; as of `start`.

        Args:
            start: the rings as they were left, of the guest whose settings there are.
        """
        self._settings.bases = {each.index: each.base for each in start.vrings}
        await self._run(start, goes_on=True)

    async def leave(self) -> None:
        """Stops it for another one to take over, or this one again: `take_over`, or `lose`.

        The settings' bases tell where it has left its rings, as far as it tells.
        """
        self._is_left = True
        self._settings.bases = {}
        self._settings.bases = await self._stop()

    def lose(self, error: VdpadError) -> None:
        """No device goes on with the rings that this one has left: its guest is told."""
        self._is_left, self._is_lost = False, True
        self.fail(error)

    async def stop(self) -> Mapping[int, int]:
        """Stops it. What the guest has set stays.

        Returns:
            where each ring stands.

        Raises:
            BasesUnknown: it has stopped as it should, and does not tell all of them.
        """
        bases: Mapping[int, int] = {}
        try:
            bases = await self._stop()
            if self._is_lost:
                self._check_placed()
        except BasesUnknown as error:
            bases = error.known
            self._settings.unplaced = str(error)
            raise
        finally:
            self._is_lost = False
            self._settings.bases = bases or self._settings.bases
            self._listeners.stopped()
        return self._settings.bases

    def reset(self) -> None:
        """Forgets all that a guest has set, and a failure."""
        self._settings.forget()
        self.failure = ""
        self._listeners.settings_changed()

    def reported(self, report: Report) -> None:
        """A state was tried on the device."""
        self.report = report
        self._listeners.settings_changed()

    async def _run(self, start: Start, *, goes_on: bool) -> None:
        self.failure = ""
        self.report = None
        self._is_lost = False
        try:
            with means():
                self._running = self._last = running = await self._bring_up(start)
                self._is_left = False
                self.memory.begin()
                await self._serve(running, goes_on=goes_on)
        except BaseException:
            # Rings may have been served by then.
            bases, self._settings.bases = self._settings.bases, {}
            try:
                self._settings.bases = {**bases, **await self._stop()}
            except BasesUnknown as unknown:
                self._settings.bases = unknown.known or bases
            raise

    def _check_placed(self) -> None:
        """Refuses a device that is lost, and did not tell where it has left all of its rings."""
        known = self._settings.bases
        if self._last is not None and {each.index for each in self._last.start.vrings} - {*known}:
            raise BasesUnknown(
                f"{self._owned.name}: expected a device that tells where it has left its queues, "
                f"it was reset without that ({self.failure}); reset the guest's device",
                known,
            )

    def _begin_settings(self, start: Start) -> None:
        if start.is_fresh:
            self._settings.begin(start.features)
            self._listeners.settings_changed()
        else:
            self._settings.go_on(start.features)
        self._settings.bases = {each.index: each.base for each in start.vrings}
        self._settings.unplaced = ""

    async def _bring_up(self, start: Start) -> Running:
        owned, relaying = self._owned, self.memory.relaying
        place = partial(relaying.place, log=self.memory.marking.log)
        step = partial(bring_up, owned.device, owned.offer, start, self._watch.call, place)
        features = await owned.steps.take(step)
        wrote = self.memory.marking.wrote
        return Running(
            owned.device,
            owned.steps,
            start,
            features,
            wrote,
            relaying,
            in_order=owned.works_in_order or Feature.IN_ORDER in features,
        )

    async def _serve(self, running: Running, *, goes_on: bool) -> None:
        await self._restore(running, goes_on=goes_on)
        has_queue = running.has_control_queue
        self._announcement.begin(running.start.features, has_control_queue=has_queue)
        noting = partial(Noting, self._owned.addresses)
        await running.serve(self._announcement, noting, self._acknowledged, self._paired, self.fail)
        await self._announcement.have_told()

    async def _restore(self, running: Running, *, goes_on: bool) -> None:
        has_set = running.has_control_queue and goes_on
        state = self._settings.to_restore() if has_set else None
        offer = self._owned.offer
        own = offer.mac_of_guest(has_control_queue=running.has_control_queue)
        guests = None if state is None else state.mac
        self._owned.addresses.gives(guests or own)
        if guests is None:
            await running.put_address_back(own, self._name)
        if state is None:
            return
        self.report = report = await running.restore(state, self._name, offer.net)
        if report.commands:
            done = GuestRestored(self._name, report.commands, report.commit_us)
            self._listeners.announce(done)

    async def _stop(self) -> Mapping[int, int]:
        running, self._running = self._running, None
        try:
            if running is not None:
                return await running.stop()
            await self._owned.steps.take(self.memory.relaying.reset)
            return {}
        finally:
            await self.memory.marking.stopped()

    # --- what the device and the shadow tell ---

    async def _device_changed(self) -> None:
        try:
            status = await self._owned.steps.take(self._owned.device.status)
        except VdpadError as error:
            self.fail(error)
            return
        if DeviceStatus.NEEDS_RESET in status:
            broken = BackEndError("the device itself says that it needs a reset")
            if self._last is not None:
                self._last.give_up(str(broken))
            self.fail(broken)
        else:
            self._listeners.config_changed()

    def _acknowledged(self, command: bytes, answer: bytes) -> None:
        if self._announcement.was_answered():
            return
        self._settings.acknowledged(command, answer)
        if answer[0] == ACK_OK:
            self._listeners.acknowledged(command)
        self._listeners.settings_changed()

    def _paired(self, pairs: int) -> None:
        self._settings.queue_pairs = pairs

    def fail(self, error: VdpadError) -> None:
        """The guest's device does not work any more: its guest is told, once."""
        if not self.has_guest or self.failure:
            return
        self.failure = str(error)
        self._listeners.announce(DeviceFailed(self._name, self.failure))
        self._listeners.config_changed()
