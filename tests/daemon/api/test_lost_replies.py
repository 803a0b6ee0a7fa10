"""Replies that cannot be sent: counted by why, and told of, whoever is to blame."""

import errno
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.daemon.support import Caller, is_error, request, serving, software, vlans
from tests.support.users import ALICE, BOB, open_folder, users
from tests.support.waiting import until
from vdpad.daemon.daemon import Service
from vdpad.daemon.settings import Settings
from vdpad.service.endpoints.unix import UnixEndpoint
from vdpad.service.envelope import OVERLOADED
from vdpad.service.events import announcing
from vdpad.wire.datagrams import Loss, Peer, loss_of

Json = dict[str, Any]


async def lost(path: Path, *requests: bytes, address: str | bytes | None = "") -> Json:
    """What is told of the replies to requests of a client that has gone before they are sent."""
    with capture_logs() as events:
        with Caller(path, address) as caller:
            for each in requests:
                await caller.send(each)
        if isinstance(address, str) and address:
            os.unlink(address)
        return await one_lost(events)


async def one_lost(events: Sequence[Any]) -> Json:
    """What is told of replies that were lost, once it is; no more than once."""
    await until(lambda: any(each["event"] == "replies-lost" for each in events))
    (event,) = [dict(each) for each in events if each["event"] == "replies-lost"]
    return event


async def test_a_client_without_an_address(tmp_path: Path) -> None:
    async with serving(tmp_path) as path:
        event = await lost(path, request("info", 1), address=None)
    assert (event["log_level"], event["replies"]) == ("warning", 1)
    assert event["reasons"] == ("no-address 1",)
    assert event["pid"] == os.getpid()
    assert event["uid"] == os.getuid()
    assert "address" not in event
    assert event["message"] == (
        f"1 replies were lost (no-address 1); the last to process {os.getpid()}, without an "
        "address: it is bound to no address"
    )


@pytest.mark.parametrize("name", ["", "client.sock"])
async def test_a_client_that_has_gone(tmp_path: Path, name: str) -> None:
    address = str(tmp_path / name) if name else ""
    async with serving(tmp_path) as path:
        event = await lost(path, request("info", 1), address=address)
    assert event["reasons"] == ("gone 1",)
    assert event["address"] == address if name else event["address"].startswith("@")
    assert event["address"] in event["message"]


async def test_a_name_that_is_free_is_answered_whoever_takes_it_next() -> None:
    """As docs/security.md says: no kernel tells whose it was."""
    with open_folder() as folder, users(ALICE, BOB) as (alice, bob):
        async with serving(folder, socket_mode="0666") as path:
            with Caller(path, user=alice) as client:
                name = client.socket.getsockname()
                await client.send(request("check", "hers", state=vlans(7), target=software()))
            with Caller(path, name, user=bob) as other:
                reply = await other.receive()
    assert reply["id"] == "hers"


@pytest.mark.parametrize(
    "address", ["client.sock", f"\0vdpad-test-{os.getpid()}"], ids=["path", "abstract"]
)
async def test_a_name_that_may_be_another_s_is_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Who has it is another in another directory, or network namespace."""
    monkeypatch.chdir(tmp_path)
    async with serving(tmp_path) as path:
        with capture_logs() as events, Caller(path, address) as caller:
            await caller.send(request("info", 1))
            event = await one_lost(events)
            assert caller.received() is None
    assert (event["reasons"], event["pid"]) == (("not-its-own 1",), os.getpid())


async def test_a_socket_of_another_user_s_is_sent_nothing() -> None:
    """Whatever path leads there, and whoever the daemon is."""
    with users(ALICE) as (alice,), open_folder() as folder:
        async with serving(folder, socket_mode="0666") as path:
            with Caller(folder, str(folder / "root.sock")) as victim:
                hers = folder / "hers.sock"
                with capture_logs() as events, Caller(path, str(hers), alice) as caller:
                    hers.unlink()
                    hers.symlink_to(folder / "root.sock")
                    await caller.send(request("info", 1))
                    event = await one_lost(events)
                assert victim.received() is None
    assert event["reasons"] == ("not-its-own 1",)


async def test_who_makes_it_answer_itself_is_told_once(tmp_path: Path) -> None:
    """A sender whose path leads to the daemon's own socket by the time of the reply."""
    async with serving(tmp_path) as path:
        with capture_logs() as events:
            at = tmp_path / "client.sock"
            with Caller(path, str(at)) as caller:
                at.unlink()
                at.symlink_to(path)
                await caller.send(request("info", 1))
                event = await one_lost(events)
            with Caller(path) as another:
                await another.result("info")
    assert event["reasons"] == ("reflected 1",)


@pytest.mark.parametrize(
    "reply", [{"result": {}}, {"error": {"code": 1, "message": "no"}}], ids=str
)
async def test_a_reply_is_answered_by_none(tmp_path: Path, reply: Json) -> None:
    """Two daemons would talk for good."""
    with capture_logs() as events:
        async with serving(tmp_path) as path:
            with Caller(path) as caller:
                await caller.send(json.dumps({"jsonrpc": "2.0", "id": 7, **reply}).encode())
                assert (await caller.result("info"))["name"] == "vdpad"
                assert caller.received() is None
    assert (await one_lost(events))["reasons"] == ("reflected 1",)


async def test_what_comes_from_its_own_socket_is_not_looked_at(tmp_path: Path) -> None:
    """Of a daemon before it, which had the same socket; or whoever made that send one."""
    service = Service(Settings(socket=tmp_path / "vdpad.sock"))
    path = await service.start()
    own = service._endpoint._socket
    assert own is not None
    with capture_logs() as events:
        socket.socket.sendto(own, request("status", 1), str(path))
        event = await one_lost(events)
        with Caller(path) as caller:
            await caller.result("info")
    assert event["reasons"] == ("reflected 1",)
    assert service.api.answered == {("info", "ok"): 1}
    await service.stop()


async def test_a_flood_of_them_is_told_of_now_and_then(tmp_path: Path) -> None:
    """By the first, and by what is told at the end."""
    with capture_logs() as events:
        async with serving(tmp_path) as path:
            with Caller(path, None) as nameless:
                for _ in range(300):
                    await nameless.send(request("info", 1))
            with Caller(path) as another:
                await another.result("info")
    told = [each for each in events if each["event"] == "replies-lost"]
    assert [each["replies"] for each in told] == [1, 299]
    assert told[1]["reasons"] == ("no-address 299",)


async def test_a_client_that_does_not_read(tmp_path: Path) -> None:
    async def answer(data: bytes, peer: Peer) -> bytes:
        return data

    with capture_logs() as events:
        endpoint = UnixEndpoint(answer, OVERLOADED, announcing.log_event)
        await endpoint.listen(tmp_path / "vdpad.sock", 0o600, None)
        with Caller(tmp_path / "vdpad.sock") as caller:
            while not endpoint.replies_dropped:
                await caller.send(b"x")
            await endpoint.close()
    told = [each for each in events if each["event"] == "replies-lost"]
    assert told[0]["reasons"] == ("not-reading 1",)
    assert told[0]["last"] == os.strerror(errno.EAGAIN)
    assert sum(each["replies"] for each in told) == endpoint.replies_dropped


async def test_a_client_whose_queue_was_full_is_refused_until_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nobody waits behind work whose result cannot be sent."""
    monkeypatch.setattr("vdpad.service.endpoints.deaf._KNOWN", 3600.0)
    asked = []

    async def answer(data: bytes, peer: Peer) -> bytes:
        asked.append(data)
        return b'{"jsonrpc":"2.0","id":1,"result":"here"}'

    endpoint = UnixEndpoint(answer, OVERLOADED)
    await endpoint.listen(tmp_path / "vdpad.sock", 0o600, None)
    with Caller(tmp_path / "vdpad.sock") as caller, Caller(tmp_path / "vdpad.sock") as another:
        while not endpoint.replies_dropped:
            await caller.send(b"deaf")
            await another.send(b"reads")
            await another.receive()
        for _ in range(20):
            await caller.send(b"still deaf")
        await another.send(b"reads")
        assert (await another.receive())["result"] == "here"
        while caller.received() is not None:
            pass
        await caller.send(b"asks again")
        assert is_error((await caller.receive())["error"], "overloaded")
        await caller.send(b"reads")
        assert (await caller.receive())["result"] == "here"
        await endpoint.close()
    assert {*asked} == {b"deaf", b"reads"}


@pytest.mark.parametrize(
    ("number", "loss"),
    [
        (errno.ECONNREFUSED, Loss.GONE),
        (errno.ENOENT, Loss.GONE),
        (errno.EACCES, Loss.NOT_PERMITTED),
        (errno.EPERM, Loss.NOT_PERMITTED),
        (errno.EAGAIN, Loss.NOT_READING),
        (errno.EMSGSIZE, Loss.TOO_LARGE),
        (errno.ENETUNREACH, Loss.OTHER),
    ],
)
def test_why_by_what_the_system_says(number: int, loss: Loss) -> None:
    assert loss_of(OSError(number, os.strerror(number))) is loss


async def test_a_client_whose_socket_s_mode_keeps_us_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write anywhere, so the kernel's word is given for it."""

    def sendto(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    async with serving(tmp_path) as path:
        with capture_logs() as events, Caller(path) as caller:
            with monkeypatch.context() as patch:
                patch.setattr(socket.socket, "sendto", sendto, raising=False)
                await caller.send(request("info", 1))
                event = await one_lost(events)
            assert (await caller.result("info"))["name"] == "vdpad"
    assert (event["reasons"], event["last"]) == (("not-permitted 1",), "Permission denied")


@pytest.mark.parametrize(
    ("address", "named"),
    [
        (None, ""),
        ("/run/x.sock", "/run/x.sock"),
        (b"\0" + b"00f3a", "@00f3a"),
        (b"\0\xff", "@\ufffd"),
        (("192.0.2.1", 7117), "192.0.2.1 port 7117"),
        (("::1", 7, 0, 0), "::1 port 7"),
    ],
)
def test_an_address_as_people_write_it(address: Any, named: str) -> None:
    assert Peer(address).named() == named
