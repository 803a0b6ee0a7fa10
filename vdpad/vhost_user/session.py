"""A session: one front end, from its first message to its last, and the device that it is given.

How it works. Messages are served one after the other (front_ends.py). Which may come when, and what
each asks of a session, is a table (requests.py).

States. A session begins NEW. SET_FEATURES makes it AGREED: now the driver's features are known and
rings can be set up. It is RUNNING from the device's start to its stop. RESET_DEVICE makes it NEW
again. Nothing else changes the state, and only this file changes it.

Start. No message says "start now" with every front end. One that has all of the device's queues
enables the highest one last, when all rings are set up; one that keeps the control queue enables
queues before it sets them up, and says DRIVER_OK at the end. So the device starts when the last
queue of these features is enabled and ready, or at a SET_STATUS with DRIVER_OK. A front end that
knows neither SET_STATUS nor SET_VRING_ENABLE (without PROTOCOL_FEATURES rings are always enabled)
starts it by the last queue's kick or call, whichever is second.

Stop. GET_VRING_BASE of a ring that is started stops the device, which tells all bases at once; the
other rings' are then at hand. Where the device does not tell one, its reply is empty: front ends
take that for an error, and QEMU goes by the used ring then. A device that fails to stop ends the
connection. SET_STATUS 0 stops it too, and forgets nothing: a front end sends it
before it asks for the device's state. A guest's reset and a pause look alike here. They differ at
the next start, where after a reset every base is 0 (`Start.is_fresh`).

While the device is stopped nothing is said to the front end of our own accord (config_changes.py),
and its guest is not announced (pending_announcement.py): both wait for the start.

SET_FEATURES with the features that the driver has is no renegotiation, and touches no device that
runs; with LOG_ALL or without it, memory is logged or not (memory_logging.py). How a front end is
told what is not served, front_ends.py says.

Source: QEMU's docs/interop/vhost-user.rst; the order that front ends keep is QEMU's, DPDK's and
crosvm's.
"""

from contextlib import AsyncExitStack
from enum import Enum, auto

from vdpad.errors import VdpadError
from vdpad.vhost_user.agreement import offered_features, served_protocol_features
from vdpad.vhost_user.back_channel import BackChannel
from vdpad.vhost_user.channel import Attached, FrontEnd
from vdpad.vhost_user.config_changes import ConfigChanges
from vdpad.vhost_user.device import Start, VhostUserDevice
from vdpad.vhost_user.faults import BasesUnknown, NotServed, NotTold, means
from vdpad.vhost_user.guest_regions import GuestRegions
from vdpad.vhost_user.memory_logging import MemoryLogging
from vdpad.vhost_user.messages import ProtocolFeature
from vdpad.vhost_user.payloads import MemoryRegion
from vdpad.vhost_user.pending_announcement import PendingAnnouncement
from vdpad.vhost_user.transfer import Gone, Transfer
from vdpad.vhost_user.vrings import GuestVrings
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.features import FEATURES, FeatureSet
from vdpad.virtio.rings import Region


class SessionState(Enum):
    """How far a session has come."""

    NEW = auto()
    AGREED = auto()
    RUNNING = auto()


class Session:
    """What one front end has set up, and the device that it is given.

    Coroutines sleep while the device does. On cancellation what was asked for may be done in part;
    then only `end` is of use.
    """

    def __init__(self, device: VhostUserDevice, front_end: FrontEnd, gone: Gone) -> None:
        """A new one; the device is stopped, and nobody else's until `end`.

        Args:
            device: that the front end is given.
            front_end: who it is.
            gone: returns once the front end is gone.
        """
        self.device = device
        self.front_end = front_end
        self.state = SessionState.NEW
        self.offered = offered_features(device)
        """What a driver may take."""
        self.features: FeatureSet = frozenset()
        """What it took; none while the session is NEW."""
        self.protocol_features: frozenset[int] = frozenset()
        """What the front end took."""
        self.vrings = GuestVrings(device.queues, front_end.uid)
        """For others to look at."""
        self.transfer = Transfer(gone)
        """The device's state on its way."""
        self.status = 0
        """The device status as the front end wrote it."""
        self._enables_rings = True
        """Whether rings are enabled by messages: PROTOCOL_FEATURES was taken."""
        self._regions = GuestRegions(device)
        self.logging = MemoryLogging(device, self._regions.table)
        """Of what is written to the guest's memory."""
        self._running: frozenset[int] = frozenset()
        """The rings that the device runs with."""
        self._config_changes = ConfigChanges()
        self._announcement = PendingAnnouncement(device)

    async def end(self) -> None:
        """Stops the device and lets go of all that the front end has given.

        Raises:
            VdpadError: the device could not do a part of it; all the rest is done.
        """
        async with AsyncExitStack() as stack:
            stack.callback(self.vrings.close)
            stack.push_async_callback(self._regions.release)
            stack.push_async_callback(self.logging.end)
            stack.push_async_callback(self._stop)
            stack.push_async_callback(self.transfer.close)
            stack.push_async_callback(self._config_changes.close)

    # --- what is agreed upon ---

    def agree(self, features: FeatureSet, *, enables_rings: bool) -> None:
        """Takes what the driver took.

        Args:
            features: of those that are offered.
            enables_rings: the front end took PROTOCOL_FEATURES.

        Raises:
            NotServed: not offered, or others than a device runs with.
        """
        if features - self.offered:
            raise NotServed(
                "expected features that are offered, got beside them "
                f"{FEATURES.sentence(features - self.offered)}"
            )
        if self.state is SessionState.RUNNING:
            if features != self.features:
                raise NotServed(
                    "expected the features that the device runs with, got others; stop it first"
                )
            return
        self.features = features
        self.state = SessionState.AGREED
        self._enables_rings = enables_rings
        if not enables_rings:
            self.vrings.enable_all()

    @property
    def served(self) -> frozenset[int]:
        """The protocol features that a front end may take."""
        return served_protocol_features(self.device)

    def agree_protocol(self, features: frozenset[int]) -> None:
        """Takes what the front end took.

        Raises:
            NotServed: not served.
        """
        if features - self.served:
            raise NotServed(
                "expected protocol features that are offered, got beside them bits "
                f"{sorted(features - self.served)}"
            )
        self.protocol_features = features

    # --- starting and stopping ---

    async def set_status(self, status: int) -> None:
        """SET_STATUS: may start the device, and 0 stops it."""
        if not status:
            await self._stop()
            self.vrings.stop_all()
        elif status & DeviceStatus.DRIVER_OK and self.state is not SessionState.RUNNING:
            await self._start()
        self.status = status

    async def reset(self) -> None:
        """RESET_DEVICE. What the front end itself has given stays: memory and descriptors."""
        await self._stop()
        await self.logging.end()
        await self.device.reset()
        self.vrings.reset()
        self._announcement.forget()
        self.status = 0
        self.features = frozenset()
        self.state = SessionState.NEW

    async def enable(self, index: int, enabled: bool) -> None:
        """SET_VRING_ENABLE: may start the device."""
        if index in self._running:
            await self.device.enable(index, enabled)
        self.vrings.enable(index, enabled)
        if enabled and self.state is SessionState.AGREED:
            await self._start_if_last(index)

    async def set_kick(self, index: int, attached: Attached) -> None:
        """SET_VRING_KICK: may start the device."""
        self.vrings.set_kick(index, attached.take_if_any())
        await self._start_if_unannounced(index)

    async def base(self, index: int) -> int:
        """GET_VRING_BASE: stops the device if it runs with this ring.

        Raises:
            NotServed: nobody knows where it stands.
            NotTold: the device has failed to stop.
        """
        if index in self._running:
            try:
                with means():
                    await self._stop()
            except VdpadError as error:
                # A front end that is told it only does without the base.
                raise NotTold(str(error)) from error
        self.vrings.stop(index)
        return self.vrings.base(index)

    async def _start(self) -> None:
        if self.state is SessionState.NEW:
            raise NotServed("expected SET_FEATURES before the device's start, it has not come")
        memory = self._regions.table.memory
        vrings = self.vrings.ready(memory)
        if not vrings:
            return
        await self.device.start(Start(self.features, vrings, memory))
        self._running = frozenset(vring.index for vring in vrings)
        self.state = SessionState.RUNNING
        self._config_changes.device_started()
        await self._announcement.device_started()

    async def _start_if_last(self, index: int) -> None:
        if index == self.device.last_queue(self.features) and self.vrings.is_ready(index):
            await self._start()

    async def _start_if_unannounced(self, index: int) -> None:
        says_it = self._enables_rings or ProtocolFeature.STATUS in self.protocol_features
        if self.state is SessionState.AGREED and not says_it:
            await self._start_if_last(index)

    async def _stop(self) -> None:
        if self.state is SessionState.RUNNING:
            self.state = SessionState.AGREED
            running, self._running = self._running, frozenset()
            self._config_changes.device_stopping()
            try:
                bases = await self.device.stop()
            except BasesUnknown as error:
                bases = error.known
                self.vrings.lose_bases(running - bases.keys(), str(error))
            self.vrings.set_bases(bases)

    # --- rings and memory ---

    async def set_call(self, index: int, attached: Attached) -> None:
        """SET_VRING_CALL, which comes at any time: may start the device."""
        if index in self._running:
            await self.device.set_call(index, attached.first)
        self.vrings.set_call(index, attached.take_if_any())
        await self._start_if_unannounced(index)

    def set_parts(self, index: int, descriptors: int, available: int, used: int) -> None:
        """SET_VRING_ADDR; the addresses are the front end's.

        Raises:
            NotServed: no memory is there, or a device runs with others.
        """
        parts = [*map(self._regions.table.guest_address, (descriptors, available, used))]
        if self.state is not SessionState.RUNNING:
            self.vrings.set_parts(index, *parts)
        elif not self.vrings.has_parts(index, *parts):
            raise NotServed(f"ring {index}: expected the addresses that the device runs with")

    async def add_memory(self, region: MemoryRegion, attached: Attached) -> None:
        """ADD_MEM_REG."""
        self.logging.check_covered(region.guest_address + region.size)
        await self._regions.add(region, attached)

    async def remove_memory(self, region: MemoryRegion) -> None:
        """REM_MEM_REG."""
        await self._regions.remove(region, self._in_use())

    async def replace_memory(self, regions: list[MemoryRegion], attached: Attached) -> None:
        """SET_MEM_TABLE."""
        for region in regions:
            self.logging.check_covered(region.guest_address + region.size)
        await self._regions.replace(regions, attached, self._in_use())

    def _in_use(self) -> list[Region]:
        return self.vrings.places(self._running)

    # --- what is told and announced ---

    async def set_back_channel(self, attached: Attached) -> None:
        """SET_BACKEND_REQ_FD.

        Raises:
            BadConnection: no vhost-user can be spoken over it.
        """
        reply_ack = ProtocolFeature.REPLY_ACK in self.protocol_features
        channel = BackChannel(attached.take(), self.front_end.uid, reply_ack=reply_ack)
        await self._config_changes.use(channel)

    def config_changed(self) -> None:
        """Has the front end told that the config space or NEEDS_RESET is not what it was."""
        self._config_changes.changed()

    async def announce(self, mac: bytes) -> None:
        """SEND_RARP: the address becomes known at once, or when the device starts."""
        await self._announcement.ask(mac, running=self.state is SessionState.RUNNING)
