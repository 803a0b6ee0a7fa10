"""One device behind one VMM: started and stopped with the VMM's rings, and what stays in between.

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
its queues stand; where it cannot, the guest's used rings say it after the reset, which is true of
devices that work in order. What the guest has set stays, for a start that goes on.

A guest that moves (moving/): what it has set goes out and comes in while the device is stopped.
Whether a start goes on then, and where its rings begin, is the front end's to say, and the guest's
own rings': both know of a reset that has come since, and a state that came for the guest does not.

The guest's memory is mapped when it comes and until it goes, over all starts.

Steps of the device are taken on threads (steps.py); all else is the event loop's.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from typing import Self

from vdpad.backend.driving import as_rings_stand, bring_up, check_descriptors, look
from vdpad.backend.events import (
    AnnouncementAsked,
    DeviceFailed,
    GuestRestored,
    LoggingBegan,
    LoggingEnded,
)
from vdpad.backend.faults import BackEndError
from vdpad.backend.guest_settings import GuestSettings
from vdpad.backend.kept_queue import KeptQueue
from vdpad.backend.listeners import Listeners
from vdpad.backend.marking import Logged, Marking
from vdpad.backend.moving.announcement import Announcement
from vdpad.backend.moving.moving import Moving
from vdpad.backend.offer import Offer
from vdpad.backend.running import Running
from vdpad.backend.steps import Steps
from vdpad.backend.watch import ConfigWatch
from vdpad.errors import VdpadError
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.restore.report import Report
from vdpad.restore.terms import Terms
from vdpad.vhost_user.device import Start
from vdpad.vhost_user.dirty_log import DirtyLog
from vdpad.vhost_user.memory_table import MappedRegion
from vdpad.virtio.commands import ACK_OK
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.features import FeatureSet


class Status(StrEnum):
    """How the device is."""

    STOPPED = "stopped"
    RUNNING = "running"
    FAILED = "failed"


class BackEndDevice:
    """Implements VhostUserDevice."""

    @classmethod
    async def open(
        cls,
        device: ShadowedDevice,
        name: str,
        listeners: Listeners,
        *,
        shared_address_space: bool = False,
        follows_filter: bool = False,
        rehearses: bool = True,
    ) -> Self:
        """Looks at a device that was just opened, and resets it.

        Args:
            device: closed by `close`, and where this raises.
            name: of the back end.
            listeners: who is told of what.
            shared_address_space: the guest may reach the CVQ's ring.
            follows_filter: somebody follows the filter of a guest whose VMM keeps its CVQ.
            rehearses: whether a state that comes in by a stream is tried.

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
        return cls(device, name, listeners, steps, offer, rehearses=rehearses)

    def __init__(
        self,
        device: ShadowedDevice,
        name: str,
        listeners: Listeners,
        steps: Steps,
        offer: Offer,
        *,
        rehearses: bool,
    ) -> None:
        """For `open`, which has looked at the device."""
        self.name = name
        self.offer = offer
        self.settings = GuestSettings()
        """What the guest has set."""
        self.report: Report | None = None
        """Of the last start that went on, or of a state that was tried since."""
        self.failure = ""
        """Why it failed, until the next start."""
        self._device = device
        self._listeners = listeners
        self._steps = steps
        self._running: Running | None = None
        self._last: Running | None = None
        """The same, and also while it stops and afterwards."""
        self._marking = Marking(steps)
        self._watch = ConfigWatch(self._device_changed)
        self._announcement = Announcement(self.settings, lambda: steps.take(device.config))
        self.moving = Moving(
            device,
            steps,
            offer,
            self.settings,
            name,
            listeners,
            rehearses=rehearses,
            runs=lambda: self.is_running,
            behind_memory=lambda: self._marking.end,
            reported=self._reported,
        )

    async def close(self) -> None:
        """Gives the device back. It is stopped."""
        await self._steps.take(self._device.close)
        await self._watch.close()

    # --- what it is ---

    @property
    def device_name(self) -> str:
        """What people call the device itself."""
        return self._device.name

    @property
    def is_running(self) -> bool:
        """Whether it has started and not stopped; it may have failed since."""
        return self._running is not None

    @property
    def status(self) -> Status:
        """How it is; one that has failed stays so until the next start."""
        if self.failure:
            return Status.FAILED
        return Status.STOPPED if self._running is None else Status.RUNNING

    @property
    def shadows(self) -> bool:
        """Whether the guest's commands are seen: it runs, and its VMM hands the CVQ over."""
        return self._running is not None and self._running.has_control_queue

    @property
    def kept_queue(self) -> KeptQueue | None:
        """The device's CVQ, where it runs, has not failed, and its VMM keeps the guest's."""
        return None if self._running is None or self.failure else self._running.kept_queue

    @property
    def queue_pairs(self) -> int:
        """That the guest uses, also while it is stopped, where its VMM keeps its CVQ."""
        return self.settings.queue_pairs

    @property
    def features(self) -> FeatureSet:
        """What a driver may be offered."""
        return self.offer.features

    @property
    def queues(self) -> int:
        """How many rings a front end may set up."""
        return self.offer.queues

    @property
    def can_move(self) -> bool:
        """Its state travels with the front end's."""
        return True

    @property
    def needs_reset(self) -> bool:
        """Whether DEVICE_NEEDS_RESET stands in its status."""
        return bool(self.failure) and self._running is not None

    @property
    def logged(self) -> Logged | None:
        """How the guest's memory is logged, if it is."""
        return self._marking.logged

    def terms(self, guest: FeatureSet) -> Terms:
        """What it would take of the state of a guest with these features."""
        return self.offer.terms(guest)

    def last_queue(self, features: FeatureSet) -> int:
        """The highest queue of a driver with these features."""
        return self.offer.last_queue(features)

    # --- the config space ---

    async def config(self) -> bytes:
        """As the device has it, with the address that the guest has given it while it runs.

        A device may keep an address through its reset. Who looks while it is stopped is the guest's
        next driver, which must not see it: a guest that goes on stands still until the start.
        """
        if self._running is None:
            return self.offer.config
        space = await self._steps.take(self._device.config)
        mac = self.settings.mac or self.offer.net.mac
        return self._announcement.shown(mac + space[len(mac) :])

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
        await self._steps.take(partial(self._device.map, mapped.guest, mapped.view))
        self._marking.add(mapped.guest)

    async def remove_memory(self, mapped: MappedRegion) -> None:
        """Takes a region from the device."""
        await self._steps.take(partial(self._device.unmap, mapped.guest))
        self._marking.remove(mapped.guest)

    async def log(self, log: DirtyLog | None) -> None:
        """Marks what is written to the guest's memory, or no more."""
        before = self.logged
        self._marking.set_log(log)
        if before is None and log is not None:
            self._listeners.announce(LoggingBegan(self.name, "everything"))
        elif before is not None and log is None:
            self._listeners.announce(LoggingEnded(self.name, before.way, before.pages))
        self._listeners.logging_changed()

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
        async with self.moving.turn:
            await self._start(as_rings_stand(start))

    async def _start(self, start: Start) -> None:
        self._begin_settings(start)
        self._listeners.began(start)
        self.failure = ""
        self.report = None
        try:
            step = partial(bring_up, self._device, self.offer, start, self._watch.call)
            features = await self._steps.take(step)
            running = Running(self._device, self._steps, start, features, self._marking.wrote)
            self._running = self._last = running
            await self._serve(running)
            self._listeners.started(start)
        except BaseException:
            await self._stop()
            raise

    async def enable(self, index: int, enabled: bool) -> None:
        """Enables a ring. One that is disabled again stays with the device.

        Some drivers know no way back from it but a reset; and where fewer queue pairs are used, the
        device is told so.
        """
        await self._up.enable(index, enabled)

    async def set_call(self, index: int, call: int | None) -> None:
        """Calls by another descriptor from now on."""
        await self._up.set_call(index, call)

    async def stop(self) -> Mapping[int, int]:
        """Stops it. What the guest has set stays.

        Returns:
            where each ring stands.
        """
        bases: Mapping[int, int] = {}
        try:
            bases = await self._stop()
        finally:
            self.settings.bases = bases or self.settings.bases
            self._listeners.stopped()
        return bases

    async def reset(self) -> None:
        """Forgets all that a guest has set."""
        self.settings.forget()
        self.failure = ""
        self._listeners.settings_changed()

    def _begin_settings(self, start: Start) -> None:
        if start.is_fresh:
            self.settings.begin(start.features)
            self._listeners.settings_changed()
        else:
            self.settings.go_on(start.features)
        self.settings.bases = {each.index: each.base for each in start.vrings}

    async def _serve(self, running: Running) -> None:
        goes_on = running.has_control_queue and not running.start.is_fresh
        state = self.settings.to_restore() if goes_on else None
        if state is None:
            await running.put_address_back(self.offer.net.mac, self.name)
        else:
            self.report = report = await running.restore(state, self.name, self.offer.net)
            if report.commands:
                done = GuestRestored(self.name, report.commands, report.commit_us)
                self._listeners.announce(done)
        has_queue = running.has_control_queue
        asked = self._announcement.begin(running.start.features, has_control_queue=has_queue)
        await running.serve(self._announcement, self._acknowledged, self._paired, self._fail)
        if asked:
            self._listeners.config_changed()
            self._listeners.announce(AnnouncementAsked(self.name))

    async def _stop(self) -> Mapping[int, int]:
        running, self._running = self._running, None
        try:
            if running is not None:
                return await running.stop()
            await self._steps.take(self._device.reset)
            return {}
        finally:
            await self._marking.stopped()

    def _reported(self, report: Report) -> None:
        self.report = report
        self._listeners.settings_changed()

    @property
    def _up(self) -> Running:
        if self._running is None:
            raise BackEndError("expected a device that runs, it is stopped")
        return self._running

    # --- what the device and the shadow tell ---

    async def _device_changed(self) -> None:
        try:
            status = await self._steps.take(self._device.status)
        except VdpadError as error:
            self._fail(error)
            return
        if DeviceStatus.NEEDS_RESET in status:
            broken = BackEndError("the device itself says that it needs a reset")
            if self._last is not None:
                self._last.give_up(str(broken))
            self._fail(broken)
        else:
            self._listeners.config_changed()

    def _acknowledged(self, command: bytes, answer: bytes) -> None:
        if self._announcement.was_answered():
            return
        self.settings.acknowledged(command, answer)
        if answer[0] == ACK_OK:
            self._listeners.acknowledged(command)
        self._listeners.settings_changed()

    def _paired(self, pairs: int) -> None:
        self.settings.queue_pairs = pairs

    def _fail(self, error: VdpadError) -> None:
        if self._running is None or self.failure:
            return
        self.failure = str(error)
        self._listeners.announce(DeviceFailed(self.name, self.failure))
        self._listeners.config_changed()
