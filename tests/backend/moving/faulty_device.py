"""A software device whose n-th step fails, or waits; and packets that go all the time."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.backend.vmm import BUFFER, HEADER, Vmm
from tests.support.waiting import GUARD, until
from vdpad.errors import VdpadError
from vdpad.queues.software.loop_device import LoopDevice

_STEPS = (
    "config",
    "set_config_call",
    "map",
    "negotiate",
    "largest_ring",
    "set_vring",
    "start",
    "control_queue",
    "enable",
    "suspend",
    "base",
)


class Broke(VdpadError):
    """As a driver refuses a step."""


class FaultyDevice(LoopDevice):
    """Does all its steps, but for what `before` makes of one."""

    def __init__(self, **more: Any) -> None:
        self.steps: list[str] = []
        """Those that were taken since this was last emptied."""
        self.before: Callable[[str], None] = lambda step: None
        super().__init__(**more)

    def fail_at(self, number: int) -> None:
        """From now on the n-th step fails, and no other."""
        self.steps.clear()

        def before(step: str) -> None:
            if len(self.steps) == number:
                raise Broke(f"{step} was refused")

        self.before = before

    def wait_at(self, step: str, nth: int = 1) -> "Gate":
        """From now on the device waits in this step."""
        gate = Gate(self.steps.count(step) + nth)

        def before(taken: str) -> None:
            if taken == step and self.steps.count(step) == gate.nth:
                gate.pass_through()

        self.before = before
        return gate


class Gate:
    """Where a step waits, until it is opened."""

    def __init__(self, nth: int) -> None:
        self.nth = nth
        self.reached = threading.Event()
        self._opened = threading.Event()

    def pass_through(self) -> None:
        self.reached.set()
        self._opened.wait(GUARD)

    def open(self) -> None:
        """Lets the step go on."""
        self._opened.set()


def _counted(name: str) -> Callable[..., Any]:
    step = getattr(LoopDevice, name)

    def take(self: FaultyDevice, *given: Any) -> Any:
        self.steps.append(name)
        self.before(name)
        return step(self, *given)

    return take


for _name in _STEPS:
    setattr(FaultyDevice, _name, _counted(_name))


class Traffic:
    """Numbered packets that a guest sends on one queue pair, some at a time, and has back."""

    def __init__(self, machine: Vmm, pair: int, at_once: int = 3) -> None:
        self._receive, self._transmit = machine.guest.queues[2 * pair : 2 * pair + 2]
        self._at_once = at_once
        self.sent: list[bytes] = []
        self.received: list[bytes] = []

    def turn(self) -> None:
        """Takes what has come, and sends as much again."""
        self._transmit.collect()
        self.received += [data[len(HEADER) : length] for _, length, data in self._receive.collect()]
        # A packet may have come back before what it was sent by is returned.
        while (
            len(self.sent) - len(self.received) < self._at_once and self._transmit.driver.free > 1
        ):
            packet = b"%d" % len(self.sent)
            self.sent.append(packet)
            self._receive.send([], [BUFFER])
            self._transmit.send([HEADER, packet], [])

    async def go(self) -> None:
        """For ever."""
        while True:
            self.turn()
            await asyncio.sleep(0.005)

    async def gone_on(self) -> None:
        """Returns once packets have gone that were not on their way."""
        then = len(self.sent) + 1
        await until(lambda: len(self.received) >= then, every=0.001)


@asynccontextmanager
async def traffic(machine: Vmm, pairs: int = 2) -> AsyncIterator[list[Traffic]]:
    """Packets on some pairs, for the time of the context; none is lost or comes twice."""
    flows = [Traffic(machine, pair) for pair in range(pairs)]
    tasks = [asyncio.create_task(flow.go()) for flow in flows]
    try:
        yield flows
        for flow in flows:
            await flow.gone_on()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for flow in flows:
        assert flow.received == flow.sent[: len(flow.received)]
