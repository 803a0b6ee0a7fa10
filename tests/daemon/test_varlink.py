"""The API over a connection: the same as by datagrams, in Varlink's words."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.daemon.lending import held, held_wish, lending
from tests.daemon.support import (
    HASH_REPORT,
    MAX_DATAGRAM,
    STATE,
    Caller,
    Json,
    faulty,
    is_operation,
    is_report,
    is_summary,
    serving,
    software,
    until_state,
    vlans,
)
from tests.support.descriptors import no_descriptor_left
from tests.support.varlink import VarlinkCaller, call
from vdpad.daemon.daemon import Service
from vdpad.daemon.settings import Settings
from vdpad.service.systemd.notify import Inherited

ME, MY_GROUP = os.getuid(), os.getgid()

INVALID = "org.varlink.service.InvalidParameter"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the daemon takes connections."""
    return tmp_path / "io.vdpad"


@pytest.fixture
async def datagrams(path: Path) -> AsyncIterator[Path]:
    """Where the same daemon takes datagrams, while it runs."""
    with no_descriptor_left():
        async with serving(path.parent, varlink=path) as socket_path:
            yield socket_path


@pytest.fixture
async def caller(datagrams: Path, path: Path) -> AsyncIterator[VarlinkCaller]:
    """A connection to it."""
    with VarlinkCaller(path) as each:
        yield each


def wish(migration: str, state: Json = STATE, target: Json | None = None) -> Json:
    return {"migration": migration, "state": state, "target": target or software()}


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- the same by both ways ---


async def test_every_method_gives_what_a_datagram_gets(
    caller: VarlinkCaller, datagrams: Path
) -> None:
    with Caller(datagrams) as other:
        info = await caller.call("Info")
        limits = {**info["limits"], "datagram_bytes": MAX_DATAGRAM}
        assert {**info, "limits": limits} == await other.result("info")
        assert info["limits"]["datagram_bytes"] == 4 * 1024 * 1024
        asked = {"state": STATE, "target": software()}
        assert await caller.call("Check", **asked) == await other.result("check", **asked)
        prepared = (await caller.call("Prepare", **wish("vm-1")))["operation"]
        assert is_operation(prepared, "prepared")
        assert await other.result("prepare", **wish("vm-1")) == prepared
        report = await caller.call("Commit", migration="vm-1", deadline_ms=20_000)
        assert is_report(report, "restored")
        assert await other.result("restore", **wish("vm-1")) == report
        assert is_report(await caller.call("Restore", **wish("vm-2", HASH_REPORT)), "restored")
        await other.result("prepare", **wish("vm-3"))
        cancelled = (await caller.call("Cancel", migration="vm-3"))["operation"]
        assert is_operation(cancelled, "cancelled")
        status = await caller.call("Status", migration="vm-1")
        assert status == {"operation": await other.result("status", migration="vm-1")}


async def test_an_error_has_its_message_and_what_goes_with_it(
    caller: VarlinkCaller, datagrams: Path
) -> None:
    await caller.call("Prepare", **wish("vm-1"))
    with Caller(datagrams) as other:
        for method, params in (
            ("status", {"migration": "none"}),
            ("prepare", wish("vm-1", HASH_REPORT)),
            ("prepare", wish("vm-2", {**STATE, "queue_pairs": 9, "rss": _WIDE_RSS})),
            ("prepare", wish("vm-2", target=software("none"))),
            ("release", {"device": "none"}),
        ):
            error = await other.error(method, **params)
            kind = error["data"].pop("kind")
            name = "".join(each.capitalize() for each in kind.split("-"))
            told = await caller.error(method.capitalize(), **params)
            assert told == (
                f"io.vdpad.Daemon.{name}",
                {**error["data"], "message": error["message"]},
            )


def _places(memory: int, kick: int, call: int) -> Json:
    return {"memory": memory, "kick": kick, "call": call}


_WIDE_RSS = {**STATE["rss"], "max_tx_queues": 9}


@pytest.mark.parametrize(
    ("method", "parameters", "first"),
    [
        ("Info", {"x": 1}, "x"),
        ("Status", {"migration": ""}, "migration"),
        ("Check", {"state": {**STATE, "mac": "x"}, "target": software()}, "state"),
        ("Commit", {}, "migration"),
        ("Commit", {"migration": "vm-1", "descriptors": {"memory": 0}}, "descriptors"),
        ("Commit", {"migration": "vm-1", "descriptors": [0, 1, 2]}, "descriptors"),
        ("Commit", {"migration": "vm-1", "descriptors": _places(0, 1, 1)}, "descriptors"),
        ("Commit", {"migration": "vm-1", "descriptors": _places(0, 0, 0)}, "descriptors"),
        ("Prepare", {**wish("vm-1"), "descriptors": {}}, "descriptors"),
    ],
)
async def test_wrong_parameters_are_told_with_all_that_is_wrong(
    caller: VarlinkCaller, method: str, parameters: Json, first: str
) -> None:
    name, told = await caller.error(method, **parameters)
    assert name == INVALID
    assert told.keys() == {"parameter", "message", "problems"}
    assert told["parameter"] == first
    assert told["problems"][0]["path"].startswith(first)


async def test_a_parameter_that_is_null_is_left_out(caller: VarlinkCaller) -> None:
    state = {**vlans(1), "mac": None, "rx": None}
    parameters = {**wish("vm-1", state), "deadline_ms": None, "descriptors": None}
    assert is_report(await caller.call("Restore", **parameters), "restored")


async def test_a_failed_restore_carries_its_report(tmp_path: Path, path: Path) -> None:
    async with serving(tmp_path, varlink=path, software=[faulty("err", 0)]):
        with VarlinkCaller(path) as caller:
            name, told = await caller.error("Restore", **wish("vm-1", vlans(1)))
            assert name == "io.vdpad.Daemon.Rejected"
            assert is_report(told["report"], "rejected")


async def test_more_than_a_datagram_takes_is_taken(caller: VarlinkCaller) -> None:
    queues = {str(index): {"max_packets": 1, "max_usecs": index} for index in range(8_000)}
    state = {
        "version": 1,
        "features": ["CTRL_VQ", "NOTF_COAL", "VQ_NOTF_COAL"],
        "coalescing": {"queues": queues},
    }
    assert len(call("io.vdpad.Daemon.Check", state=state)) > MAX_DATAGRAM
    told = await caller.call("Check", state=state, target=software())
    assert not told["compatible"]


# --- descriptors ---


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
async def test_descriptors_are_named_by_their_place(
    caller: VarlinkCaller, order: tuple[int, int, int]
) -> None:
    async with lending() as lender:
        places = dict(zip(("memory", "kick", "call"), order, strict=True))
        fds = [lender.fds[order.index(at)] for at in range(3)]
        parameters = {**wish("vm-1", STATE, lender.target), "descriptors": places}
        assert is_report(await caller.call("Restore", fds, **parameters), "restored")
        assert lender.device.net.settings()["vlans"] == STATE["vlans"]


async def test_descriptors_without_names_are_in_the_order_of_a_datagram_s(
    caller: VarlinkCaller,
) -> None:
    async with lending() as lender:
        await caller.call("Prepare", **wish("vm-1", STATE, lender.target))
        assert is_report(await caller.call("Commit", lender.fds, migration="vm-1"), "restored")


@pytest.mark.parametrize(
    ("count", "places"),
    [
        (0, {"memory": 0, "kick": 1, "call": 2}),
        (2, {"memory": 0, "kick": 1, "call": 2}),
        (3, {"memory": 1, "kick": 0, "call": 2}),
        (5, {"memory": 0, "kick": 1, "call": 2}),
    ],
)
async def test_descriptors_that_are_not_what_they_are_said_to_be_are_a_bad_lend(
    caller: VarlinkCaller, count: int, places: Json
) -> None:
    async with lending() as lender:
        await caller.call("Prepare", **wish("vm-1", STATE, lender.target))
        fds = [*lender.fds, *lender.fds][:count]
        name, told = await caller.error("Commit", fds, migration="vm-1", descriptors=places)
        assert name == "io.vdpad.Daemon.BadLend"
        assert told.keys() == {"message", "reason"}
        assert is_report(await caller.call("Commit", lender.fds, migration="vm-1"), "restored")


# --- several, and changes ---


async def test_status_of_several_is_as_by_datagram(caller: VarlinkCaller, datagrams: Path) -> None:
    for number in range(3):
        await caller.call("Restore", **wish(f"vm-{number}", vlans(1)))
    with Caller(datagrams) as other:
        for which in ({}, {"limit": 2}, {"states": ["failed"]}, {"after": "vm-1"}):
            assert await caller.call("Status", **which) == await other.result("status", **which)


async def test_a_thousand_are_listed_at_once(tmp_path: Path, path: Path) -> None:
    limits = {"operations_at_once": 2000, "operations_kept": 2000}
    async with serving(tmp_path, varlink=path, limits=limits):
        with VarlinkCaller(path) as caller:
            for number in range(1001):
                await caller.call("Prepare", **wish(f"{number:0>128}", vlans(1)))
            told = await caller.call("Status", limit=1000)
    assert (len(told["operations"]), told["total"]) == (1000, 1001)


async def watched(caller: VarlinkCaller, count: int) -> list[tuple[str, str]]:
    """The next summaries, by migration and state."""
    told = []
    for _ in range(count):
        reply = await caller.reply()
        assert reply.keys() == {"parameters", "continues"}
        summary = reply["parameters"]["operation"]
        assert is_summary(summary)
        told.append((summary["migration"], summary["state"]))
    return told


async def test_who_watches_is_told_of_what_there_is_and_of_each_change(
    caller: VarlinkCaller, path: Path
) -> None:
    with VarlinkCaller(path) as watcher:
        await caller.call("Prepare", **wish("vm-1", vlans(1)))
        await caller.call("Restore", **wish("vm-2", vlans(1)))
        await watcher.send(call("io.vdpad.Daemon.Watch", "more"))
        assert await watched(watcher, 2) == [("vm-1", "prepared"), ("vm-2", "restored")]
        await caller.call("Restore", **wish("vm-3", vlans(1)))
        await caller.call("Cancel", migration="vm-1")
        assert await watched(watcher, 4) == [
            ("vm-3", "prepared"),
            ("vm-3", "committing"),
            ("vm-3", "restored"),
            ("vm-1", "cancelled"),
        ]


async def test_states_choose_what_is_told_first_and_not_which_changes(
    caller: VarlinkCaller, path: Path
) -> None:
    with VarlinkCaller(path) as watcher:
        await caller.call("Prepare", **wish("vm-1", vlans(1)))
        await caller.call("Restore", **wish("vm-2", vlans(1)))
        await watcher.send(call("io.vdpad.Daemon.Watch", "more", states=["restored"]))
        assert await watched(watcher, 1) == [("vm-2", "restored")]
        await caller.call("Cancel", migration="vm-1")
        assert await watched(watcher, 1) == [("vm-1", "cancelled")]


@pytest.mark.parametrize(
    ("flags", "parameters", "error"),
    [
        ([], {}, "org.varlink.service.ExpectedMore"),
        (["more"], {"states": ["none"]}, INVALID),
        (["more"], {"limit": 1}, INVALID),
    ],
)
async def test_a_watch_that_makes_no_sense_is_refused(
    caller: VarlinkCaller, flags: list[str], parameters: Json, error: str
) -> None:
    await caller.send(call("io.vdpad.Daemon.Watch", *flags, **parameters))
    assert (await caller.reply())["error"] == error
    assert await caller.call("Info")


async def test_only_who_may_ask_for_the_status_may_watch(tmp_path: Path, path: Path) -> None:
    access = {"status": {"users": [ME + 1]}}
    async with serving(tmp_path, varlink=path, access=access):
        with VarlinkCaller(path) as caller:
            await caller.send(call("io.vdpad.Daemon.Watch", "more"))
            assert (await caller.reply())["error"] == "io.vdpad.Daemon.NotAllowed"


@pytest.mark.parametrize(
    "change", [{"access": {"status": {"users": [ME + 1]}}}, {"allowed_uids": [ME + 1]}]
)
async def test_a_watch_ends_when_who_reads_it_may_not_watch_any_more(
    tmp_path: Path, path: Path, change: Json
) -> None:
    settings = {"socket": tmp_path / "vdpad.sock", "varlink": path}
    service = Service(Settings.model_validate(settings))
    await service.start()
    try:
        with VarlinkCaller(path) as caller, VarlinkCaller(path) as other:
            await other.call("Prepare", **wish("vm-1", vlans(1)))
            await caller.send(call("io.vdpad.Daemon.Watch", "more"))
            assert await watched(caller, 1) == [("vm-1", "prepared")]
            service.reload(lambda: Settings.model_validate({**settings, **change}))
            reply = await caller.reply()
            assert reply["error"] == "io.vdpad.Daemon.NotAllowed"
    finally:
        await service.stop()


async def test_a_watch_ends_with_the_daemon_after_the_last_change(
    tmp_path: Path, path: Path
) -> None:
    async with serving(tmp_path, varlink=path):
        caller = VarlinkCaller(path)
        await caller.call("Prepare", **wish("vm-1", vlans(1)))
        await caller.send(call("io.vdpad.Daemon.Watch", "more"))
        assert await watched(caller, 1) == [("vm-1", "prepared")]
    with caller:
        assert await watched(caller, 1) == [("vm-1", "cancelled")]
        reply = await caller.reply()
        assert reply["error"] == "io.vdpad.Daemon.Overloaded"
        assert "stopping" in reply["parameters"]["message"]


async def test_one_who_watches_and_does_not_read_holds_up_nobody(
    caller: VarlinkCaller, path: Path
) -> None:
    with VarlinkCaller(path) as deaf:
        await deaf.send(call("io.vdpad.Daemon.Watch", "more"))
        for number in range(600):
            await caller.call("Restore", **wish(f"vm-{number}", vlans(1)))


async def test_watching_is_counted(tmp_path: Path, path: Path) -> None:
    service = Service(Settings(socket=tmp_path / "vdpad.sock", varlink=path))
    await service.start()
    with VarlinkCaller(path) as caller:
        await caller.call("Prepare", **wish("vm-1", vlans(1)))
        await caller.send(call("io.vdpad.Daemon.Watch", "more"))
        await watched(caller, 1)
        await caller.send(b"x\0")
    await service.stop()
    assert service.api.answered["watch", "ok"] == 1


# --- who may ---


async def test_who_may_speak_is_by_the_kernel_s_word(tmp_path: Path, path: Path) -> None:
    async with serving(tmp_path, varlink=path, allowed_uids=[ME + 1]):
        with VarlinkCaller(path) as caller:
            name, told = await caller.error("Info")
            assert name == "io.vdpad.Daemon.NotAllowed"
            assert f"uid {ME} may not speak here" in told["message"]


async def test_a_method_is_for_its_users(tmp_path: Path, path: Path) -> None:
    access = {"commit": {"users": [ME + 1]}, "status": {"groups": [MY_GROUP]}}
    async with serving(tmp_path, varlink=path, access=access):
        with VarlinkCaller(path) as caller:
            await caller.call("Status")
            name, told = await caller.error("Commit", migration="vm-1")
            assert name == "io.vdpad.Daemon.NotAllowed"
            assert f"uid {ME} with gid {MY_GROUP} may not call commit" in told["message"]


# --- the end ---


async def test_a_commit_goes_on_when_its_caller_hangs_up(datagrams: Path, path: Path) -> None:
    async with lending(start=False) as lender:
        with Caller(datagrams) as other:
            with VarlinkCaller(path) as caller:
                await caller.say("Restore", lender.fds, **held_wish(lender))
                await until_state(other, "vm-1", "committing")
            lender.device.start()
            await until_state(other, "vm-1", "restored")


async def test_a_commit_under_way_is_answered_at_the_end(tmp_path: Path, path: Path) -> None:
    async with lending(start=False) as lender:
        async with serving(tmp_path, varlink=path) as datagrams:
            with Caller(datagrams) as other:
                caller = VarlinkCaller(path)
                await caller.say("Restore", lender.fds, **held_wish(lender))
                await until_state(other, "vm-1", "committing")
            idle = VarlinkCaller(path)
            asyncio.get_running_loop().call_later(0.05, lender.device.start)
        with caller, idle:
            assert is_report((await caller.reply())["parameters"], "restored")
            with pytest.raises(EOFError):
                await idle.reply()
    assert names_in(tmp_path) == []


async def test_commits_of_both_ways_do_not_wait_for_each_other(
    datagrams: Path, caller: VarlinkCaller
) -> None:
    async with held(datagrams):
        assert is_report(await caller.call("Restore", **wish("vm-2")), "restored")


# --- where it listens ---


async def test_there_is_no_stream_socket_where_only_another_socket_is_asked_for(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path):
        assert names_in(tmp_path) == ["vdpad.sock"]


async def test_the_mode_is_that_of_the_socket_for_datagrams(tmp_path: Path, path: Path) -> None:
    async with serving(tmp_path, varlink=path, socket_mode="0600") as other:
        assert mode_of(path) == mode_of(other) == 0o600


async def test_a_socket_that_was_handed_over_is_taken(tmp_path: Path, path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(str(path))
        bound.listen()
        inherited = [Inherited(os.dup(bound.fileno()), "varlink")]
        service = Service(Settings(socket=tmp_path / "vdpad.sock"), inherited)
        await service.start()
        with VarlinkCaller(path) as caller:
            assert (await caller.call("Info"))["name"] == "vdpad"
        await service.stop()
        assert names_in(tmp_path) == ["io.vdpad"]
