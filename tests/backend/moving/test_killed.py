"""Either back end is killed while a guest moves: it goes on, on one side, with all it has set.

The VMM is the tests' and stays: it sees a connection that ends, and does what QEMU does then. The
guest's memory is the same on both sides, so what the log says is looked at by itself.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import pytest

from tests.backend.process import BackEndProcess, new_guest, running
from tests.backend.vmm import BUFFER, HEADER, OK, OTHER_MAC, Vmm
from tests.support.guest import Guest
from tests.support.marks import in_bulk
from tests.support.waiting import until
from tests.vhost_user.log_file import log_file, pages_in
from vdpad.virtio.commands import MacAddrSet, MqPairsSet, RxPromisc, VlanAdd

COMMANDS = (MqPairsSet(2), RxPromisc(on=True), VlanAdd(7), VlanAdd(8), MacAddrSet(OTHER_MAC))
MOMENTS, IN_BULK = 4, 25
"""Of each back end."""
LOG_SIZE = 1 << 31 >> 15
AT_ONCE = 4


class Packets:
    """A guest's packets, which go round on its first pair; those of a killed back end may not."""

    def __init__(self, guest: Guest) -> None:
        self._receive, self._transmit = guest.queues[:2]
        self.received = 0
        self._sent = 0

    async def go(self) -> None:
        """For ever."""
        while True:
            self._turn()
            await asyncio.sleep(0.0005)

    async def more(self) -> None:
        """Returns when all that may have been lost is made up for."""
        wanted = self.received + 5 * AT_ONCE
        await until(lambda: self.received >= wanted)

    def _turn(self) -> None:
        self._transmit.collect()
        for _, length, data in self._receive.collect():
            number = int(data[len(HEADER) : length])
            assert number < self._sent
            self.received += 1
        while len(self._receive.driver.in_flight) < AT_ONCE:
            self._receive.send([], [BUFFER])
        while len(self._transmit.driver.in_flight) < AT_ONCE:
            self._transmit.send([HEADER, b"%d" % self._sent], [])
            self._sent += 1


class Move:
    """A guest on its way."""

    def __init__(self, source: Vmm, destination: Vmm, log: int) -> None:
        self.bases: list[int] | None = None
        """Once it stands still."""
        self.has_arrived = False
        self._source = source
        self._destination = destination
        self._log = log

    async def go(self) -> None:
        """All the way.

        Raises:
            ConnectionError: a back end that is needed is no more.
        """
        await self._source.log(self._log)
        await asyncio.sleep(0.01)
        self.bases = await self._source.stop()
        state = await self._source.save()
        await self._destination.agree()
        assert await self._destination.load(state) == 0
        # From here on its rings go on there, and cannot go back to these bases.
        self.has_arrived = True
        await self._destination.start(self.bases)


def stands_at(guest: Guest) -> list[int]:
    """What its used rings say, which is all that there is where a back end was killed."""
    drivers = [queue.driver for queue in guest.queues]
    return [int.from_bytes(each.memory.peek(each.used + 2, 2), "little") for each in drivers]


class Journey:
    """A guest that has set something, its two back ends, and its VMM."""

    def __init__(self, folder: Path, stack: AsyncExitStack, guest: Guest, log: int) -> None:
        self._folder = folder
        self._stack = stack
        self._guest = guest
        self._log = log
        self._ends: dict[str, tuple[BackEndProcess, Vmm]] = {}
        self._set: Any = None

    async def begin(self) -> Move:
        """The guest is at its source."""
        for name in ("source", "destination"):
            (self._folder / name).mkdir(parents=True)
            await self._come(name)
        process, source = self._ends["source"]
        await source.start()
        for command in COMMANDS:
            assert await source.command(command.encode()) == OK
        self._set = (await process.ask("capture"))["state"]
        return Move(source, self._ends["destination"][1], self._log)

    async def kill(self, name: str, after: float) -> None:
        """One of the back ends, after so many seconds."""
        await asyncio.sleep(after)
        await asyncio.to_thread(self._ends[name][0].kill)

    async def go_on(self, move: Move, killed: str) -> str:
        """The VMM does what there is to do; where the guest is then."""
        here = "destination" if move.has_arrived else "source"
        if killed == here:
            await self._come(here)
            vmm = self._ends[here][1]
            await vmm.set_up(stands_at(self._guest))
            await vmm.log(self._log)
            await vmm.enable_all()
            await until(lambda: pages_in(self._log) == self._guest.pages)
        elif not move.has_arrived:
            vmm = self._ends[here][1]
            await vmm.set_up_rings(move.bases)
            await vmm.enable_all()
            await vmm.log_no_more()
        return here

    async def check(self, here: str, killed: str) -> None:
        """Its back end has all that it has set, and the other one claims nothing."""
        process = self._ends[here][0]
        captured = await process.ask("capture")
        assert (captured["running"], captured["missing"]) == (True, [])
        assert captured["state"] == self._set
        assert (await process.ask("status"))["phase"] == "running"
        (other,) = self._ends.keys() - {here}
        if other != killed:
            assert (await self._ends[other][0].ask("capture"))["running"] is False
            # To a destination that was not reached its front end has said nothing.
            phases = ("connected", "stopped", "waiting")
            assert (await self._ends[other][0].ask("status"))["phase"] in phases

    async def _come(self, name: str) -> None:
        enter = self._stack.enter_async_context
        process = await enter(running(self._folder / name, "--stay"))
        self._ends[name] = process, await enter(process.vmm(self._guest))


@asynccontextmanager
async def begun(folder: Path) -> AsyncIterator[tuple[Journey, Move, Packets]]:
    """A guest whose packets go round, on its source."""
    guest = new_guest()
    packets = Packets(guest)
    with closing(guest), log_file(LOG_SIZE) as log:
        async with AsyncExitStack() as stack:
            journey = Journey(folder, stack, guest, log)
            move = await journey.begin()
            going = asyncio.create_task(packets.go())
            try:
                await packets.more()
                yield journey, move, packets
            finally:
                going.cancel()
                await asyncio.wait([going])


async def how_long(folder: Path) -> float:
    """Seconds that a move takes which nobody disturbs."""
    async with begun(folder) as (_, move, packets):
        before = monotonic()
        await move.go()
        took = monotonic() - before
        await packets.more()
    return took


@pytest.mark.parametrize("killed", ["source", "destination"])
@pytest.mark.parametrize("moments", [MOMENTS, *in_bulk([IN_BULK])])
async def test_a_guest_goes_on_on_one_side(tmp_path: Path, killed: str, moments: int) -> None:
    random = Random(killed)
    longest = 1.2 * await how_long(tmp_path / "undisturbed")
    arrived = 0
    for moment in range(moments):
        async with begun(tmp_path / str(moment)) as (journey, move, packets):
            killing = asyncio.create_task(journey.kill(killed, random.uniform(0, longest)))
            try:
                await move.go()
            except ConnectionError:
                assert not move.has_arrived or killed == "destination"
            await killing
            here = await journey.go_on(move, killed)
            await packets.more()
            await journey.check(here, killed)
            arrived += move.has_arrived
    print(f"{killed} killed: {arrived} of {moments} guests have arrived")
