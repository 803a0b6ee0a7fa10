"""What is taken on at once has an end: by number, by bytes, by memory. Past it is `overloaded`."""

import asyncio
import os
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.daemon.lending import Lender, held, lending
from tests.daemon.support import (
    MAX_DATAGRAM,
    Caller,
    Json,
    is_error,
    request,
    serving,
    until_state,
    vlans,
)
from tests.support.daemon import running
from tests.support.descriptors import open_descriptors
from tests.support.lent import CONFIG, ring_of
from tests.support.marks import in_bulk
from tests.support.waiting import GUARD, until
from vdpad.service.endpoints import endpoint as endpoints
from vdpad.service.endpoints import unix
from vdpad.service.endpoints.unix import UnixEndpoint
from vdpad.service.endpoints.unread import Unread
from vdpad.service.envelope import OVERLOADED
from vdpad.virtio.rings import Region
from vdpad.virtio.split_ring import lay_out
from vdpad.wire.datagrams import Peer

FEATURES = ["CTRL_VQ", "CTRL_VLAN", "MQ", "NOTF_COAL", "VQ_NOTF_COAL"]
QUEUES = 4200

# About the largest that a request can hold: 8296 commands in 175 KiB.
LARGEST: Json = {
    "version": 1,
    "features": FEATURES,
    "vlans": [[0, 4095]],
    "coalescing": {
        "queues": {str(at): {"max_packets": 300, "max_usecs": 300} for at in range(QUEUES)}
    },
}


# --- datagrams ---


class Held:
    """Answers nothing until it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked = 0

    async def __call__(self, data: bytes, peer: Peer) -> bytes:
        self.asked += 1
        await self.go.wait()
        return b'{"jsonrpc":"2.0","id":%d,"result":0}' % len(data)


async def listening(stack: AsyncExitStack, folder: Path, answer: Held) -> UnixEndpoint:
    endpoint = UnixEndpoint(answer, OVERLOADED)
    await endpoint.listen(folder / "vdpad.sock", 0o600, None)
    stack.push_async_callback(endpoint.close)
    stack.callback(answer.go.set)
    return endpoint


async def test_so_many_datagrams_are_answered_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "_ANSWERED_AT_ONCE", 3)
    answer = Held()
    async with AsyncExitStack() as stack:
        endpoint = await listening(stack, tmp_path, answer)
        caller = stack.enter_context(Caller(tmp_path / "vdpad.sock"))
        for size in (1, 2, 3, 4, 5):
            await caller.send(b"x" * size)
        for _ in range(2):
            reply = await caller.receive()
            assert reply["id"] is None
            assert is_error(reply["error"], "overloaded")
        await until(lambda: answer.asked == 3)
        assert (answer.asked, endpoint.datagrams_refused) == (3, 2)
        answer.go.set()
        assert sorted([(await caller.receive())["id"] for _ in range(3)]) == [1, 2, 3]
        await caller.send(b"x" * 6)
        assert (await caller.receive())["id"] == 6


async def test_datagrams_of_so_many_bytes_are_answered_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "_BYTES_AT_ONCE", 1000)
    answer = Held()
    async with AsyncExitStack() as stack:
        endpoint = await listening(stack, tmp_path, answer)
        caller = stack.enter_context(Caller(tmp_path / "vdpad.sock"))
        before = open_descriptors()
        # 900, not 101 on top of it, but 100, and then not one byte.
        for size, fds in ((900, []), (101, [0]), (100, []), (1, [0, 0])):
            await caller.send(b"x" * size, fds)
        for _ in range(2):
            assert is_error((await caller.receive())["error"], "overloaded")
        assert open_descriptors() == before
        await until(lambda: answer.asked == 2)
        assert (answer.asked, endpoint.datagrams_refused) == (2, 2)
        answer.go.set()
        assert sorted([(await caller.receive())["id"] for _ in range(2)]) == [100, 900]
        # All of it is free again.
        await caller.send(b"x" * 1000)
        assert (await caller.receive())["id"] == 1000


def test_a_datagram_of_any_size_has_room_where_nothing_else_is_answered() -> None:
    assert 8 * MAX_DATAGRAM < endpoints._BYTES_AT_ONCE
    assert endpoints._ANSWERED_AT_ONCE > 256


async def test_so_many_datagrams_wait_to_be_looked_at(tmp_path: Path) -> None:
    """More come in one turn of the loop than there is room for, behind one that is answered."""
    answer = Held()
    async with AsyncExitStack() as stack:
        endpoint = await listening(stack, tmp_path, answer)
        caller = stack.enter_context(Caller(tmp_path / "vdpad.sock", str(tmp_path / "caller")))
        protocol = endpoint._protocol
        assert protocol is not None
        for _ in range(1 + 70):
            protocol.datagram_received(b"x", Peer(str(tmp_path / "caller"), uid=os.getuid()))
        for _ in range(6):
            assert is_error((await caller.receive())["error"], "overloaded")
        assert endpoint.datagrams_refused == 6
        await until(lambda: answer.asked == 1 + 64)


async def test_so_many_large_replies_wait_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is more is dropped at once, as `status` tells it again."""

    async def answer(data: bytes, peer: Peer) -> bytes:
        return bytes(100_000)

    full = [True]
    monkeypatch.setattr(Unread, "is_calm", lambda *_: not full[0])
    monkeypatch.setattr(Unread, "_has_room", lambda *_: not full[0])
    monkeypatch.setattr(unix, "_REPLY_WAITS", GUARD)
    endpoint = UnixEndpoint(answer, OVERLOADED)
    await endpoint.listen(tmp_path / "vdpad.sock", 0o600, None)
    with Caller(tmp_path / "vdpad.sock") as caller:
        for _ in range(40):
            await caller.send(b"x")
        await until(lambda: endpoint.replies_dropped == 8)
        full[0] = False
        await endpoint.close()
        assert caller.socket.recv(200_000) == bytes(100_000)


# --- operations ---


def narrow() -> Json:
    """A lent target on whose ring each command goes alone, which takes the most memory."""
    target = lay_out(2, Region(1 << 20, 1 << 18))
    return {
        "kind": "lent",
        "features": [*FEATURES, "VERSION_1"],
        "config": {**CONFIG, "max_virtqueue_pairs": QUEUES},
        "ring": ring_of(target),
    }


async def test_operations_past_the_memory_are_overloaded_until_some_end(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"memory_mib": 8}) as path:
        with Caller(path) as caller:
            wish = {"state": vlans([0, 4095]), "target": narrow()}
            prepared = 0
            while "result" in (
                reply := await caller.call("prepare", migration=f"{prepared}", **wish)
            ):
                prepared += 1
            assert is_error(reply["error"], "overloaded", "migration")
            assert "limits.memory_mib" in reply["error"]["message"]
            assert reply["error"]["data"]["migration"] == "0"
            # Each takes 1.7 MiB, and a little is added in reckoning.
            assert 3 <= prepared <= 5
            # What is known already needs no more.
            assert (await caller.result("prepare", migration="0", **wish))["state"] == "prepared"
            await caller.result("cancel", migration="0")
            assert (await caller.result("prepare", migration="x", **wish))["state"] == "prepared"


@pytest.mark.parametrize(("memory_mib", "asked"), [(48, 24), *in_bulk([(192, 90)])])
async def test_hostile_states_fill_no_memory(tmp_path: Path, memory_mib: int, asked: int) -> None:
    """Prepared, each takes 4 MiB, and so many would be twice what there may be."""
    async with running(tmp_path, limits={"memory_mib": memory_mib}) as daemon:
        with Caller(daemon.socket) as caller:
            caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 3 * MAX_DATAGRAM)
            await caller.result("info")
            before = daemon.resident_kib()
            ask = request("prepare", 1, migration="NAME", state=LARGEST, target=narrow())
            overloaded = 0
            for number in range(asked):
                await caller.send(ask.replace(b"NAME", b"vm-%d" % number))
                overloaded += "error" in (reply := await caller.receive())
            assert is_error(reply["error"], "overloaded", "migration")
            grown = daemon.resident_kib() - before
    assert asked / 3 <= overloaded < asked * 2 / 3
    assert grown < (memory_mib * 9 / 8 + 24) * 1024


async def test_hostile_states_that_wait_for_their_commits_fill_no_memory(tmp_path: Path) -> None:
    """120 of them would be 500 MiB, if all were kept as they are while they wait."""
    async with running(tmp_path) as daemon, AsyncExitStack() as stack:
        with Caller(daemon.socket) as caller, Caller(daemon.socket) as other:
            caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 3 * MAX_DATAGRAM)
            await other.result("info")
            before = daemon.resident_kib()
            lenders = [
                await stack.enter_async_context(lending(FEATURES, start=False)) for _ in range(15)
            ]
            asked = [
                request("restore", 1, **largest_wish(f"vm-{at}", lender))
                for at, lender in enumerate(lenders)
            ]
            replies: list[Json] = []
            for number in range(120):
                at = number % len(lenders)
                await caller.send(asked[at], lenders[at].fds)
                while (reply := caller.received()) is not None:
                    replies.append(reply)
            # No device has begun: whatever else is answered now is turned away.
            while len(replies) <= 60:
                replies.append(await caller.receive())
            assert all(is_error(each["error"], "overloaded") for each in replies)
            assert (await other.result("info"))["name"] == "vdpad"
            grown = daemon.resident_kib() - before
            for lender in lenders:
                lender.device.start()
            for at in range(len(lenders)):
                await until_state(other, f"vm-{at}", "failed")
    assert grown < 150 * 1024


def largest_wish(migration: str, lender: Lender) -> Json:
    """One that its device, which has fewer queues than is said, will refuse in part."""
    config = {**CONFIG, "max_virtqueue_pairs": QUEUES}
    target = {**lender.target, "config": config}
    return {
        "migration": migration,
        "state": LARGEST,
        "target": target,
        "deadline_ms": 600_000,
    }


# --- those that wait for one commit ---


async def test_so_many_requests_wait_for_one_commit(tmp_path: Path) -> None:
    async with serving(tmp_path) as path, held(path) as commit:
        with Caller(path) as caller, Caller(path) as other:
            # The one that began it waits too.
            for number in range(8):
                await caller.send(request("commit", number, migration="vm-1"))
            assert is_error((await caller.receive())["error"], "overloaded")
            await other.result("info")
            assert caller.received() is None
            report = await commit.let_go()
            replies = [await caller.receive() for _ in range(7)]
            assert all(reply["result"] == report for reply in replies)
            await until_state(other, "vm-1", "restored")
