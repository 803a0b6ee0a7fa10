"""A device whose guest has no control queue: its VMM keeps that to itself, or the driver took none.

Then the device's CVQ is ours alone. Of what the guest sets only the queue pairs are heard, as
SET_VRING_ENABLE; so the device is told these, and its filter is opened wide: a device may pass on
more than its guest asked for, never less. Where the VMM's monitor tells the filter (following/),
the device is told the differences.

One task at a time has the device's CVQ. `stop` waits for the command that is under way, and for no
other.
"""

import asyncio
from collections.abc import Callable, Iterable, Set

from vdpad.backend.faults import NotRestored
from vdpad.backend.following.filter import WIDE, Filter, HeldFilter, NotFollowed
from vdpad.backend.forwarder import Forwards
from vdpad.errors import VdpadError
from vdpad.virtio.commands import ACK_OK, Command, MqPairsSet
from vdpad.virtio.features import FeatureSet


def opening(features: FeatureSet) -> list[Command]:
    """What opens a device wide that was reset, as far as its features permit."""
    return [each for each in HeldFilter().commands_to(WIDE) if each.lacks(features) is None]


class KeptQueue:
    """The CVQ of such a device, from its start to its stop."""

    def __init__(
        self,
        forwarder: Forwards,
        features: FeatureSet,
        paired: Callable[[int], None],
        failed: Callable[[VdpadError], None],
    ) -> None:
        """
        Args:
            forwarder: to the device, which is open wide by `opening`.
            features: those negotiated with the device.
            paired: is given how many queue pairs the guest uses.
            failed: called where the device cannot be told any more.
        """
        self.features = features
        """Those negotiated with the device."""
        self._forwarder = forwarder
        self._paired = paired
        self._failed = failed
        self._pairs = 1  # virtio 1.4, 5.1.6.5.5: so many after a reset
        self._held = HeldFilter()
        self._turn = asyncio.Lock()
        self._stopping = False
        paired(self._pairs)
        for each in self._held.commands_to(WIDE):
            self._held.took(each)

    async def open_wide(self) -> None:
        """Has the device receive everything. One that does not has failed."""
        try:
            await self._bring_to(WIDE)
        except VdpadError as error:
            self._fail(error)

    async def follow(self, wanted: Filter) -> None:
        """Has the device filter so.

        Raises:
            NotFollowed: it has refused a command, and is open wide.
        """
        try:
            await self._bring_to(wanted)
        except NotRestored as error:
            await self.open_wide()
            raise NotFollowed(str(error)) from error
        except VdpadError as error:
            self._fail(error)

    async def set_enabled(self, queues: Set[int]) -> None:
        """Has the device use the pairs whose queues are enabled.

        Args:
            queues: all that are enabled. Pairs count from the first up to one that is not.

        Raises:
            NotRestored: it does not.
        """
        pairs = max(1, sum(1 for _ in _leading_pairs(queues)))
        async with self._turn:
            if pairs == self._pairs:
                return
            await self._send(MqPairsSet(pairs))
            self._pairs = pairs
            self._paired(pairs)

    async def stop(self) -> None:
        """Sends nothing more, once the device has answered what it was sent."""
        self._stopping = True
        async with self._turn:
            pass

    def _fail(self, error: VdpadError) -> None:
        self._stopping = True
        self._failed(error)

    async def _bring_to(self, wanted: Filter) -> None:
        async with self._turn:
            for command in self._held.commands_to(wanted):
                if self._stopping:
                    return
                await self._send(command)
                self._held.took(command)
                # There may be thousands, and a device that answers at once.
                await asyncio.sleep(0)

    async def _send(self, command: Command) -> None:
        if command.lacks(self.features) is not None:
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
