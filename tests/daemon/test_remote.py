"""vdpad.remote: the client for another host, against a real daemon and against a bad network."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests.daemon.support import STATE, Json, is_operation, is_report, slow, software, vlans
from tests.daemon.udp_support import KEY, MAX_TEXT, OLD_KEY, OTHER_KEY, serving_udp
from tests.support.descriptors import open_descriptors
from tests.support.waiting import GUARD
from vdpad import remote
from vdpad.client import Refused, Unreachable
from vdpad.methods import CannotSend
from vdpad.remote import RemoteClient
from vdpad.service.endpoints.udp import UdpEndpoint
from vdpad.wire.sealing import Reason


def client_of(address: tuple[str, int], timeout: float = GUARD, key: bytes = KEY) -> RemoteClient:
    return RemoteClient(address[0], [key], address[1], timeout)


@pytest.fixture
async def client(udp: UdpEndpoint) -> AsyncIterator[RemoteClient]:
    async with client_of(udp.address) as each:
        yield each


# --- what it asks ---


async def test_every_method_gives_what_the_daemon_says(client: RemoteClient) -> None:
    assert (await client.info())["name"] == "vdpad"
    assert (await client.check(STATE, software()))["compatible"]
    prepared = await client.prepare("vm-1", STATE, software())
    assert is_operation(prepared, "prepared")
    assert await client.status("vm-1") == prepared
    report = await client.commit("vm-1", deadline_ms=20_000)
    assert is_report(report, "restored")
    assert await client.restore("vm-1", STATE, software()) == report
    await client.prepare("vm-2", STATE, software())
    assert is_operation(await client.cancel("vm-2"), "cancelled")
    told = await client.operations()
    assert [each["migration"] for each in told["operations"]] == ["vm-2", "vm-1"]
    with pytest.raises(Refused) as caught:
        await client.release("none")
    assert caught.value.kind == "no-such-device"


async def test_it_asks_over_ipv6(tmp_path: Path) -> None:
    async with serving_udp(tmp_path, listen="[::1]:0") as udp, client_of(udp.address) as client:
        assert (await client.info())["name"] == "vdpad"


async def test_it_leaves_no_descriptor(udp: UdpEndpoint) -> None:
    before = open_descriptors()
    for _ in range(3):
        async with client_of(udp.address) as client:
            await client.info()
    assert open_descriptors() == before


async def test_two_tasks_may_share_a_client(client: RemoteClient) -> None:
    names = [f"vm-{number}" for number in range(20)]
    asked = (client.prepare(name, vlans(1), software()) for name in names)
    assert [each["migration"] for each in await asyncio.gather(*asked)] == names


async def test_what_does_not_go_between_hosts_is_refused_before_it_is_sent(
    udp: UdpEndpoint, client: RemoteClient
) -> None:
    with pytest.raises(CannotSend, match="descriptors"):
        await client.commit("vm-1", fds=(0, 1, 2))
    with pytest.raises(CannotSend, match=f"at most {MAX_TEXT} bytes"):
        await client.call("info", padding="x" * MAX_TEXT)
    assert (await client.info())["name"] == "vdpad"
    assert not udp.refused


# --- who is not there ---


async def test_where_nobody_listens_it_says_what_that_may_be() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        async with client_of(silent.getsockname(), timeout=0.3) as client:
            with pytest.raises(Unreachable, match=r"no reply within 0\.3 s: .*key or clock"):
                await client.info()
        address = silent.getsockname()
    async with client_of(address, timeout=0.3) as client:
        with pytest.raises(Unreachable, match=r"udp 127\.0\.0\.1 port \d+"):
            await client.info()


async def test_another_key_is_not_understood(udp: UdpEndpoint) -> None:
    async with client_of(udp.address, timeout=0.5, key=OTHER_KEY) as client:
        with pytest.raises(Unreachable, match="no reply"):
            await client.info()
    assert set(udp.refused) == {Reason.WRONG_KEY}


@pytest.mark.parametrize("host", ["no-such-host.invalid", "...", "a\0b", "x" * 300])
async def test_a_host_without_an_address_is_not_reached(host: str) -> None:
    with pytest.raises(Unreachable):
        async with RemoteClient(host, [KEY]):
            pass


async def test_a_client_that_is_not_connected_says_so(udp: UdpEndpoint) -> None:
    client = client_of(udp.address)
    with pytest.raises(Unreachable, match="async with"):
        await client.info()


# --- a bad network ---


Relay = Callable[[bytes], list[tuple[float, bytes]]]
"""What becomes of a datagram: after how many seconds it is passed on, and as what."""


def faithful(datagram: bytes) -> list[tuple[float, bytes]]:
    return [(0.0, datagram)]


@asynccontextmanager
async def relaying(
    to: tuple[str, int], asked: Relay = faithful, answered: Relay = faithful
) -> AsyncIterator[tuple[str, int]]:
    """A network between a client and a daemon; gives the address that the client asks at."""
    loop = asyncio.get_running_loop()
    near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    near.bind(("127.0.0.1", 0))
    far.connect(to)
    client: list[Any] = []

    async def requests() -> None:
        while True:
            datagram, address = await loop.sock_recvfrom(near, 65536)
            client[:] = [address]
            for delay, each in asked(datagram):
                loop.call_later(delay, far.send, each)

    async def replies() -> None:
        while True:
            for delay, each in answered(await loop.sock_recv(far, 65536)):
                loop.call_later(delay, near.sendto, each, client[0])

    near.setblocking(False)
    far.setblocking(False)
    tasks = [asyncio.create_task(each) for each in (requests(), replies())]
    try:
        yield near.getsockname()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.1)  # what is still on its way
        near.close()
        far.close()


def losing_first(count: int) -> Relay:
    lost: list[bytes] = []

    def relay(datagram: bytes) -> list[tuple[float, bytes]]:
        if len(lost) < count:
            lost.append(datagram)
            return []
        return [(0.0, datagram)]

    return relay


async def test_a_lost_request_is_sent_again_under_another_seal(udp: UdpEndpoint) -> None:
    seen: list[bytes] = []
    lose = losing_first(2)

    def relay(datagram: bytes) -> list[tuple[float, bytes]]:
        seen.append(datagram)
        return lose(datagram)

    async with relaying(udp.address, asked=relay) as address, client_of(address) as client:
        assert is_report(await client.restore("vm-1", STATE, software()), "restored")
    assert len(set(seen)) == 3
    assert len({Fernet(KEY).decrypt(each) for each in seen}) == 1
    assert not udp.refused


async def test_a_lost_reply_is_asked_for_again(udp: UdpEndpoint) -> None:
    lose = losing_first(2)
    async with relaying(udp.address, answered=lose) as address, client_of(address) as client:
        assert is_report(await client.restore("vm-1", STATE, software()), "restored")
    assert not udp.refused


async def test_a_commit_that_takes_longer_than_many_repetitions_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More repetitions than the daemon lets wait for one commit."""
    async with serving_udp(tmp_path, software=[slow(0.4)]) as udp:
        monkeypatch.setattr(remote, "_MAX_WAIT", 0.2)
        async with client_of(udp.address) as client:
            report = await client.restore("vm-1", vlans([1, 9]), software())
    assert is_report(report, "restored")


async def test_what_comes_twice_and_late_is_not_anothers(udp: UdpEndpoint) -> None:
    chance = random.Random(3)

    def relay(datagram: bytes) -> list[tuple[float, bytes]]:
        return [(chance.uniform(0, 0.1), datagram) for _ in range(3)]

    async with relaying(udp.address, relay, relay) as address, client_of(address) as client:
        for number in range(20):
            name = f"vm-{number}"
            assert (await client.prepare(name, vlans(1), software()))["migration"] == name
    assert set(udp.refused) == {Reason.REPLAYED}


async def test_what_is_no_reply_of_the_daemons_is_skipped(udp: UdpEndpoint) -> None:
    seal, wrong = Fernet(KEY).encrypt, Fernet(OTHER_KEY).encrypt
    asked: list[Json] = []

    def note(datagram: bytes) -> list[tuple[float, bytes]]:
        asked.append(json.loads(Fernet(KEY).decrypt(datagram)))
        return [(0.0, datagram)]

    def relay(datagram: bytes) -> list[tuple[float, bytes]]:
        request_id = asked[-1]["id"]
        lie = json.dumps({"jsonrpc": "2.0", "id": request_id, "result": {"lie": True}}).encode()
        junk = [
            *(
                b"",
                b"x" * 60_000,
                datagram[:-4],
                lie,
                wrong(lie),
                seal(b""),
                seal(b"{"),
                seal(b"5"),
            ),
            seal(json.dumps(asked[-1]).encode()),
            seal(b"[" * 40_000),
            seal(b'{"id":"another\'s","result":{}}'),
            seal(b'{"id":null,"error":{"code":1,"message":"x","data":{}}}'),
        ]
        return [(0.0, each) for each in [*junk, datagram]]

    async with relaying(udp.address, note, relay) as address, client_of(address) as client:
        for _ in range(3):
            assert (await client.info())["name"] == "vdpad"


async def test_a_reply_under_any_of_the_keys_is_taken(udp: UdpEndpoint) -> None:
    async with RemoteClient("127.0.0.1", [OLD_KEY, KEY], udp.address[1], GUARD) as client:
        assert (await client.info())["name"] == "vdpad"


async def test_a_flood_of_what_is_not_its_own_does_not_keep_it_from_giving_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    came = 0

    async def sock_recvfrom(*_: object) -> tuple[bytes, object]:
        """There is always another one, at once."""
        nonlocal came
        came += 1
        assert came < 1_000_000, "it has no end"
        return b"x", None

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_recvfrom", sock_recvfrom)
    async with client_of(("127.0.0.1", 9), timeout=0.3) as client:
        with pytest.raises(Unreachable, match="no reply"):
            await client.info()
    assert came > 100


async def test_its_own_request_sent_back_is_no_reply() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mirror:
        mirror.bind(("127.0.0.1", 0))
        mirror.setblocking(False)
        async with client_of(mirror.getsockname(), timeout=0.5) as client:
            asking = asyncio.create_task(client.info())
            loop = asyncio.get_running_loop()
            datagram, address = await loop.sock_recvfrom(mirror, 65536)
            mirror.sendto(datagram, address)
            with pytest.raises(Unreachable, match="no reply"):
                await asking
