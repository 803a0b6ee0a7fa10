"""A device whose guest has no control queue: its VMM keeps that to itself, or the driver took none.

Then the device's CVQ is ours alone. Of what the guest sets only the queue pairs are heard, as
SET_VRING_ENABLE; so the device is told these, and its filter is opened wide: a device may pass on
more than its guest asked for, never less.
"""

from collections.abc import Iterable, Set

from vdpad.backend.faults import NotRestored
from vdpad.backend.forwarder import Forwarder
from vdpad.virtio.commands import ACK_OK, Command, MqPairsSet, RxPromisc
from vdpad.virtio.features import FeatureSet


class KeptQueue:
    """The CVQ of such a device, from its start to its stop."""

    def __init__(self, forwarder: Forwarder, features: FeatureSet) -> None:
        """
        Args:
            forwarder: to the device.
            features: those negotiated with the device.
        """
        self._forwarder = forwarder
        self._features = features
        self._pairs = 1  # virtio 1.4, 5.1.6.5.5: so many after a reset

    async def open_wide(self) -> None:
        """Has the device receive everything.

        Raises:
            NotRestored: it does not.
        """
        await self._send(RxPromisc(on=True))

    async def set_enabled(self, queues: Set[int]) -> None:
        """Has the device use the pairs whose queues are enabled.

        Args:
            queues: all that are enabled. Pairs count from the first up to one that is not.

        Raises:
            NotRestored: it does not.
        """
        pairs = max(1, sum(1 for _ in _leading_pairs(queues)))
        if pairs != self._pairs:
            await self._send(MqPairsSet(pairs))
            self._pairs = pairs

    async def _send(self, command: Command) -> None:
        if command.lacks(self._features) is not None:
            return
        answer = await self._forwarder.forward(command.encode(), 1)
        if answer[0] != ACK_OK:
            raise NotRestored(
                f"expected the device to take {command.NAME} {command.arguments()}, it was acked "
                f"{answer[0]}"
            )


def _leading_pairs(queues: Set[int]) -> Iterable[int]:
    receive = 0
    while {receive, receive + 1} <= queues:
        yield receive
        receive += 2
