"""The daemon's end: commits under way finish, nothing else begins, and everyone is answered."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.daemon.lending import held, held_wish, lending
from tests.daemon.operations.shown import ME, shown
from tests.daemon.support import (
    MAX_DATAGRAM,
    Caller,
    Json,
    is_error,
    is_operation,
    is_report,
    request,
    serving,
    slow,
    software,
    until_state,
    vlans,
)
from tests.daemon.targets.slow_target import SlowTarget
from tests.daemon.udp_support import Remote, serving_udp
from tests.support.daemon import running
from tests.support.waiting import GUARD, until
from vdpad.daemon.daemon import Service
from vdpad.daemon.devices.keeper import DeviceKeeper
from vdpad.daemon.operations.changes import Changes
from vdpad.daemon.operations.operations import Operations
from vdpad.daemon.operations.running import RunningCommits
from vdpad.daemon.process import run
from vdpad.daemon.records.directory import Records
from vdpad.daemon.settings import Limits, Replay, Settings
from vdpad.service.endpoints.unix import UnixEndpoint
from vdpad.service.envelope import OVERLOADED
from vdpad.service.refusal import Kind, Refusal
from vdpad.service.systemd.notify import Inherited


def wish(migration: str) -> Json:
    return {"migration": migration, "state": vlans(1), "target": software()}


def service_in(folder: Path) -> Service:
    settings = {"socket": folder / "vdpad.sock", "records": {"directory": folder / "operations"}}
    return Service(Settings.model_validate(settings))


async def test_a_commit_under_way_finishes_and_nothing_else_begins(tmp_path: Path) -> None:
    service = service_in(tmp_path)
    await service.start()
    path = tmp_path / "vdpad.sock"
    async with held(path) as commit:
        with Caller(path) as caller:
            await caller.result("prepare", **wish("vm-2"))
            stopping = asyncio.create_task(service.stop())
            await asyncio.sleep(0)
            assert is_operation(await caller.result("status", migration="vm-2"), "cancelled")
            assert is_operation(await caller.result("status", migration="vm-1"), "committing")
            for method in ("prepare", "restore"):
                error = await caller.error(method, **wish("vm-3"))
                assert is_error(error, "overloaded")
                assert "stopping" in error["message"]
            assert is_error(await caller.error("commit", migration="vm-2"), "no-such-migration")
            assert (await caller.result("info"))["name"] == "vdpad"
        assert not stopping.done()
        assert is_report(await commit.let_go(), "restored")
    async with asyncio.timeout(GUARD):
        await stopping
    assert not path.exists()
    async with serving(tmp_path, records={"directory": tmp_path / "operations"}) as socket:
        with Caller(socket) as caller:
            states = {each["migration"]: each["state"] for each in await caller.listed()}
    assert states == {"vm-1": "restored", "vm-2": "cancelled"}


async def test_what_is_being_prepared_is_cancelled_and_recorded(tmp_path: Path) -> None:
    records = Records(tmp_path / "operations")
    operations = Operations(Limits(), Replay(), records, RunningCommits(), Changes())
    target = SlowTarget()
    first = asyncio.create_task(operations.prepare(target.wish()))
    await target.until_asked()
    second = asyncio.create_task(operations.prepare(target.wish()))
    await asyncio.sleep(0)
    await operations.stop()
    # Its record is there by now, and is the next daemon's to read.
    records.close()
    for each in (first, second):
        with pytest.raises(Refusal, match="stopping") as caught:
            await each
        assert caught.value.kind is Kind.OVERLOADED
    assert target.let_go == 1
    records = Records(tmp_path / "operations")
    operations = Operations(Limits(), Replay(), records, RunningCommits(), Changes())
    operations.recall()
    (operation,) = operations.newest_first(ME)
    assert is_operation(shown(operation), "cancelled")
    assert operation.renewable
    records.close()


async def test_a_stop_that_is_given_up_leaves_the_commits_running(tmp_path: Path) -> None:
    service = service_in(tmp_path)
    await service.start()
    async with held(tmp_path / "vdpad.sock") as commit:
        stopping = asyncio.create_task(service.stop())
        await asyncio.sleep(0.01)
        stopping.cancel()
        await asyncio.wait([stopping])
        assert stopping.cancelled()
        assert is_report(await commit.let_go(), "restored")
    await service.stop()


@pytest.mark.parametrize("stopping", [True, False])
async def test_a_caller_s_own_cancellation_stays_one(stopping: bool) -> None:
    operations = Operations(Limits(), Replay(), Records(None), RunningCommits(), Changes())
    target = SlowTarget()
    preparing = asyncio.create_task(operations.prepare(target.wish()))
    await target.until_asked()
    preparing.cancel()
    if stopping:
        await operations.stop()
    with pytest.raises(asyncio.CancelledError):
        await preparing
    assert operations.newest_first(ME) == []


@pytest.mark.parametrize("turns", range(4))
async def test_what_had_come_by_then_is_answered(tmp_path: Path, turns: int) -> None:
    """Also what the loop had no turn to read yet."""
    service = service_in(tmp_path)
    await service.start()
    callers = [Caller(tmp_path / "vdpad.sock") for _ in range(8)]
    for number, caller in enumerate(callers):
        ask = request("info", number) if number % 2 else request("restore", number, **wish("vm-1"))
        caller.socket.sendto(ask, str(tmp_path / "vdpad.sock"))
    for _ in range(turns):
        await asyncio.sleep(0)
    await service.stop()
    for number, caller in enumerate(callers):
        reply = await caller.receive()
        assert reply["id"] == number
        # What the loop had turned to before the stop is done.
        begun = number % 2 == 1 or turns > 0
        assert ("result" in reply and begun) or is_error(reply["error"], "overloaded")
        caller.socket.close()


@pytest.mark.parametrize("pauses", [True, False], ids=["3.11.7", "3.11.2"])
async def test_what_comes_later_may_be_left_to_the_next_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: bool
) -> None:
    """Also by a Python whose datagram transports cannot pause."""
    if not pauses:
        datagrams = "asyncio.selector_events._SelectorDatagramTransport"
        monkeypatch.setattr(f"{datagrams}.pause_reading", asyncio.ReadTransport.pause_reading)
    path = tmp_path / "vdpad.sock"
    answered = []

    async def answer(data: bytes, _: object) -> bytes:
        answered.append(data)
        return data

    endpoint = UnixEndpoint(answer, OVERLOADED)
    await endpoint.listen(path, 0o600, None)
    with Caller(path) as caller:
        await caller.send(b"one")
        await until(lambda: answered == [b"one"])
        endpoint.leave_the_rest()
        await caller.send(b"two")
        await asyncio.sleep(0.05)
        assert answered == [b"one"]
    # As it is our own socket here, nobody comes after us.
    await endpoint.close()
    assert answered == [b"one", b"two"]


async def test_who_asks_after_the_last_was_read_is_refused(tmp_path: Path) -> None:
    """One that is connected would else wait for an answer that nobody gives."""
    path = tmp_path / "vdpad.sock"
    let_go, asked = asyncio.Event(), asyncio.Event()

    async def answer(data: bytes, _: object) -> bytes:
        asked.set()
        await let_go.wait()
        return data

    endpoint = UnixEndpoint(answer, OVERLOADED)
    await endpoint.listen(path, 0o600, None)
    with Caller(path) as caller, Caller(path) as late:
        late.socket.connect(str(path))
        await caller.send(b'{"jsonrpc":"2.0","id":1,"result":0}')
        await asked.wait()
        closing = asyncio.create_task(endpoint.close())
        await until(lambda: not path.exists())
        with pytest.raises(BrokenPipeError):
            late.socket.send(b"late")
        assert not closing.done()
        let_go.set()
        await closing
        assert (await caller.receive())["id"] == 1


async def test_with_systemd_s_socket_nothing_is_lost(tmp_path: Path) -> None:
    """What comes during the stop is answered, or stands in the socket for the next daemon."""
    path = tmp_path / "vdpad.sock"
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.bind(str(path))
    settings = Settings.model_validate({"socket": tmp_path / "unused"})
    service = Service(settings, [Inherited(os.dup(ours.fileno()), "api")])
    await service.start()
    sent = 0
    replies: dict[int, Json] = {}
    with Caller(path) as caller, Caller(path) as other:

        async def ask() -> None:
            nonlocal sent
            sent += 1
            restore = request("restore", sent, **wish(f"new-{sent}"))
            await caller.send(restore if sent % 2 else request("info", sent))
            while (reply := caller.received()) is not None:
                replies[reply["id"]] = reply

        async with held(path) as commit:
            stopping = asyncio.create_task(service.stop())
            while not stopping.done():
                await ask()
                await asyncio.sleep(0)
                if sent == 200:
                    status = await other.result("status", migration="vm-1")
                    assert is_operation(status, "committing")
                    assert is_report(await commit.let_go(), "restored")
        for _ in range(3):
            await ask()
    left = []
    ours.setblocking(False)
    with ours, contextlib.suppress(BlockingIOError):
        while True:
            left.append(json.loads(ours.recv(MAX_DATAGRAM))["id"])
    assert [*sorted(replies), *left] == list(range(1, sent + 1))
    assert len(left) >= 3
    assert path.exists()
    for number, reply in replies.items():
        assert number % 2 == 0 or is_error(reply["error"], "overloaded")


async def test_a_reply_to_another_host_is_waited_for(tmp_path: Path) -> None:
    remote: Remote | None = None
    async with serving_udp(tmp_path, software=[slow(0.2)]) as udp:
        remote = Remote(udp.address)
        remote.send(request("restore", 1, **wish("vm-1")))
        with Caller(tmp_path / "vdpad.sock") as caller:
            await until_state(caller, "vm-1", "committing")
    with remote:
        assert is_report((await remote.receive())["result"], "restored")


async def test_no_sighup_ends_a_stop(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon, held(daemon.socket) as commit:
        daemon.terminate()
        await until(lambda: '"stopping"' in daemon.log())
        daemon.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.1)
        assert is_report(await commit.let_go(), "restored")
        assert await asyncio.to_thread(daemon.wait) == 0
        assert "reloaded" not in daemon.log()


async def test_a_sigterm_during_the_start_ends_it_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that takes its time to be adopted is not left halfway; a SIGHUP changes nothing."""
    steps = []

    async def adopt(*_: object) -> list[object]:
        for number in (signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
        await asyncio.sleep(0.05)
        steps.append("adopted")
        return []

    async def stop(_: object) -> None:
        steps.append("stopped")

    monkeypatch.setattr(DeviceKeeper, "adopt", adopt)
    monkeypatch.setattr(DeviceKeeper, "stop", stop)
    async with asyncio.timeout(GUARD):
        await run(lambda: Settings.model_validate({"socket": tmp_path / "vdpad.sock"}))
    assert steps == ["adopted", "stopped"]
    assert not (tmp_path / "vdpad.sock").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_sigterm_changes_nothing(tmp_path: Path, number: signal.Signals) -> None:
    async with running(tmp_path) as daemon:
        async with held(daemon.socket) as commit:
            with Caller(daemon.socket) as caller:
                await caller.result("prepare", **wish("vm-2"))
                daemon.process.send_signal(number)
                await until(lambda: '"cancelled"' in daemon.log())
                daemon.terminate()
                await asyncio.sleep(0.1)
                assert is_operation(await caller.result("status", migration="vm-1"), "committing")
            assert is_report(await commit.let_go(), "restored")
        assert await asyncio.to_thread(daemon.wait) == 0


async def test_a_second_sigint_ends_it_at_once(tmp_path: Path) -> None:
    records = {"directory": tmp_path / "operations"}
    async with running(tmp_path, records=records) as daemon, lending(start=False) as lender:
        with Caller(daemon.socket) as caller, Caller(daemon.socket) as other:
            await caller.send(request("restore", 1, **held_wish(lender)), lender.fds)
            await until_state(other, "vm-1", "committing")
            await other.result("prepare", **wish("vm-2"))
            daemon.process.send_signal(signal.SIGINT)
            await until(lambda: '"cancelled"' in daemon.log())
            daemon.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(daemon.wait) == -signal.SIGINT
    async with running(tmp_path, records=records) as daemon:
        with Caller(daemon.socket) as caller:
            status = await caller.result("status", migration="vm-1")
    assert is_operation(status, "failed", "interrupted")
    assert status["report"]["device_must_reset"] is True
