"""Packets that go round: what comes by a transmit queue goes back by the receive queue of its pair.

How it works. A packet stays in flight in the transmit queue until the receive queue has taken it:
where the driver offers no buffers its sending stands still, and nothing is lost but a packet that
no buffers could take (receiver.py).

A doorbell is asked for where something is waited for: of the transmit queue when it is empty, of
the receive queue when it is and a packet waits.
"""

from collections.abc import Mapping

from vdpad.queues.software.data_queue import PER_ROUND, DataQueue, PacketHeader
from vdpad.queues.software.receiver import Receiver
from vdpad.queues.software.worker import Worker
from vdpad.virtio.features import FeatureSet


class LoopedPair:
    """A receive and a transmit queue; packets go round between them."""

    def __init__(self, receive: DataQueue, transmit: DataQueue, features: FeatureSet) -> None:
        self.receiver = Receiver(receive, features)
        self._transmit = transmit
        self._header = PacketHeader(features)

    def serve(self) -> bool:
        """One round; whether there is more to do at once.

        Raises:
            BadChain: the driver's rings make no sense.
        """
        transmit, receiver = self._transmit, self.receiver
        if not (transmit.enabled and receiver.enabled):
            return False
        if not transmit.taken and not transmit.look():
            return not transmit.ring.idle()
        sent: list[tuple[int, int]] = []
        while transmit.taken and len(sent) < PER_ROUND:
            if not receiver.put(self._header.strip(transmit.taken[0])):
                break
            sent.append((transmit.taken.popleft().head, 0))
        if not sent:
            return not receiver.wait()
        transmit.give_back(sent)
        transmit.notify()
        receiver.notify()
        return True


class LoopTraffic:
    """Implements Traffic: each pair for itself."""

    link_is_up = True
    held = 0

    def __init__(
        self, queues: Mapping[int, DataQueue], features: FeatureSet, worker: Worker
    ) -> None:
        self._pairs = [
            LoopedPair(queues[index], queues[index + 1], features)
            for index in sorted(queues)
            if index % 2 == 0 and index + 1 in queues
        ]

    @property
    def packets(self) -> int:
        """How many went round."""
        return sum(pair.receiver.packets for pair in self._pairs)

    @property
    def dropped(self) -> int:
        """How many no receive buffers could take."""
        return sum(pair.receiver.dropped for pair in self._pairs)

    def serve(self) -> bool:
        """One round of each pair."""
        more = False
        for pair in self._pairs:
            more |= pair.serve()
        return more

    def end(self) -> None:
        """There is nothing that it watches."""
