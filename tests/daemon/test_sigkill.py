"""SIGKILL at any moment of a restore, and the device judges what the next daemon tells of it."""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.support import (
    Caller,
    Json,
    is_error,
    is_operation,
    is_summary_of,
    request,
    serving,
    vlans,
)
from tests.support.device_process import Lender, device_process
from tests.support.devices import config, geometry_of
from tests.support.forker import Forker, forker
from tests.support.lent import lent_target
from tests.support.marks import in_bulk
from tests.support.waiting import GUARD, until
from vdpad.virtio.features import FEATURES
from vdpad.virtio.rings import RingGeometry
from vdpad.virtio.split_ring import SplitGeometry

RING = 64
IN_FLIGHT = RING // 2
MOMENTS, IN_BULK = 10, 16
COMMANDS = 4094
EVERY = vlans([1, COMMANDS])


@pytest.fixture(scope="module")
def daemons() -> Iterator[Forker]:
    with forker("vdpad.cli.vdpad") as each:
        yield each


class Judge:
    """The device, which lives in a process of its own, and what it has come to."""

    def __init__(self, lender: Lender, geometry: RingGeometry) -> None:
        assert isinstance(geometry, SplitGeometry)
        self._lender = lender
        lent = lender.descriptors
        self.fds = [lent.memory, lent.kick, lent.call]
        self._available = geometry.available - geometry.memory.iova + 2
        self._used = geometry.used - geometry.memory.iova + 2

    @property
    def used(self) -> int:
        """How many commands it has done."""
        return self._word(self._used)

    async def held(self) -> int:
        """How many of the commands it holds, once it has done all that it was given; its reset."""
        # The daemon may have died between what it published and the doorbell.
        os.eventfd_write(self._lender.descriptors.kick, 1)
        await until(lambda: self.used == self._word(self._available))
        used = self.used
        vids = self._lender.held()["vlans"]
        self._lender.reset()
        assert vids == list(range(1, used + 1))
        return used

    def _word(self, at: int) -> int:
        return int.from_bytes(os.pread(self._lender.descriptors.memory, 2, at), "little")


async def listening(path: Path) -> Caller:
    """Somebody to ask a daemon that has just been started."""
    async with asyncio.timeout(GUARD):
        while True:
            try:
                with Caller(path) as caller:
                    await caller.result("info")
            except OSError:
                await asyncio.sleep(0.002)
            else:
                return Caller(path)


class Moments:
    """When each daemon dies: after a while, or once its device has done so much."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.seconds = 0.0
        """How long a whole restore takes, as the first daemon shows, which is let live so long."""

    async def come(self, number: int, caller: Caller, judge: Judge) -> None:
        """Returns at the moment of this number after a restore was asked for."""
        if number == 0:
            began = time.perf_counter()
            await caller.receive()
            self.seconds = time.perf_counter() - began
        elif number % 2:
            time.sleep(self._chance.uniform(0, self.seconds))  # noqa: ASYNC251
        else:
            used = self._chance.randrange(COMMANDS)
            await until(lambda: judge.used >= used, every=0)


class Restores:
    """Restores on one device, each by a daemon of its own, with the same records."""

    def __init__(self, folder: Path, daemons: Forker, judge: Judge, target: Json) -> None:
        self._folder = folder
        self._daemons = daemons
        self._judge = judge
        self._wish = {"state": EVERY, "target": target}
        self._moments = Moments(seed=len(target["features"]))
        self.records = folder / "operations"
        (folder / "vdpad.toml").write_text(f"records.directory = '{self.records}'\n")

    async def killed(self, number: int) -> Json | None:
        """What the daemon had answered by the moment of its death."""
        socket, config = self._folder / "killed.sock", self._folder / "vdpad.toml"
        ask = request("restore", 1, migration=name_of(number), **self._wish)
        with (
            self._daemons.child("--socket", str(socket), "--config", str(config)) as daemon,
            await listening(socket) as caller,
        ):
            await caller.send(ask, self._judge.fds)
            await self._moments.come(number, caller, self._judge)
            daemon.kill()
            daemon.wait()
            return caller.received()


def name_of(number: int) -> str:
    return f"vm-{number}"


@pytest.mark.parametrize("moments", [MOMENTS, *in_bulk([IN_BULK])])
@pytest.mark.parametrize("event_idx", [True, False], ids=["event-idx", "flags"])
async def test_never_is_more_told_than_was(
    tmp_path: Path, daemons: Forker, event_idx: bool, moments: int
) -> None:
    configured = config(ring_size=RING, event_idx=event_idx)
    geometry = await geometry_of(configured)
    target = lent_target(FEATURES.names(configured.features), geometry)
    came_to: Counter[str] = Counter()
    known: list[Json] = []
    with device_process(ring_size=RING, event_idx=event_idx) as lender:
        judge = Judge(lender, geometry)
        restores = Restores(tmp_path, daemons, judge, target)
        for number in range(moments):
            answered = await restores.killed(number)
            held = await judge.held()
            async with serving(tmp_path, records={"directory": restores.records}) as next_daemon:
                with Caller(next_daemon) as caller:
                    status = await caller.call("status", migration=name_of(number))
                    again = await caller.call("commit", migration=name_of(number))
                    listed = await caller.listed()
            came_to[judged(status, again, held)] += 1
            if answered is not None:
                assert answered["result"] == status["result"]["report"]
            known = [status["result"], *known] if "result" in status else known
            # None of the earlier ones is told otherwise than before.
            assert len(listed) <= len(known)
            assert all(map(is_summary_of, listed, known))
        lender.descriptors.close()
    assert came_to["restored"] >= 1
    assert came_to["interrupted"] >= moments // 4


def judged(status: Json, again: Json, held: int) -> str:
    """What the next daemon tells of a restore, once it agrees with what the device holds."""
    if "error" in status:
        assert is_error(status["error"], "no-such-migration")
        assert held == 0
        return "unknown"
    operation = status["result"]
    report = operation["report"]
    assert operation["commands"] == report["commands"] == COMMANDS
    if operation["state"] == "restored":
        assert is_operation(operation, "restored", "restored")
        assert held == COMMANDS
        assert again["result"] == report
        return "restored"
    assert is_operation(operation, "failed", "interrupted")
    if not report["device_must_reset"]:
        assert (report["applied"], report["doorbells"], held) == (0, 0, 0)
        assert is_error(again["error"], "no-such-migration")
        return "prepared"
    applied = report["applied"]
    assert applied <= held <= applied + IN_FLIGHT
    first = next((line["arguments"] for line in report["unanswered"]), None)
    assert first == (f"vid={applied + 1}" if applied < COMMANDS else None)
    assert is_error(again["error"], "internal", "report")
    assert again["error"]["data"]["report"] == report
    assert f"{applied} of {COMMANDS} commands are known" in again["error"]["message"]
    return "interrupted"
