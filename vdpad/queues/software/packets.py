"""A queue pair of a software device: what comes by its transmit queue goes back by its receive one.

How it works. A packet is *taken* from the transmit queue with a copy of its bytes, and stays there
in flight until the receive queue has room for it: where the driver offers no buffers its sending
stands still, and nothing is lost. Only a packet that the receive queue can never take is dropped:
one larger than a buffer without MRG_RXBUF, or than all buffers of the ring with it.

A doorbell is asked for where something is waited for: of the transmit queue when it is empty, of
the receive queue when it is and a packet waits.

Both queues are served in order, so a base is the used index, and what is in flight when a device
stops is taken anew by the next one.

Source: virtio 1.4, 5.1.6.1 "Packet Transmission" to 5.1.6.4 "Processing of Incoming Packets".
"""

import os
import struct
from collections import deque

from vdpad.queues.shadowed_device import Vring
from vdpad.queues.software.worker import Interrupt
from vdpad.virtio.device_ring import BadChain, Chain, DeviceRing
from vdpad.virtio.features import Feature, FeatureSet
from vdpad.virtio.guest_memory import GuestMemory

# virtio 1.4, 5.1.6: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers; with
# HASH_REPORT hash_value, hash_report and padding follow, all zero where no hash was calculated.
_BEFORE_NUM_BUFFERS = 10
_NUM_BUFFERS = struct.Struct("<H")
_HEADER = _BEFORE_NUM_BUFFERS + _NUM_BUFFERS.size
_HASH_REPORT = 8

# Packets of one round: Python's other threads wait that long.
_A_ROUND = 32


class DataQueue:
    """One data queue, from the setting of its ring to the device's reset."""

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
        self.ring = DeviceRing(
            memory,
            vring.ring,
            next_available=vring.base,
            event_idx=Feature.RING_EVENT_IDX in features,
            indirect=Feature.RING_INDIRECT_DESC in features,
            answered=not transmits,
        )
        self._interrupt: Interrupt | None = None
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


class LoopedPair:
    """A receive and a transmit queue; packets go round between them."""

    def __init__(self, receive: DataQueue, transmit: DataQueue, features: FeatureSet) -> None:
        self._receive = receive
        self._transmit = transmit
        self._merges = Feature.MRG_RXBUF in features
        self._header = _HEADER + (_HASH_REPORT if Feature.HASH_REPORT in features else 0)
        self.packets = 0
        """That went round."""
        self.dropped = 0
        """That no receive buffer could take."""

    def serve(self) -> bool:
        """One round; whether there is more to do at once.

        Raises:
            BadChain: the driver's rings make no sense.
        """
        transmit, receive = self._transmit, self._receive
        if not (transmit.enabled and receive.enabled):
            return False
        if not transmit.taken and not transmit.look():
            return not transmit.ring.idle()
        sent: list[tuple[int, int]] = []
        while transmit.taken and len(sent) < _A_ROUND and self._deliver(transmit.taken[0]):
            sent.append((transmit.taken.popleft().head, 0))
        if not sent:
            return not receive.ring.idle()
        transmit.ring.put_together(sent)
        transmit.notify()
        receive.notify()
        return True

    def _deliver(self, chain: Chain) -> bool:
        """Receives a packet or drops it; False where it has to wait."""
        packet = chain.readable
        if len(packet) < self._header:
            raise BadChain(
                f"chain {chain.head}: expected a header of {self._header} bytes, got {len(packet)}"
            )
        buffers, room = self._buffers(len(packet))
        if room < len(packet):
            waits = (self._merges and len(buffers) < self._receive.size) or not buffers
            self.dropped += not waits
            return not waits
        self._write(packet, buffers)
        self.packets += 1
        return True

    def _buffers(self, size: int) -> tuple[list[Chain], int]:
        """The next receive buffers that come to a size, or fewer, and what they come to."""
        receive = self._receive
        buffers: list[Chain] = []
        room = 0
        while room < size and (self._merges or not buffers):
            if len(buffers) == len(receive.taken) and not self._more():
                break
            buffers.append(receive.taken[len(buffers)])
            room += buffers[-1].room
        return buffers, room

    def _more(self) -> bool:
        before = len(self._receive.taken)
        self._receive.look()
        return len(self._receive.taken) > before

    def _write(self, packet: bytes, buffers: list[Chain]) -> None:
        """Writes a packet behind a header that says nothing of it but its number of buffers."""
        header = bytes(_BEFORE_NUM_BUFFERS) + _NUM_BUFFERS.pack(len(buffers))
        left = header.ljust(self._header, b"\0") + packet[self._header :]
        returned = []
        for buffer in buffers:
            part, left = left[: buffer.room], left[buffer.room :]
            self._receive.ring.answer(buffer, part)
            returned.append((buffer.head, len(part)))
            self._receive.taken.popleft()
        self._receive.ring.put_together(returned)
