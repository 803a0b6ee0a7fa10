"""A device on the bench: a case sends commands to it, looks at its config space, and resets it.

Commands go the way that a restore sends them (restore/replay.py), so what a case sees is what a
restore would. Chains that no restore makes are odd_chains.py's.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from vdpad.conformance.answers import Survey, acks_of
from vdpad.conformance.device_under_test import DeviceUnderTest, DeviceUp, StillInFlight
from vdpad.conformance.odd_chains import Returned, exchange
from vdpad.conformance.odd_layout import OddChain
from vdpad.errors import VdpadError
from vdpad.queues.control_queue import ControlQueue
from vdpad.restore.program import encode
from vdpad.restore.replay import Outcome, Replayed, replay
from vdpad.virtio.framing import is_legacy
from vdpad.virtio.raw_command import AnyCommand

_POLL_NS = 1_000_000


class NotApplicable(VdpadError):
    """This device cannot be asked, and why."""


class RingBroken(VdpadError):
    """The device broke the rules of the ring."""

    def __init__(self, fault: str) -> None:
        super().__init__(f"the device broke the rules of the ring: {fault}")


class Bench:
    """Made by `on_bench`. What it was `surveyed` to be is there for all cases."""

    def __init__(self, device: DeviceUnderTest, seconds: float) -> None:
        """
        Args:
            device: nobody else's.
            seconds: how long it may take for what is sent at once.
        """
        self.seconds = seconds
        self.surveyed: Survey | None = None
        self._device = device
        self._now: DeviceUp | None = None
        self._up = AsyncExitStack()

    @property
    def up(self) -> DeviceUp:
        """The device since it was last reset."""
        assert self._now is not None
        return self._now

    async def reset(self) -> None:
        """Resets the device and brings it up. On cancellation it is given back."""
        await self.release()
        self._now = await self._up.enter_async_context(self._device.up())

    async def release(self) -> None:
        """Gives it back. May be called again."""
        self._now = None
        await self._up.aclose()

    def queue(self) -> ControlQueue:
        """Its control queue, which the caller closes. Raises StillInFlight."""
        return self.up.queue()

    async def replayed(self, *commands: AnyCommand) -> Replayed:
        """Sends commands as one batch; where an earlier one never came back, none is sent."""
        try:
            queue = self.queue()
        except StillInFlight:
            unanswered = tuple(range(len(commands)))
            return Replayed(Outcome.INCOMPLETE, (), unanswered, 0, 0, None)
        legacy = is_legacy(self.up.features)
        program = encode(commands, self.up.geometry, event_idx=self.up.event_idx, legacy=legacy)
        deadline = asyncio.get_running_loop().time() + self.seconds
        try:
            return await replay(program, queue, deadline=deadline, poll_ns=_POLL_NS)
        finally:
            queue.close()

    async def acks(self, *commands: AnyCommand) -> list[int | None]:
        """Sends commands as one batch, and gives the ack of each; None where none came.

        Raises:
            RingBroken: the device did what no device may.
        """
        sent = await self.replayed(*commands)
        if sent.outcome is Outcome.BROKEN:
            raise RingBroken(sent.fault)
        return acks_of(sent, len(commands))

    async def ack(self, command: AnyCommand) -> int | None:
        """The same for one alone."""
        return (await self.acks(command))[0]

    async def exchanged(
        self, *chains: OddChain, interrupted: bool = False, seconds: float | None = None
    ) -> Returned:
        """Sends chains as they are, together, and gives what came back, whatever that is.

        Args:
            chains: the ring and its buffers must take all of them.
            interrupted: look only once the device has interrupted.
            seconds: how long to wait; None is as long as for commands.

        Raises:
            StillInFlight: earlier chains never came back.
        """
        queue = self.queue()
        try:
            return await exchange(
                queue,
                self.up.geometry,
                chains,
                seconds=self.seconds if seconds is None else seconds,
                interrupted=interrupted,
            )
        finally:
            queue.close()


@asynccontextmanager
async def on_bench(device: DeviceUnderTest, seconds: float) -> AsyncIterator[Bench]:
    """A device for the time of the context; not up until it is reset.

    Args:
        device: nobody else's.
        seconds: how long it may take for what is sent at once.
    """
    bench = Bench(device, seconds)
    try:
        yield bench
    finally:
        await bench.release()
