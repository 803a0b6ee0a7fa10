"""Packets through a TAP interface: what the guest sends the host receives, and the other way round.

How it works. The interface has one queue, whatever the guest has: all of its transmit queues send
to it, and the first pair's receive queue, which every driver uses, has what comes from it.

- What is sent is returned to the driver at once. A frame that the host does not receive is dropped:
  its end is down or gone, or the frame is none.
- What comes waits in the interface while the receive queue has no room, and the kernel drops what
  is too much there, as of any interface. At most one frame is *held* here: the one for which there
  were too few buffers. Meanwhile the interface is not listened to, as it would have something to
  read all the time; the driver's doorbell goes on with it.

An interface that is removed is a link that is down. It is not listened to any more.
"""

from collections.abc import Mapping

from vdpad.queues.software.data_queue import PER_ROUND, DataQueue, PacketHeader
from vdpad.queues.software.receiver import Receiver
from vdpad.queues.software.tap import Tap
from vdpad.queues.software.worker import Worker
from vdpad.virtio.features import FeatureSet


class TapTraffic:
    """Implements Traffic. The interface stays the caller's."""

    def __init__(
        self, tap: Tap, queues: Mapping[int, DataQueue], features: FeatureSet, worker: Worker
    ) -> None:
        self._tap = tap
        self._worker = worker
        self._header = PacketHeader(features)
        self._transmits = [queues[index] for index in sorted(queues) if index % 2]
        self._receiver = Receiver(queues[0], features) if 0 in queues else None
        self._held: bytes | None = None
        self._not_sent = 0

    @property
    def packets(self) -> int:
        """How many the guest has received."""
        return 0 if self._receiver is None else self._receiver.packets

    @property
    def dropped(self) -> int:
        """How many neither side took."""
        return self._not_sent + (0 if self._receiver is None else self._receiver.dropped)

    @property
    def held(self) -> int:
        """The frame for which there were too few buffers, if there is one."""
        return int(self._held is not None)

    @property
    def link_is_up(self) -> bool:
        """Whether the interface is there."""
        return not self._tap.is_gone

    def serve(self) -> bool:
        """One round: what was sent of each queue, and then what has come."""
        more = False
        for transmit in self._transmits:
            if transmit.enabled:
                more |= self._send(transmit)
        if self._receiver is not None and self._receiver.enabled:
            more |= self._receive(self._receiver)
        return more

    def end(self) -> None:
        """Listens no more. A frame that was held is dropped."""
        self._worker.unlisten(self._tap.fd)

    def _send(self, transmit: DataQueue) -> bool:
        if not transmit.taken and not transmit.look():
            return not transmit.ring.idle()
        sent: list[tuple[int, int]] = []
        while transmit.taken and len(sent) < PER_ROUND:
            frame = self._header.strip(transmit.taken[0])
            self._not_sent += not self._tap.write(frame)
            sent.append((transmit.taken.popleft().head, 0))
        transmit.give_back(sent)
        transmit.notify()
        return True

    def _receive(self, receiver: Receiver) -> bool:
        for _ in range(PER_ROUND):
            if self._held is None:
                self._held = self._tap.read()
            if self._held is None:
                receiver.notify()
                self._listen()
                return False
            if not receiver.put(self._held):
                receiver.notify()
                self._worker.unlisten(self._tap.fd)
                return not receiver.wait()
            self._held = None
        receiver.notify()
        return True

    def _listen(self) -> None:
        if self._tap.is_gone:
            self._worker.unlisten(self._tap.fd)
        else:
            self._worker.listen(self._tap.fd)
