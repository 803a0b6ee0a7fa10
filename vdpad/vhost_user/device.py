"""What a session serves: a device, behind an interface that knows nothing of vhost-user's bytes.

A session calls one method at a time and waits for its end, but for `save` and `load`, which go on
beside others. Coroutines may sleep for as long as the device does; the front end waits meanwhile.
Any may raise a VdpadError of its own: then nothing has happened, and the front end is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from vdpad.vhost_user.dirty_log import DirtyLog
from vdpad.vhost_user.memory_table import MappedRegion
from vdpad.virtio.features import FeatureSet
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.split_ring import SplitAddresses


@dataclass(frozen=True, slots=True)
class GuestVring:
    """A ring as the front end has set it up. The descriptors stay the session's.

    They are as the front end sent them: whether they are eventfds is the device's to check.
    """

    index: int
    addresses: SplitAddresses
    """By guest addresses; within the memory, and not checked otherwise."""
    base: int
    """The available index to go on from: 0 … 65535."""
    is_enabled: bool
    kick: int | None
    """None: the ring is to be polled."""
    call: int | None
    """None: the guest polls."""
    error: int | None


@dataclass(frozen=True, slots=True)
class Start:
    """What a device starts with."""

    features: FeatureSet
    """What the driver took."""
    vrings: tuple[GuestVring, ...]
    """Those that are set up, in the order of their indices; at least one."""
    memory: GuestMemory
    """The guest's memory; what the device takes of it as a stretch it releases when it stops."""

    @property
    def is_fresh(self) -> bool:
        """Whether the driver starts anew: no ring has been used. Else it goes on after a pause."""
        return not any(vring.base for vring in self.vrings)


class VhostUserDevice(Protocol):
    """A device that a front end can be given."""

    @property
    def features(self) -> FeatureSet:
        """What a driver may be offered. What no session can serve is left out by the session."""

    @property
    def queues(self) -> int:
        """How many rings a front end may set up, the control queue's among them: 1 … 256."""

    @property
    def can_move(self) -> bool:
        """Whether its state can be saved and loaded."""

    @property
    def can_announce(self) -> bool:
        """Whether it can tell the network where the guest is, for one that does not do so."""

    @property
    def needs_reset(self) -> bool:
        """Whether DEVICE_NEEDS_RESET stands in its status. Who sets it says `config_changed`."""

    def last_queue(self, features: FeatureSet) -> int:
        """The highest queue that a driver of these features has, where it has them all."""

    async def config(self) -> bytes:
        """The device's config space as the guest sees it, all of it."""

    async def set_config(self, offset: int, data: bytes, *, moving: bool) -> None:
        """Writes to the config space.

        Args:
            offset: of the first byte; what lies behind the config space is for it to refuse.
            data: to be written there.
            moving: a migration sets it, and not the guest; then it may be a read-only field.
        """

    async def add_memory(self, mapped: MappedRegion) -> None:
        """Lets the device reach a region, running or not. It is in `Start.memory` afterwards."""

    async def remove_memory(self, mapped: MappedRegion) -> None:
        """Takes a region from the device; afterwards nothing of it may be in use."""

    async def start(self, start: Start) -> None:
        """Begins to serve the rings. Where it raises or is cancelled, the device is stopped."""

    async def enable(self, index: int, enabled: bool) -> None:
        """Enables or disables a ring of a device that runs."""

    async def set_call(self, index: int, call: int | None) -> None:
        """Calls by another descriptor from now on; the one before is closed afterwards."""

    async def announce(self, mac: bytes) -> None:
        """Sends a frame into the guest's network, while it runs, by which an address is known.

        Args:
            mac: the guest's, of 6 bytes.
        """

    async def log(self, log: DirtyLog | None) -> None:
        """Marks all that is written to the guest's memory in this log from now on, or no more.

        It may come while the device runs and while it is stopped, and holds over stops and starts.
        What was written before a stop is marked when `stop` returns or raises.

        Args:
            log: the session's, until another takes its place or none does; what was handed over to
                the one before is marked there when this returns. Its bits cover all memory.
        """

    async def stop(self) -> Mapping[int, int]:
        """Stops a device that runs, and lets go of memory's stretches and of all descriptors.

        The state that the guest has set stays. Also where it raises, the device is stopped.

        Returns:
            the base of each ring, by index: 0 … 65535.

        Raises:
            BasesUnknown: it has stopped as it should, and does not tell all of them.
        """

    async def reset(self) -> None:
        """Forgets all that a guest has set. The device is stopped."""

    async def save(self, fd: int) -> None:
        """Writes the device's state.

        Args:
            fd: of a pipe, or of anything; the session's, which closes it when this has ended: that
                is the end for its reader. On cancellation nothing may use it afterwards.
        """

    async def load(self, fd: int) -> None:
        """Reads a state up to its end, and takes it for the next start.

        Args:
            fd: as of `save`.
        """
