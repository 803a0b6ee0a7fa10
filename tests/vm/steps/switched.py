"""Stories of a back end under whose guest another device of the kernel's takes over, and back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.backend.vmm import OTHER_MAC, BackEnd, Heard, Vmm, settings
from tests.backend.written import changed, contents, driven
from tests.support.waiting import until
from tests.vhost_user import front_end as protocol
from tests.vhost_user.front_end import state
from tests.vhost_user.log_file import log_file, pages_in
from vdpad.backend.opening import node_of, open_vhost_vdpa
from vdpad.errors import VdpadError
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.queues.vhost_vdpa.errors import VhostVdpaError
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.queues.vhost_vdpa.shadowed_node import ShadowedNode
from vdpad.virtio.commands import MacAddrSet

from .back_end import CONTROL, acks, machine_on, packet, pause_story, transmit
from .logged import LOG_SIZE
from .telling import Json

FIRST, OTHER, ANOTHER_DRIVER_S = "sim0", "sim1", "vp0"
TURNS = 2
"""There and back."""
REFUSED = (
    *(("negotiate", 1), ("map", 1), ("start", 1)),
    *(("negotiate", 3), ("set_vring", 4), ("start", 2), ("control_queue", 2)),
    *(("enable", 1), ("enable", 2)),
)
"""Steps of a device that is to take over, and which of its kind: until it was rehearsed, and when
the first has left."""


class Failing(ShadowedNode):
    """Refuses a step, and no other."""

    def __init__(self, node: Node, refuses: tuple[str, int]) -> None:
        """Refuses the n-th of a kind."""
        self._refuses = refuses
        self._taken: Counter[str] = Counter()
        super().__init__(node)

    def takes(self, step: str) -> None:
        """Counts it."""
        self._taken[step] += 1
        if (step, self._taken[step]) == self._refuses:
            raise VhostVdpaError(f"{step} was refused")


def _counted(name: str) -> Callable[..., Any]:
    step = getattr(ShadowedNode, name)

    def take(self: Failing, *given: Any) -> Any:
        self.takes(name)
        return step(self, *given)

    return take


for _name in {name for name, _ in REFUSED}:
    setattr(Failing, _name, _counted(_name))


class Packets:
    """One after the other, each of which the simulator gives back."""

    def __init__(self, machine: Vmm) -> None:
        self._machine = machine
        self.number = 0
        self.ended = False

    async def go(self) -> None:
        """Until it is ended."""
        while not self.ended:
            sent = packet(f"number {self.number}")
            assert await self._machine.loop(sent) == sent
            self.number += 1

    async def gone_on(self) -> None:
        """Returns once some have gone that were not on their way."""
        then = self.number + 2
        await until(lambda: self.number >= then)


@asynccontextmanager
async def packets(machine: Vmm) -> AsyncIterator[Packets]:
    """They go for the time of the context, and none is lost."""
    going = Packets(machine)
    task = asyncio.create_task(going.go())
    try:
        yield going
    finally:
        going.ended = True
        await task


async def _told(on: BackEnd, opener: Callable[[], ShadowedDevice]) -> str:
    """Why no other device takes over; "" where one does."""
    try:
        await on.device.switching.switch(opener)
    except VdpadError as error:
        return f"{type(error).__name__}: {error}"
    return ""


async def _refused(on: BackEnd, going: Packets) -> Json:
    """Switches that fail, after each of which packets go on by the first."""
    seen: Json = {}
    before = on.device.device_name
    holder = await asyncio.to_thread(lambda: Node(node_of(OTHER)))
    seen["busy"] = await _told(on, lambda: open_vhost_vdpa(OTHER))
    holder.close()
    await going.gone_on()
    seen["lacking"] = await _told(on, lambda: open_vhost_vdpa(ANOTHER_DRIVER_S))
    await going.gone_on()
    seen["gone"] = await _told(on, lambda: open_vhost_vdpa("no-such-device"))
    await going.gone_on()
    for refuses in REFUSED:
        told = await _told(on, lambda: Failing(Node(node_of(OTHER)), refuses))  # noqa: B023
        assert f"{refuses[0]} was refused" in told
        assert (on.device.failure, on.device.device_name) == ("", before)
        await going.gone_on()
    return seen


async def _there_and_back(on: BackEnd, going: Packets) -> Json:
    outcomes, paused = set(), []
    for turn in range(2 * TURNS):
        name = OTHER if turn % 2 else FIRST
        report = await on.device.switching.switch(lambda: open_vhost_vdpa(name))  # noqa: B023
        outcomes.add((report.outcome.value, report.commands))
        paused.append(report.paused_us)
        await going.gone_on()
    return {"outcomes": sorted(outcomes), "stood still": min(paused) > 0}


async def _while_logged(on: BackEnd, machine: Vmm) -> Json:
    """From the one to the other while receive queues are relayed."""
    ways = []
    with log_file(LOG_SIZE) as log:
        before = contents(machine.guest)
        await machine.log(log)
        for name in (FIRST, OTHER):
            async with packets(machine) as going:
                await going.gone_on()
                await on.device.switching.switch(lambda: open_vhost_vdpa(name))  # noqa: B023
                await going.gone_on()
            assert on.device.logged is not None
            ways.append(on.device.logged.way)
        await machine.log_no_more()
        missed = changed(before, machine.guest) - driven(machine.guest) - pages_in(log)
    return {"ways": ways, "missed": sorted(missed)}


async def _switched(path: Path, folder: Path) -> Json:
    heard = Heard()
    async with machine_on(path, heard) as (on, machine):
        await machine.start()
        seen: Json = {"acks": await acks(machine, [MacAddrSet(OTHER_MAC)])}
        before = settings(on)
        async with packets(machine) as going:
            seen |= await _refused(on, going)
            await on.device.switching.switch(lambda: open_vhost_vdpa(OTHER))
            await pause_story(folder, "other", captured=settings(on))
            seen |= await _there_and_back(on, going)
        seen |= await _while_logged(on, machine)
        async with packets(machine) as going:
            await going.gone_on()
        seen["acks again"] = await acks(machine, [MacAddrSet(OTHER_MAC)])
        seen["as before"] = settings(on) == before
        seen["refusals"] = on.refusals
        seen["bases"] = len(set(await machine.stop()))
    return seen


def switched(path: Path, folder: Path) -> Json:
    """Switches that fail, that do not, and amid a migration, while packets go round."""
    return asyncio.run(_switched(path, folder))


# --- vp_vdpa, of which nobody says that it works in order ---


async def _unplaced(path: Path) -> Json:
    async with machine_on(path, Heard(), in_order=False) as (on, machine):
        await machine.start()
        await transmit(machine)
        asked = state(CONTROL - 1, 0)
        reply = await machine.front_end.ask(protocol.GET_VRING_BASE, asked)
        return {"reply": reply.hex(), "refusals": on.refusals, "status": on.device.status.value}


def unplaced(path: Path, folder: Path) -> Json:
    """A stop after which nobody knows where the queues stand."""
    return asyncio.run(_unplaced(path))
