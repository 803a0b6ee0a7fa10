"""The receiving half of a software device's queue pair: packets into the buffers of a driver.

How it works. A packet is *put* as a whole or not at all. With MRG_RXBUF it may take several chains,
which the driver sees together. Where the driver has made too few available, the packet waits if
more of them could do, and is dropped if not:

- without MRG_RXBUF, where the first buffer is too small;
- with it, where all there are come to too little and the ring has no descriptors left for another
  one, by the smallest that is in it.

An empty ring says nothing of what will come, so everything waits for it.

Source: virtio 1.4, 5.1.6.3 "Setting Up Receive Buffers", 5.1.6.4 "Processing of Incoming Packets".
"""

from vdpad.queues.software.data_queue import DataQueue, PacketHeader
from vdpad.virtio.device_side import Chain
from vdpad.virtio.features import Feature, FeatureSet


class Receiver:
    """One receive queue, and what became of the packets for it."""

    def __init__(self, queue: DataQueue, features: FeatureSet) -> None:
        self._queue = queue
        self._merges = Feature.MRG_RXBUF in features
        self._header = PacketHeader(features)
        self.packets = 0
        """That were received."""
        self.dropped = 0
        """That the driver's buffers could never have taken."""

    @property
    def enabled(self) -> bool:
        """Whether the queue is served."""
        return self._queue.enabled

    def put(self, packet: bytes) -> bool:
        """Receives a packet or drops it; False where it has to wait.

        Raises:
            BadChain: the driver's ring makes no sense.
        """
        size = self._header.size + len(packet)
        buffers, room = self._buffers(size)
        if room >= size:
            self._write(packet, buffers)
            self.packets += 1
            return True
        if not buffers or (self._merges and self._has_room()):
            return False
        self.dropped += 1
        return True

    def notify(self) -> None:
        """Interrupts the driver, where it wants to hear of what was received."""
        self._queue.notify()

    def wait(self) -> bool:
        """Asks for a doorbell when there are more buffers; False where there are some already."""
        return self._queue.ring.idle()

    def _buffers(self, size: int) -> tuple[list[Chain], int]:
        """The next buffers that come to a size, or fewer, and what they come to."""
        taken = self._queue.taken
        buffers: list[Chain] = []
        room = 0
        while room < size and (self._merges or not buffers):
            if len(buffers) == len(taken) and not self._more():
                break
            buffers.append(taken[len(buffers)])
            room += buffers[-1].room
        return buffers, room

    def _more(self) -> bool:
        before = len(self._queue.taken)
        self._queue.look()
        return len(self._queue.taken) > before

    def _has_room(self) -> bool:
        """Whether the ring could have one chain more beside those in flight."""
        lengths = [chain.descriptors for chain in self._queue.taken]
        return sum(lengths) + min(lengths) <= self._queue.size

    def _write(self, packet: bytes, buffers: list[Chain]) -> None:
        left = self._header.before(packet, len(buffers))
        returned = []
        for buffer in buffers:
            part, left = left[: buffer.room], left[buffer.room :]
            self._queue.ring.answer(buffer, part)
            returned.append((buffer.head, len(part)))
            self._queue.taken.popleft()
        self._queue.ring.put_together(returned)
