"""A wall clock that is set while the daemon works: nothing is lost, late, or let in twice by it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import pytest

from tests.daemon.support import Caller, Json, faulty, is_error, is_report, software, vlans
from tests.daemon.udp_support import Remote, serving_udp
from vdpad.daemon.daemon import Service
from vdpad.daemon.operations import bookkeeping, commits, operations, preparing
from vdpad.daemon.settings import Settings

YEARS = timedelta(days=3653)
# Linux sets no clock before 1970, nor past 2232 (include/linux/time64.h, timespec64_valid_settod).
STEPS = [timedelta(hours=-1), timedelta(hours=1), -YEARS, YEARS, -5.5 * YEARS, 20 * YEARS]


class Wall(datetime):
    """The wall clock, which is set by as much as is said."""

    ahead = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        there = datetime.now(tz) + cls.ahead
        return cls.fromtimestamp(there.timestamp(), tz)


@pytest.fixture(autouse=True)
def _wall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wall, "ahead", timedelta())
    for module in (bookkeeping, commits, operations, preparing):
        monkeypatch.setattr(module, "datetime", Wall)


@asynccontextmanager
async def asked(folder: Path, **settings: object) -> AsyncIterator[Caller]:
    """A daemon of this process that keeps records, and who asks it."""
    given = {"socket": folder / "sock", "records": {"directory": folder / "records"}, **settings}
    service = Service(Settings.model_validate(given))
    path = await service.start()
    try:
        with Caller(path) as caller:
            yield caller
    finally:
        await service.stop()


def wish(migration: str) -> Json:
    return {"migration": migration, "state": vlans(1, 2), "target": software()}


@pytest.mark.parametrize("step", STEPS, ids=str)
async def test_records_keep_their_order_and_their_ends(tmp_path: Path, step: timedelta) -> None:
    async with asked(tmp_path) as caller:
        assert is_report(await caller.result("restore", **wish("before")), "restored")
        await caller.result("prepare", **wish("across"))
        await caller.result("prepare", **wish("given-up"))
        Wall.ahead = step
        assert is_report(await caller.result("commit", migration="across"), "restored")
        await caller.result("cancel", migration="given-up")
        assert is_report(await caller.result("restore", **wish("after")), "restored")
        told = await caller.listed()
    assert [each["migration"] for each in told] == ["after", "given-up", "across", "before"]
    assert [each["state"] for each in told] == ["restored", "cancelled", "restored", "restored"]
    for _ in range(2):
        async with asked(tmp_path) as caller:
            assert await caller.listed() == told


@pytest.mark.parametrize("step", STEPS, ids=str)
async def test_a_deadline_is_as_long_as_it_was(tmp_path: Path, step: timedelta) -> None:
    silent = faulty("silence", 0)
    async with asked(tmp_path, software=[silent]) as caller:
        began = time.monotonic()
        commit = asyncio.create_task(caller.call("restore", **wish("vm-1"), deadline_ms=400))
        await asyncio.sleep(0.05)
        Wall.ahead = step
        reply = await commit
        assert is_error(reply["error"], "timeout", "report")
        assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize("step", STEPS, ids=str)
async def test_other_hosts_are_let_in_by_the_clock_as_it_is(
    tmp_path: Path, step: timedelta
) -> None:
    async with serving_udp(tmp_path) as udp:
        now = datetime.now(UTC)
        udp._gate._now = lambda: (now + step).timestamp()
        with Remote(udp.address) as remote:
            token = remote.fernet.encrypt_at_time(INFO, int((now + step).timestamp()))
            await answered(remote, token)
            assert udp.refused.total() == 0
        udp._gate._now = time.time
        with Remote(udp.address) as remote:
            assert (await remote.result("info"))["name"] == "vdpad"
            remote.socket.send(token)
            await remote.result("info")
            assert udp.refused.total() == 1


INFO = b'{"jsonrpc": "2.0", "id": 1, "method": "info"}'


async def answered(remote: Remote, token: bytes) -> None:
    """Sends what is sealed, and returns when a reply is there."""
    remote.socket.send(token)
    await asyncio.get_running_loop().sock_recv(remote.socket, 1 << 16)
