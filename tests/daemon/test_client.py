"""vdpad.client: the same API, against a real daemon and against what only claims to be one."""

import asyncio
import contextlib
import itertools
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.lending import held, lending
from tests.daemon.support import (
    HASH_REPORT,
    MAX_DATAGRAM,
    STATE,
    Caller,
    Json,
    faulty,
    is_operation,
    is_report,
    serving,
    software,
    until_state,
    vlans,
)
from tests.support.descriptors import open_descriptors
from tests.support.waiting import GUARD
from vdpad.client import CannotSend, Client, Refused, Unreachable
from vdpad.errors import VdpadError


@pytest.fixture
async def client(path: Path) -> AsyncIterator[Client]:
    async with Client(path, GUARD) as each:
        yield each


# --- what it asks ---


async def names(client: Client, **which: Any) -> list[str]:
    return [each["migration"] for each in (await client.operations(**which))["operations"]]


async def test_every_method_gives_what_the_daemon_says(client: Client, caller: Caller) -> None:
    assert await client.info() == await caller.result("info")
    asked = {"state": STATE, "target": software()}
    assert await client.check(STATE, software()) == await caller.result("check", **asked)
    prepared = await client.prepare("vm-1", STATE, software(), deadline_ms=1000)
    assert is_operation(prepared, "prepared")
    assert await client.status("vm-1") == prepared
    report = await client.commit("vm-1", deadline_ms=20_000)
    assert is_report(report, "restored")
    assert is_report(await client.restore("vm-2", HASH_REPORT, software()), "restored")
    assert await client.restore("vm-1", STATE, software(), deadline_ms=1) == report
    await client.prepare("vm-3", STATE, software())
    assert is_operation(await client.cancel("vm-3"), "cancelled")
    assert await client.operations() == await caller.result("status")
    assert await names(client) == ["vm-3", "vm-2", "vm-1"]
    assert await names(client, limit=1) == ["vm-3"]
    assert await names(client, states=["restored"], after="vm-2") == ["vm-1"]
    assert await client.call("status", migration="vm-1") == await client.status("vm-1")


async def test_over_a_connection_it_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "io.vdpad"
    async with AsyncExitStack() as stack:
        datagrams = await stack.enter_async_context(serving(tmp_path, varlink=path))
        one = await stack.enter_async_context(Client(path, GUARD))
        other = await stack.enter_async_context(Client(datagrams, GUARD))
        limits = {**(await one.info())["limits"], "datagram_bytes": MAX_DATAGRAM}
        assert {**await one.info(), "limits": limits} == await other.info()
        prepared = await one.prepare("vm-1", STATE, software(), deadline_ms=1000)
        assert await other.prepare("vm-1", STATE, software()) == prepared
        report = await one.commit("vm-1", deadline_ms=20_000)
        assert is_report(report, "restored")
        assert await one.status("vm-1") == await other.status("vm-1")
        assert await one.operations() == await other.operations()
        assert await one.cancel("vm-1") == await one.status("vm-1")
        async with lending() as lender:
            lent = await one.restore("vm-2", STATE, lender.target, fds=lender.fds)
            assert is_report(lent, "restored")
        with pytest.raises(Refused) as refused:
            await one.prepare("vm-1", vlans(1), software())
        with pytest.raises(Refused) as refused_there:
            await other.prepare("vm-1", vlans(1), software())
        assert refused.value.data == refused_there.value.data
        assert refused.value.code == refused_there.value.code
        with pytest.raises(Refused) as refused:
            await one.call("info", x=1)
        assert (refused.value.kind, refused.value.code) == ("invalid-params", -32602)
        assert refused.value.data["problems"]


async def test_it_watches_over_a_connection_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "io.vdpad"
    async with serving(tmp_path, varlink=path) as datagrams:
        async with Client(path, GUARD) as client:
            await client.prepare("vm-1", vlans(1), software())
            async with contextlib.aclosing(client.watch()) as changes:
                assert (await anext(changes))["migration"] == "vm-1"
                await client.commit("vm-1")
                assert [(await anext(changes))["state"] for _ in range(2)] == [
                    "committing",
                    "restored",
                ]
            async with contextlib.aclosing(client.watch(["failed"])) as changes:
                first = asyncio.ensure_future(anext(changes))
                for number in itertools.count(2):
                    await client.prepare(f"vm-{number}", vlans(1), software())
                    if first.done():
                        break
                assert (await first)["state"] == "prepared"
        async with Client(datagrams) as client:
            with pytest.raises(CannotSend, match="other socket"):
                await anext(client.watch())


async def test_the_end_of_the_daemon_ends_a_watch(tmp_path: Path) -> None:
    path = tmp_path / "io.vdpad"
    async with serving(tmp_path, varlink=path):
        changes = Client(path).watch()
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.05)
    with pytest.raises(Refused, match="stopping"):
        await waiting


async def test_a_daemon_that_is_gone_is_not_reached_over_a_connection(tmp_path: Path) -> None:
    path = tmp_path / "io.vdpad"
    client = Client(path)
    async with serving(tmp_path, varlink=path):
        await client.__aenter__()
        await client.info()
    with pytest.raises(Unreachable):
        await client.info()
    async with serving(tmp_path, varlink=path):
        assert (await client.info())["name"] == "vdpad"
        await client.__aexit__(None, None, None)


@pytest.mark.parametrize(
    "reply",
    [
        b"x\0",
        b"[]\0",
        b'{"parameters":{}}\0',
        b'{"error":"some.other.Error"}\0',
        b'{"parameters":{"operation":[]}}\0',
        b"",
    ],
)
async def test_what_is_no_reply_on_a_connection_makes_it_unreachable(
    tmp_path: Path, reply: bytes
) -> None:
    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\0")
        writer.write(reply)
        writer.close()

    path = tmp_path / "io.vdpad"
    server = await asyncio.start_unix_server(pretend, path)
    async with Client(path, GUARD) as client:
        with pytest.raises(Unreachable):
            await client.status("vm-1") if b"operation" in reply else await client.cancel("vm-1")
    server.close()
    await server.wait_closed()


async def test_by_default_it_takes_the_connection_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vdpad.client.DEFAULT_SOCKET", tmp_path / "vdpad.sock")
    monkeypatch.setattr("vdpad.client.DEFAULT_VARLINK", tmp_path / "io.vdpad")
    for settings, limit in (({}, MAX_DATAGRAM), ({"varlink": tmp_path / "io.vdpad"}, 4 << 20)):
        async with serving(tmp_path, **settings), Client() as client:
            assert (await client.info())["limits"]["datagram_bytes"] == limit
    with pytest.raises(Unreachable, match=r"vdpad\.sock.*is vdpad running"):
        async with Client():
            pass


async def test_what_it_lends_stays_its_callers(client: Client) -> None:
    async with lending() as lender:
        before = open_descriptors()
        report = await client.restore("vm-1", STATE, lender.target, fds=lender.fds)
        assert is_report(report, "restored")
        await client.prepare("vm-2", vlans(7), lender.target)
        assert is_report(await client.commit("vm-2", fds=tuple(lender.fds)), "restored")
        assert open_descriptors() == before
        for fd in lender.fds:
            os.fstat(fd)
        assert lender.device.net.settings()["vlans"] == [*STATE["vlans"][:2], 7, 100, 101]


async def test_it_leaves_no_descriptor_of_its_own(path: Path) -> None:
    before = open_descriptors()
    for _ in range(3):
        async with Client(path) as client:
            await client.info()
    with pytest.raises(Unreachable):
        async with Client(path.with_name("none")):
            pass
    assert open_descriptors() == before


# --- what is refused ---


async def test_a_refusal_has_its_kind_code_and_data(client: Client) -> None:
    with pytest.raises(Refused, match="nothing was prepared") as caught:
        await client.status("vm-1")
    assert (caught.value.kind, caught.value.code) == ("no-such-migration", -32009)
    assert caught.value.data == {"kind": "no-such-migration"}
    assert isinstance(caught.value, VdpadError)


async def test_a_refusal_carries_its_problems(client: Client) -> None:
    with pytest.raises(Refused) as caught:
        await client.check({**STATE, "vlans": [5000]}, software())
    assert caught.value.kind == "invalid-params"
    (problem,) = caught.value.data["problems"]
    assert problem["path"] == "state.vlans.0"


async def test_a_failed_restore_carries_its_report(tmp_path: Path) -> None:
    async with serving(tmp_path, software=[faulty("err", 0)]) as path, Client(path) as client:
        with pytest.raises(Refused) as caught:
            await client.restore("vm-1", vlans(1), software())
        assert caught.value.kind == "rejected"
        assert is_report(caught.value.data["report"], "rejected")


@pytest.mark.parametrize("size", [MAX_DATAGRAM, 10 * MAX_DATAGRAM])
async def test_a_request_that_is_too_long_is_refused(client: Client, size: int) -> None:
    """As the daemon refuses it; the kernel takes no datagram that is much longer."""
    with pytest.raises(Refused, match=f"at most {MAX_DATAGRAM} bytes") as caught:
        await client.call("info", padding="x" * size)
    assert (caught.value.kind, caught.value.code) == ("invalid-request", -32600)
    assert (await client.info())["name"] == "vdpad"


# --- several at once ---


async def test_two_tasks_may_share_a_client(client: Client) -> None:
    names = [f"vm-{number}" for number in range(20)]
    asked = (client.prepare(name, vlans(1), software()) for name in names)
    prepared = await asyncio.gather(*asked)
    assert [each["migration"] for each in prepared] == names


async def test_a_refusal_in_one_task_is_not_anothers(client: Client) -> None:
    outcomes = await asyncio.gather(
        client.status("none"), client.info(), client.status("none"), return_exceptions=True
    )
    assert [type(each) for each in outcomes] == [Refused, dict, Refused]


async def test_a_call_that_is_cancelled_gives_up_the_reply_and_not_the_commit(
    path: Path, client: Client, caller: Caller
) -> None:
    async with held(path) as commit:
        waiting = asyncio.create_task(client.commit("vm-1"))
        await caller.result("info")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await client.info())["name"] == "vdpad"
        await commit.let_go()
        await until_state(caller, "vm-1", "restored")
    assert is_report(await client.commit("vm-1"), "restored")


# --- who is not there ---


async def test_where_nobody_listens_nobody_can_be_reached(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"none.*is vdpad running"):
        async with Client(tmp_path / "none"):
            pass


async def test_a_socket_that_was_left_behind_is_not_reached(tmp_path: Path) -> None:
    with listening(tmp_path):
        pass
    with pytest.raises(Unreachable, match="refused"):
        async with Client(tmp_path / "vdpad.sock"):
            pass


async def test_a_daemon_that_ends_meanwhile_is_not_reached(tmp_path: Path) -> None:
    async with serving(tmp_path) as path:
        client = await Client(path).__aenter__()
        await client.info()
    try:
        with pytest.raises(Unreachable):
            await client.info()
    finally:
        await client.__aexit__(None, None, None)


async def test_a_client_that_is_not_connected_says_so(path: Path) -> None:
    client = Client(path)
    with pytest.raises(Unreachable, match="async with"):
        await client.info()
    async with client:
        await client.info()
    with pytest.raises(Unreachable, match="async with"):
        await client.info()


async def test_a_daemon_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with listening(tmp_path) as silent:
        async with Client(tmp_path / "vdpad.sock", timeout=0.1) as client:
            with pytest.raises(Unreachable, match=r"no reply within 0\.1 s"):
                await client.info()
            assert silent.recv(MAX_DATAGRAM)


async def test_a_daemon_that_takes_nothing_is_given_up(tmp_path: Path) -> None:
    with listening(tmp_path) as full, Caller(tmp_path / "vdpad.sock") as caller:
        with contextlib.suppress(BlockingIOError):
            while True:
                caller.socket.sendto(b"", str(tmp_path / "vdpad.sock"))
        async with Client(tmp_path / "vdpad.sock", timeout=0.1) as client:
            with pytest.raises(Unreachable, match="no reply within"):
                await client.info()
        assert full.recv(MAX_DATAGRAM) == b""


# --- who is no vdpad ---


@contextmanager
def listening(folder: Path) -> Iterator[socket.socket]:
    """A socket where vdpad's would be."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as endpoint:
        endpoint.setblocking(False)
        endpoint.bind(str(folder / "vdpad.sock"))
        yield endpoint


Answer = Callable[[Json], list[bytes]]


@asynccontextmanager
async def pretending(folder: Path, *answers: Answer) -> AsyncIterator[Client]:
    """Answers each request with what these make of it, and gives a client of it."""
    loop = asyncio.get_running_loop()

    async def pretend(endpoint: socket.socket) -> None:
        for answer in answers:
            data, address = await loop.sock_recvfrom(endpoint, MAX_DATAGRAM)
            for reply in answer(json.loads(data)):
                await loop.sock_sendto(endpoint, reply, address)

    with listening(folder) as endpoint:
        task = asyncio.create_task(pretend(endpoint))
        try:
            async with Client(folder / "vdpad.sock", timeout=GUARD) as client:
                yield client
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def replying(**reply: Any) -> Answer:
    """A reply with the request's id, unless it gives another."""
    return lambda asked: [json.dumps({"jsonrpc": "2.0", "id": asked["id"], **reply}).encode()]


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff",
        b"{",
        b"[]",
        b"5",
        b"{}",
        b'{"jsonrpc":"2.0","id":null}',
        b"[" * 100_000,
        b'{"id":' + b"9" * 5000 + b"}",
    ],
    ids=lambda garbage: repr(garbage[:30]),
)
async def test_what_is_no_reply_makes_it_unreachable(tmp_path: Path, garbage: bytes) -> None:
    async with pretending(tmp_path, lambda _: [garbage]) as client:
        with pytest.raises(Unreachable, match="expected a JSON-RPC reply"):
            await client.info()


@pytest.mark.parametrize(
    "error",
    [
        None,
        "no",
        [],
        {},
        {"code": -32603},
        {"message": "no"},
        {"code": -32603, "message": "no", "data": None},
        {"code": -32603, "message": "no", "data": "more of it"},
        {"code": -32603, "message": "no", "data": ["more of it"]},
        {"code": -32603, "message": "no", "data": {"kind": None}},
        {"code": -32603, "message": "no"},
    ],
    ids=str,
)
async def test_an_error_of_any_shape_is_an_error_of_vdpads(tmp_path: Path, error: object) -> None:
    async with pretending(tmp_path, replying(error=error)) as client:
        with pytest.raises((Refused, Unreachable)) as caught:
            await client.info()
        assert str(caught.value)
        assert not isinstance(caught.value, Refused) or isinstance(caught.value.kind, str)


@pytest.mark.parametrize("result", [None, 5, "x", [], True])
async def test_a_result_of_the_wrong_type_makes_it_unreachable(
    tmp_path: Path, result: object
) -> None:
    async with pretending(tmp_path, replying(result=result)) as client:
        with pytest.raises(Unreachable, match="expected an object"):
            await client.info()


async def test_a_list_that_is_none_makes_it_unreachable(tmp_path: Path) -> None:
    async with pretending(tmp_path, replying(result={})) as client:
        with pytest.raises(Unreachable, match="expected a list"):
            await client.devices()


# --- late replies ---


Late = Callable[[Json], Json]
LATE: dict[str, Late] = {
    "a result": lambda asked: {"id": asked["id"], "result": {"late": True}},
    "an error": lambda asked: {"id": asked["id"], "error": {"code": 1, "message": "late"}},
    "an error without an id": lambda _: {"id": None, "error": {"code": 1, "message": "late"}},
}


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
async def test_a_late_reply_is_not_taken_for_anothers(tmp_path: Path, late: Late) -> None:
    loop = asyncio.get_running_loop()

    async def expect(endpoint: socket.socket) -> tuple[Json, Any]:
        data, address = await loop.sock_recvfrom(endpoint, MAX_DATAGRAM)
        return json.loads(data), address

    async def reply(endpoint: socket.socket, address: Any, what: Json) -> None:
        with contextlib.suppress(ConnectionRefusedError):  # it has another address by now
            await loop.sock_sendto(
                endpoint, json.dumps({"jsonrpc": "2.0", **what}).encode(), address
            )

    with listening(tmp_path) as endpoint:
        async with Client(tmp_path / "vdpad.sock", timeout=GUARD) as client:
            first_call = asyncio.create_task(client.info())
            first, first_address = await expect(endpoint)
            first_call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first_call
            second_call = asyncio.create_task(client.info())
            second, second_address = await expect(endpoint)
            await reply(endpoint, first_address, late(first))
            await reply(endpoint, second_address, {"id": second["id"], "result": {"mine": True}})
            assert await second_call == {"mine": True}


async def test_a_reply_to_somebody_else_is_not_taken(tmp_path: Path) -> None:
    def twice(asked: Json) -> list[bytes]:
        wrong = replying(id="somebody else's", result={"mine": False})
        return [*wrong(asked), *replying(result={"mine": True})(asked)]

    async with pretending(tmp_path, twice, twice) as client:
        assert await client.info() == {"mine": True}
        assert await client.info() == {"mine": True}


async def test_ids_differ_between_clients_and_requests(tmp_path: Path) -> None:
    seen: list[object] = []

    def note(asked: Json) -> list[bytes]:
        seen.append(asked["id"])
        return replying(result={})(asked)

    for _ in range(3):
        async with pretending(tmp_path, note, note) as client:
            await client.info()
            await client.info()
        (tmp_path / "vdpad.sock").unlink()
    assert len(set(map(str, seen))) == 6
