"""The interface of a vDPA device whose data queues are a guest's and whose CVQ is its owner's.

It stands before the kernel's node (vhost_vdpa/shadowed_node.py) and a device of our own
(software/packet_device.py). What a device is brought through, each step by a method:

    negotiate → set_vring of each data queue → start → enable of each data queue
                                                ↑ the CVQ works from here on
    suspend → base of each data queue → reset, from where it may be negotiated anew
            ↘ move_vring of some → resume, where it can

- Memory is mapped and unmapped at any time, and stays mapped through a reset. `reset` may come at
  any time, and undoes all else.
- The CVQ's ring is the device's own to place, in memory that no guest's descriptor should name. It
  is empty and begins at 0 at each start.
- A data queue that is enabled need not look at what was made available before: its owner kicks it
  once.

Whoever has the device calls one method at a time, each on a thread: it may sleep for as long as a
driver does. The control queue alone is the event loop's.
"""

from dataclasses import dataclass
from typing import Protocol

from vdpad.queues.control_queue import ControlQueue
from vdpad.virtio.device_status import DeviceStatus
from vdpad.virtio.features import FeatureSet
from vdpad.virtio.rings import Region, RingAddresses, RingGeometry


@dataclass(frozen=True, slots=True)
class Vring:
    """Where a queue's ring lies and begins, and how it notifies."""

    ring: RingAddresses
    base: int = 0
    """Where the device begins: of a split ring the available index that it takes first, of a
    packed one as PackedAddresses has it."""
    kick: int | None = None
    """The eventfd by which the device hears of available chains; its owner's, as `call`. The device
    keeps what it needs of both, so that either may be closed."""
    call: int | None = None
    """The eventfd by which the device interrupts."""


class ShadowedDevice(Protocol):
    """A device that is open. Every method raises a VdpadError where the device refuses it."""

    @property
    def name(self) -> str:
        """What people call it: its node, or what kind of software device it is."""

    @property
    def offered(self) -> FeatureSet:
        """Features that it offers; CTRL_VQ and ACCESS_PLATFORM among them."""

    @property
    def dropped(self) -> int | None:
        """How many packets it has dropped since it was opened; None where it does not tell."""

    # --- at any time ---

    def config(self) -> bytes:
        """The whole config space; to be relied on once it was negotiated."""

    def set_config_call(self, eventfd: int | None) -> None:
        """The eventfd that tells of changes of the config space and of NEEDS_RESET, or none.

        It may be forgotten at a reset.
        """

    def status(self) -> DeviceStatus:
        """What the device says of itself; NEEDS_RESET may come at any time."""

    def map(self, region: Region, view: memoryview) -> None:
        """Lets the device read and write memory of this process.

        Args:
            region: where the data queues see it; whole pages.
            view: its bytes, which stay until `unmap`; on a page, and of a mapping that is shared.
        """

    def unmap(self, region: Region) -> None:
        """Takes a region from the device, as it was mapped. No ring that is enabled uses it."""

    # --- bring-up ---

    def negotiate(self, features: FeatureSet) -> None:
        """From a reset to FEATURES_OK; gives the CVQ an address space of its own, where it can.

        Args:
            features: of those offered; VERSION_1, ACCESS_PLATFORM and CTRL_VQ among them.
        """

    @property
    def control_queue_index(self) -> int:
        """Which queue is the CVQ, by the features negotiated; the data queues are all before it."""

    @property
    def shares_address_space(self) -> bool:
        """Whether the CVQ's ring stands where a guest's descriptors could name it."""

    def largest_ring(self, queue: int) -> int:
        """How many entries the queue's ring may have, by what was negotiated."""

    def set_vring(self, queue: int, vring: Vring) -> None:
        """Tells the device of a data queue's ring; before `start`.

        Raises:
            Unsupported: its driver begins a ring nowhere but at 0.
        """

    def start(self) -> None:
        """To DRIVER_OK, with the CVQ enabled and no data queue."""

    # --- while it runs ---

    def control_queue(self) -> ControlQueue:
        """The CVQ, idle, for one user at a time. It is good until the next reset."""

    @property
    def control_geometry(self) -> RingGeometry:
        """Where the CVQ's ring and the room for its buffers lie."""

    def enable(self, queue: int) -> None:
        """Lets the device work on a data queue from now on."""

    def set_call(self, queue: int, eventfd: int | None) -> None:
        """Another eventfd for a data queue's interrupts, or none for the time being."""

    @property
    def can_announce(self) -> bool:
        """Whether it can send a frame of its own into the guest's network."""

    def announce(self, mac: bytes) -> None:
        """Sends what makes an address known there (a request of RARP), once.

        Args:
            mac: of 6 bytes.

        Raises:
            VdpadError: it cannot, or the frame did not go.
        """

    # --- suspended ---

    @property
    def can_suspend(self) -> bool:
        """Whether it can be suspended."""

    @property
    def can_resume(self) -> bool:
        """Whether it can be suspended and go on, with other rings and its CVQ as it was."""

    def spare_addresses(self, size: int) -> Region:
        """Where memory of ours may be mapped for the data queues, far from any guest's memory.

        Args:
            size: in bytes; whole pages.
        """

    def suspend(self) -> None:
        """Has the device leave all rings as they are; it forgets nothing.

        Raises:
            Unsupported: it cannot; the device runs on.
        """

    def base(self, queue: int) -> int:
        """The available index that the device takes next; asked while it is suspended.

        Raises:
            Unsupported: it does not tell.
        """

    def move_vring(self, queue: int, vring: Vring, *, enabled: bool) -> None:
        """Has a data queue go on with a ring that lies elsewhere, once it is resumed.

        Args:
            queue: whose ring was set.
            vring: of as many entries; its base is where the queue stands.
            enabled: the queue is.
        """

    def resume(self) -> None:
        """Lets it go on. A queue need not look at what was made available meanwhile: kick it."""

    # --- the end ---

    def reset(self) -> None:
        """Back to the beginning, from wherever it is. What was mapped stays mapped."""

    def close(self) -> None:
        """Gives the device back, which resets it. Nothing may follow."""
