"""Live migrations of QEMU with -netdev vhost-user, whose guest's driver is the test.

The driver writes to the machine's memory behind QEMU's back, where a guest's processor has KVM tell
it. So QEMU is told of the driver's pages before it sends the rest; of those that the device alone
has written it knows by the back end's marks, or does not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import vdpad
from tests.availability import skip_or_fail
from tests.backend.devices import NeverResumed, NeverSuspended
from tests.backend.vmm import BUFFER, HEADER, BackEnd, Heard
from tests.backend.vmm import back_end as backed
from tests.support.split_driver import Memory, Way
from tests.support.waiting import GUARD, until
from tests.vhost_user.forgetful_log import FORGOTTEN, forgetful_logs
from vdpad.backend.device_lifecycle import Status
from vdpad.backend.events import LoggingBegan, LoggingEnded, StateLoaded, StateSaved
from vdpad.backend.faults import BackEndError
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.state.formats.recognise import read
from vdpad.virtio.features import Feature

from .comparison import PAGE, different_pages
from .device import sensible
from .guest_driver import GuestDriver, guest_memory, serving
from .layout import BUFFERS, DATA_RINGS, MEMORY_SIZE, MIB, place_ring
from .process import open_guest_memory
from .versions import TRIXIE, TRIXIE_BACKPORTS, Version, why_unavailable
from .vhost_user import NETDEV, Machine, machine

OLDEST_KIND = "pc-i440fx-10.0"
"""A machine that both QEMUs have."""
SLOW = 100_000
"""Bytes a second: so slow that packets go round for as long as a test likes."""
SOON = 4_000_000
FAST = 1 << 30
"""So fast that it comes to an end, however fast packets are received."""
RECEIVE, TRANSMIT = BUFFERS, BUFFERS + MIB
BALLAST, BALLAST_SIZE = 40 * MIB, 16 * MIB
"""Sent behind all that is used, and so much that a slow migration comes to no end by itself."""
BELOW_BALLAST = 1024
"""Pages: fewer of those below it are not of zeros, so where as many were sent all of them were."""
OTHERS = DATA_RINGS
OTHER_QUEUES = (2, 3, 4)
"""Another pair and the control queue. QEMU 10.0 has rings of 1024 that nobody has set up, and 11.1
takes no such stream ("vring.num 1024 exceeds allocated max")."""
INCOMING = ("-incoming", "defer", "-S")
"""It does not go on by itself: what was sent and not received yet would come round there, and its
memory be another than the one that was moved."""


@dataclass(frozen=True)
class Side:
    """A machine and its back end."""

    on: BackEnd
    heard: Heard
    qemu: Machine
    memory: tuple[Memory, Memory]
    """Of the receive and the transmit queue."""
    address: Path
    """Where a machine would come from."""

    def take_ballast(self) -> None:
        """Memory that nobody uses is none of zeros any more."""
        fd = open_guest_memory(self.qemu.process.pid)
        try:
            os.pwrite(fd, b"\x5a" * BALLAST_SIZE, BALLAST)
        finally:
            os.close(fd)

    async def bound(self, bytes_a_second: int) -> None:
        """Has the migration go so fast at most."""
        await self.qemu.qmp.execute("migrate-set-parameters", max_bandwidth=bytes_a_second)

    async def status(self) -> dict[str, Any]:
        """How far the migration is."""
        found: dict[str, Any] = await self.qemu.qmp.execute("query-migrate")
        return found

    async def until_migration_is(self, status: str) -> dict[str, Any]:
        """Returns what there is to tell of it then."""
        async with asyncio.timeout(GUARD):
            while (found := await self.status()).get("status") != status:
                assert found.get("status") not in ("failed", "cancelled"), found
                await asyncio.sleep(0.005)
        return found


@asynccontextmanager
async def side(
    version: Version, path: Path, *more: str, device: ShadowedDevice | None = None
) -> AsyncIterator[Side]:
    """One that stands ready."""
    heard = Heard()
    async with AsyncExitStack() as stack:
        device = device or LoopDevice()
        in_order = not device.can_suspend
        on = await stack.enter_async_context(backed(device, heard, in_order=in_order))
        await stack.enter_async_context(serving(on, path))
        qemu = await stack.enter_async_context(
            machine(version.program, NETDEV, path, kind=OLDEST_KIND, more=more)
        )
        receive = await stack.enter_async_context(guest_memory(qemu, RECEIVE))
        transmit = await stack.enter_async_context(guest_memory(qemu, TRANSMIT))
        yield Side(on, heard, qemu, (receive, transmit), path.with_suffix(".stream"))
        with suppress(ConnectionError):  # where it has ended, as nobody came
            await qemu.qmp.execute("quit")


class DriverMemory(Memory):
    """Which knows what the driver has written."""

    def __init__(self) -> None:
        """None yet; regions are for others to give it."""
        super().__init__((), ())
        self.written: set[int] = set()
        """Pages by their numbers."""

    def poke(self, address: int, data: bytes) -> None:
        """As of Memory."""
        super().poke(address, data)
        self.written |= set(range(address // PAGE, -(-(address + len(data)) // PAGE)))


class Traffic:
    """The guest: packets that go round, one after the other, each with a number."""

    def __init__(self, on: Side, *, event_idx: bool) -> None:
        """Stopped; so it is while its rings are set up, and while its machine moves."""
        self.number = 0
        receive, transmit = self._memory = DriverMemory(), DriverMemory()
        self._stand_on(on)
        self.receive = GuestDriver(on.qemu, receive, 0, event_idx=event_idx)
        self.transmit = GuestDriver(on.qemu, transmit, 1, event_idx=event_idx)
        self._task: asyncio.Task[None] | None = None

    def _stand_on(self, on: Side) -> None:
        for own, theirs in zip(self._memory, on.memory, strict=True):
            own.regions = dict(theirs.regions)

    def go_on(self, on: Side) -> None:
        """On a machine, where it stood on the one before."""
        self._stand_on(on)
        self.receive.qemu = self.transmit.qemu = on.qemu
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Once it returns nothing of the guest accesses any memory."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

    async def tell_of_writes(self, on: Side) -> None:
        """Has QEMU know what the guest has written, as if it wrote it once more."""
        for memory in self._memory:
            for page in memory.written:
                at = page * PAGE
                await on.qemu.qtest.write(at, memory.peek(at, 1))

    async def more(self, number: int) -> None:
        """Returns when so many more packets have gone round."""
        last = self.number + number
        task = self._task
        assert task is not None
        await until(lambda: self.number >= last or task.done())
        if task.done():
            task.result()

    async def _run(self) -> None:
        receive, transmit = self.receive.driver, self.transmit.driver
        while True:
            if not receive.in_flight:
                receive.submit([], [BUFFER], Way.DIRECT)
                await self.receive.publish()
            if not transmit.in_flight and not receive.returned:
                transmit.submit([HEADER, self._packet()], [], Way.DIRECT)
                await self.transmit.publish()
            await until(lambda: receive.returned and transmit.returned, GUARD, 0.0005)
            transmit.collect()
            ((_, length, data),) = receive.collect()
            assert data[len(HEADER) : length] == self._packet()
            self.number += 1

    def _packet(self) -> bytes:
        return self.number.to_bytes(4, "big") * 300


@asynccontextmanager
async def pair(
    source: Version,
    destination: Version,
    folder: Path,
    device: ShadowedDevice | None = None,
    *,
    moved_from: ShadowedDevice | None = None,
) -> AsyncIterator[tuple[Side, Side, Traffic]]:
    """Two machines, of which the first has a guest whose packets go round.

    Args:
        source, destination: their QEMUs.
        folder: for sockets.
        device: the destination's.
        moved_from: the source's.
    """
    async with (
        side(source, folder / "source", device=moved_from) as here,
        side(destination, folder / "destination", *INCOMING, device=device) as there,
    ):
        offered = await here.qemu.device.acknowledge()
        taken = sensible(offered, frozenset())
        await here.qemu.device.negotiate(taken, offered)
        traffic = Traffic(here, event_idx=Feature.RING_EVENT_IDX in taken)
        await traffic.receive.set_up()
        await traffic.transmit.set_up()
        for index in OTHER_QUEUES:
            await here.qemu.device.set_up_queue(index, place_ring(OTHERS + index * MIB, 64))
        await here.qemu.device.start()
        await until(lambda: here.on.device.status is Status.RUNNING)
        traffic.go_on(here)
        await traffic.more(50)
        try:
            yield here, there, traffic
        finally:
            await traffic.stop()


async def begin(here: Side, there: Side, traffic: Traffic) -> None:
    """Begins to move the machine, and returns while its memory is logged and sent."""
    here.take_ballast()
    await here.bound(SLOW)
    for each in (here, there):
        # The driver has to be told when it stands still, as a processor has not.
        paused = {"capability": "pause-before-switchover", "state": True}
        await each.qemu.qmp.execute("migrate-set-capabilities", capabilities=[paused])
    await there.qemu.qmp.execute("migrate-incoming", uri=f"unix:{there.address}")
    await here.qemu.qmp.execute("migrate", uri=f"unix:{there.address}")
    await until(lambda: here.on.device.logged is not None)
    await traffic.more(100)


async def until_buffers_were_sent(here: Side) -> None:
    """Returns when all below the ballast was sent, and not all of that."""
    await here.bound(SOON)
    async with asyncio.timeout(GUARD):
        while (found := await here.status())["ram"]["normal"] < BELOW_BALLAST:
            assert found["status"] == "active", found
            await asyncio.sleep(0.005)
    await here.bound(SLOW)


async def until_it_stands_still(here: Side) -> None:
    """Returns when nothing is left to be sent but what is written while that is sent."""
    await here.bound(FAST)
    await here.until_migration_is("pre-switchover")


async def end(here: Side, there: Side, traffic: Traffic) -> dict[str, Any]:
    """Moves the rest, while the guest stands still; what QEMU tells of it."""
    await until_it_stands_still(here)
    await traffic.stop()
    await traffic.tell_of_writes(here)
    await here.qemu.qmp.execute("migrate-continue", state="pre-switchover")
    moved = await here.until_migration_is("completed")
    await there.until_migration_is("completed")
    return moved


WAYS = {
    "10.0": (TRIXIE, TRIXIE),
    "11.1": (TRIXIE_BACKPORTS, TRIXIE_BACKPORTS),
    "10.0-11.1": (TRIXIE, TRIXIE_BACKPORTS),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[Version, Version]:
    """The QEMUs of a migration."""
    versions = WAYS[request.param]
    skip_or_fail(why_unavailable(versions[0]) or why_unavailable(versions[1]))
    return versions


LOGGED: dict[str, tuple[type[LoopDevice], str]] = {
    "resumed": (LoopDevice, "relay"),
    "restarted": (NeverResumed, "relay"),
    "everything": (NeverSuspended, "everything"),
}
"""Devices, and the way in which their memory is logged."""


@pytest.mark.parametrize("device", LOGGED)
async def test_a_machine_moves_while_packets_go_round(
    tmp_path: Path, way: tuple[Version, Version], device: str
) -> None:
    moved_from, logged = LOGGED[device]
    async with pair(*way, tmp_path, moved_from=moved_from()) as (here, there, traffic):
        await begin(here, there, traffic)
        moved = await end(here, there, traffic)
        assert moved["downtime"] < GUARD * 1000
        assert different_pages(here.qemu.process.pid, there.qemu.process.pid) == []
        await there.qemu.qmp.execute("cont")
        traffic.go_on(there)
        await traffic.more(100)
        assert there.on.device.status is Status.RUNNING
        # QEMU ends it when it ends itself: a device that is stopped is told nothing more.
        began, saved = here.heard.events
        assert began == LoggingBegan("nic0", logged)
        assert isinstance(saved, StateSaved)
        # What QEMU keeps to itself is not in it, and so there was nothing to be sent to the device.
        (loaded,) = there.heard.events
        assert isinstance(loaded, StateLoaded)
        assert (loaded.rehearsed, loaded.commands) == (True, 0)
        assert here.on.device.logged is not None
        assert here.on.device.logged.way == logged
        if logged == "everything":
            assert here.on.device.logged.pages >= (MEMORY_SIZE - MIB) // PAGE
    assert isinstance(here.heard.events[-1], LoggingEnded)


class Unwilling(LoopDevice):
    """Does not come up."""

    def start(self) -> None:
        raise BackEndError("expected a device that comes up, it does not")


async def test_where_the_destination_s_device_does_not_take_it_the_guest_goes_on(
    tmp_path: Path, way: tuple[Version, Version]
) -> None:
    async with pair(*way, tmp_path, Unwilling()) as (here, there, traffic):
        for each in (here, there):
            # So that the source waits for the destination's word.
            told = {"capability": "return-path", "state": True}
            await each.qemu.qmp.execute("migrate-set-capabilities", capabilities=[told])
        await begin(here, there, traffic)
        await until_it_stands_still(here)
        await traffic.stop()
        await here.qemu.qmp.execute("migrate-continue", state="pre-switchover")
        await until(lambda: bool(there.on.refusals))
        assert there.on.refusals[0].startswith("CHECK_DEVICE_STATE: expected a device that comes")
        await until(lambda: here.on.device.status is Status.RUNNING)
        traffic.go_on(here)
        await traffic.more(100)


async def test_what_the_stream_has_of_the_back_end_is_read(
    tmp_path: Path, way: tuple[Version, Version]
) -> None:
    async with pair(*way, tmp_path) as (here, _, traffic):
        await traffic.stop()
        stream = tmp_path / "file"
        await here.qemu.qmp.execute("migrate", uri=f"exec:cat >{stream}")
        await here.until_migration_is("completed")
        with stream.open("rb") as file:
            (found,) = read(file).devices
        assert found.state is not None, found.problems
        assert (
            f"vdpad-vhost-user {vdpad.__version__}, back end nic0, device loop"
            in dict(found.about).values()
        )
        assert dict(found.rings).keys() >= {0, 1}
        # One that the device had returned may not have been looked at.
        assert traffic.number <= dict(found.rings)[0] <= traffic.number + 1
        assert not [note for note in found.notes if "back end" in note]


async def test_a_migration_that_is_cancelled(tmp_path: Path, way: tuple[Version, Version]) -> None:
    async with pair(*way, tmp_path) as (here, there, traffic):
        await begin(here, there, traffic)
        await here.qemu.qmp.execute("migrate_cancel")
        await until(lambda: here.on.device.logged is None)
        await traffic.more(100)
        assert here.on.device.status is Status.RUNNING
        assert [type(each) for each in here.heard.events] == [LoggingBegan, LoggingEnded]


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "no-destination"])
async def test_a_guest_that_stood_still_goes_on_at_its_source(
    tmp_path: Path, way: tuple[Version, Version], cancelled: bool
) -> None:
    async with pair(*way, tmp_path) as (here, there, traffic):
        await begin(here, there, traffic)
        await until_it_stands_still(here)
        await until(lambda: here.on.device.status is Status.STOPPED)
        await traffic.stop()
        if cancelled:
            await here.qemu.qmp.execute("migrate_cancel")
        else:
            await there.qemu.qmp.execute("quit")
            # Until then it takes what little is left, and the migration is completed.
            await until(lambda: not Path(f"/proc/{there.qemu.process.pid}").exists())
            await here.qemu.qmp.execute("migrate-continue", state="pre-switchover")
        await until(lambda: here.on.device.status is Status.RUNNING)
        await until(lambda: here.on.device.logged is None)
        traffic.go_on(here)
        await traffic.more(100)


@pytest.mark.parametrize("device", LOGGED)
async def test_pages_that_are_not_marked_are_missed_where_they_are_looked_for(
    tmp_path: Path, way: tuple[Version, Version], device: str
) -> None:
    """That the comparison finds what a wrong log does."""
    moved_from, _ = LOGGED[device]
    with forgetful_logs():
        async with pair(*way, tmp_path, moved_from=moved_from()) as (here, there, traffic):
            await begin(here, there, traffic)
            await until_buffers_were_sent(here)
            await traffic.more(500)
            await end(here, there, traffic)
            wrong = different_pages(here.qemu.process.pid, there.qemu.process.pid)
    assert wrong
    assert all(page % FORGOTTEN == 0 for page in wrong)
    assert any(RECEIVE <= page * PAGE < RECEIVE + MIB for page in wrong)
