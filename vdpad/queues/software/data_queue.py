"""One data queue of a software device, and the header before each packet in it.

A chain is *taken* from a queue with a copy of what there is to read, and is in flight until it is
returned. Both kinds of queue are served in order, so a base is the used index, and what is in
flight when a device stops is taken anew by the next one.

Source: virtio 1.4, 5.1.6 "Device Operation".
"""

import os
import struct
from collections import deque
from collections.abc import Sequence

from vdpad.queues.shadowed_device import Vring
from vdpad.queues.software.worker import Interrupt
from vdpad.virtio.chains import BadChain
from vdpad.virtio.device_ring import DeviceRing
from vdpad.virtio.device_side import Chain
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.split_ring import SplitAddresses

PER_ROUND = 32
"""Packets of one round of serving: Python's other threads wait that long."""

# virtio 1.4, 5.1.6: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers; with
# HASH_REPORT hash_value, hash_report and padding follow, all zero where no hash was calculated.
_BEFORE_NUM_BUFFERS = 10
_NUM_BUFFERS = struct.Struct("<H")
_HEADER = _BEFORE_NUM_BUFFERS + _NUM_BUFFERS.size
_HASH_REPORT = 8


class DataQueue:
    """From the setting of its ring to the device's reset."""

    def __init__(
        self, memory: GuestMemory, vring: Vring, features: FeatureSet, *, transmits: bool
    ) -> None:
        """Copies the doorbell's and the interrupt's descriptor.

        Raises:
            BadGeometry: as of DeviceRing.
        """
        self.size = vring.ring.size
        self.enabled = False
        self.doorbell: int | None = None
        """A copy, for who watches it; None: the ring is to be looked at now and then."""
        self.taken: deque[Chain] = deque()
        """In flight, in their order."""
        self._memory = memory
        self._features = features
        self._transmits = transmits
        self.ring = self._ring(vring)
        self._interrupt: Interrupt | None = None
        self._take_eventfds(vring)

    def place(self, vring: Vring) -> None:
        """Goes on with a ring that lies elsewhere, and takes anew what was in flight.

        Raises:
            BadGeometry: as of DeviceRing; then all is as before.
        """
        ring = self._ring(vring)
        self.ring.release()
        self.ring = ring
        self.taken.clear()
        if self.doorbell is not None:
            os.close(self.doorbell)
            self.doorbell = None
        self._take_eventfds(vring)

    def _ring(self, vring: Vring) -> DeviceRing:
        assert isinstance(vring.ring, SplitAddresses)  # RING_PACKED is not offered
        return DeviceRing(
            self._memory,
            vring.ring,
            next_available=vring.base,
            event_idx=Feature.RING_EVENT_IDX in self._features,
            indirect=Feature.RING_INDIRECT_DESC in self._features,
            answered=not self._transmits,
        )

    def _take_eventfds(self, vring: Vring) -> None:
        try:
            if vring.kick is not None:
                self.doorbell = os.dup(vring.kick)
            self.set_call(vring.call)
        except BaseException:
            self.close()
            raise

    def set_call(self, call: int | None) -> None:
        """Another eventfd for interrupts, which is copied, or none."""
        before, self._interrupt = self._interrupt, None if call is None else Interrupt(call)
        if before is not None:
            before.close()

    def look(self) -> bool:
        """Takes what is available; whether there is anything in flight.

        Raises:
            BadChain: the driver's ring makes no sense.
        """
        self.taken.extend(self.ring.take())
        return bool(self.taken)

    def give_back(self, returned: Sequence[tuple[int, int]]) -> None:
        """Returns chains that were read, at least one, so that the driver sees all or none.

        Each as of DeviceRing.put; with IN_ORDER the last one stands for all.
        """
        self.ring.put_all(returned, in_order=Feature.IN_ORDER in self._features)

    def notify(self) -> None:
        """Interrupts the driver, where it wants to hear of what was returned."""
        if self.ring.wants_interrupt() and self._interrupt is not None:
            self._interrupt()

    def unblock(self) -> None:
        """For other threads: ends a notification that sleeps."""
        if self._interrupt is not None:
            self._interrupt.unblock()

    def close(self) -> None:
        """Lets go of the memory and the descriptors."""
        self.ring.release()
        self.set_call(None)
        if self.doorbell is not None:
            os.close(self.doorbell)
            self.doorbell = None


class PacketHeader:
    """What stands before each packet, by what was negotiated."""

    def __init__(self, features: FeatureSet) -> None:
        self.size = _HEADER + (_HASH_REPORT if Feature.HASH_REPORT in features else 0)
        """In bytes."""

    def strip(self, chain: Chain) -> bytes:
        """The packet in a transmit queue's chain.

        Raises:
            BadChain: it has no header.
        """
        if len(chain.readable) < self.size:
            raise BadChain(
                f"chain {chain.head}: expected a header of {self.size} bytes, "
                f"got {len(chain.readable)}"
            )
        return chain.readable[self.size :]

    def before(self, packet: bytes, buffers: int) -> bytes:
        """A packet behind a header that says nothing of it but its number of buffers."""
        header = bytes(_BEFORE_NUM_BUFFERS) + _NUM_BUFFERS.pack(buffers)
        return header.ljust(self.size, b"\0") + packet
