"""The daemon asked from another host: over UDP, sealed, by a client that knows only docs/api.md."""

import asyncio
import itertools
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from structlog.testing import capture_logs

from tests.daemon.api.mutations import datagrams
from tests.daemon.lending import lending
from tests.daemon.support import (
    STATE,
    Caller,
    Json,
    is_error,
    is_operation,
    is_report,
    request,
    serving,
    slow,
    software,
    vlans,
)
from tests.daemon.udp_support import (
    KEY,
    MAX_TEXT,
    OLD_KEY,
    OTHER_KEY,
    Remote,
    key_file,
    known_for_long,
    serving_udp,
)
from tests.support.daemon import daemon, running
from tests.support.descriptors import open_descriptors
from tests.support.waiting import until, wait_until
from vdpad.daemon.api import api
from vdpad.daemon.configuration import BadSettings, load_settings
from vdpad.errors import VdpadError
from vdpad.service.endpoints import endpoint as endpoints
from vdpad.service.endpoints.binding import CannotListen
from vdpad.service.endpoints.udp import UdpEndpoint
from vdpad.service.envelope import OVERLOADED
from vdpad.wire import admitted, descriptors
from vdpad.wire.datagrams import Peer
from vdpad.wire.sealing import Reason


@pytest.fixture
async def remote(udp: UdpEndpoint) -> AsyncIterator[Remote]:
    with Remote(udp.address) as each:
        yield each


# --- what it answers ---


async def test_every_method_that_takes_no_descriptors_is_as_on_the_unix_socket(
    remote: Remote, tmp_path: Path
) -> None:
    assert (await remote.result("info"))["name"] == "vdpad"
    asked = {"state": STATE, "target": software()}
    assert (await remote.result("check", **asked))["compatible"]
    prepared = await remote.result("prepare", migration="vm-1", **asked)
    assert is_operation(prepared, "prepared")
    report = await remote.result("commit", migration="vm-1")
    assert is_report(report, "restored")
    assert await remote.result("restore", migration="vm-1", **asked) == report
    await remote.result("prepare", migration="vm-2", **asked)
    assert is_operation(await remote.result("cancel", migration="vm-2"), "cancelled")
    assert is_error(await remote.error("release", device="none"), "no-such-device")
    assert is_error(await remote.error("nothing"), "method-not-found")
    with Caller(tmp_path / "vdpad.sock") as caller:
        assert await caller.result("status") == await remote.result("status")


async def test_info_tells_what_a_sealed_datagram_takes(remote: Remote, tmp_path: Path) -> None:
    assert (await remote.result("info"))["limits"]["datagram_bytes"] == MAX_TEXT
    with Caller(tmp_path / "vdpad.sock") as caller:
        assert (await caller.result("info"))["limits"]["datagram_bytes"] == 200 * 1024


async def test_a_notification_is_carried_out_and_not_answered(remote: Remote) -> None:
    remote.send(request("prepare", migration="vm-1", state=vlans(1), target=software()))
    assert (await remote.result("status"))["total"] == 1


async def test_descriptors_that_are_stuck_stop_no_other_host(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "_MAX_WAITING", 0)
    for _ in range(3):
        assert (await remote.result("info"))["name"] == "vdpad"


@pytest.mark.parametrize("listen", ["[::1]:0", "[::]:0", "0.0.0.0:0", "some-host:0"])
async def test_both_families_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listen: str
) -> None:
    look_up = socket.getaddrinfo
    hosts = {"some-host": "127.0.0.1"}
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest: look_up(hosts.get(host, host), *rest)
    )
    async with serving_udp(tmp_path, listen=listen) as udp:
        host, port = udp.address
        reached = {"::": ["::1", "127.0.0.1"], "0.0.0.0": ["127.0.0.1"]}.get(host, [host])
        for each in reached:
            with Remote((each, port)) as remote:
                assert (await remote.result("info"))["name"] == "vdpad"


async def test_every_key_is_understood_and_the_first_one_answers(udp: UdpEndpoint) -> None:
    with Remote(udp.address, OLD_KEY) as remote:
        remote.send(request("info", 1))
        reply = await remote.receive_token()
        assert json.loads(Fernet(KEY).decrypt(reply))["id"] == 1


async def test_keys_can_be_changed_while_running(udp: UdpEndpoint, remote: Remote) -> None:
    token = remote.send(request("info", 1))
    await remote.receive()
    udp.use_keys([OTHER_KEY, KEY])
    remote.socket.send(token)
    remote.send(request("info", 2))
    reply = await remote.receive_token()
    assert json.loads(Fernet(OTHER_KEY).decrypt(reply))["id"] == 2
    udp.use_keys([OTHER_KEY])
    remote.send(request("info", 3))
    await until(lambda: udp.refused == {Reason.REPLAYED: 1, Reason.WRONG_KEY: 1})


async def test_mutated_datagrams_under_a_seal_are_answered_as_on_the_unix_socket(
    tmp_path: Path,
) -> None:
    limits = {"operations_at_once": 100, "operations_kept": 150}
    async with serving_udp(tmp_path, limits=limits) as udp:
        with Remote(udp.address) as remote:
            kinds = set()
            for text in itertools.islice(datagrams(seed=11), 1000):
                remote.send(text)
                remote.send(request("info", "end"))
                while (reply := await remote.receive())["id"] != "end":
                    kinds.add(reply["error"]["data"]["kind"] if "error" in reply else "result")
    assert {"result", "parse-error", "invalid-request", "invalid-params"} <= kinds
    assert "internal" not in kinds
    assert set(udp.refused) <= {Reason.REFLECTED}


# --- who may ask for what ---


async def test_a_key_is_a_right_of_its_own_beside_the_uids(tmp_path: Path) -> None:
    async with serving_udp(tmp_path, allowed_uids=[4_000_000]) as udp:
        with Remote(udp.address) as remote, Caller(tmp_path / "vdpad.sock") as caller:
            assert is_error(await caller.error("info"), "not-allowed")
            assert (await remote.result("info"))["name"] == "vdpad"


async def test_a_lent_ring_needs_descriptors_which_only_the_unix_socket_has(
    remote: Remote, tmp_path: Path
) -> None:
    async with lending() as lender:
        asked = {"migration": "vm-1", "state": STATE, "target": lender.target}
        assert is_operation(await remote.result("prepare", **asked), "prepared")
        for method, params in (("commit", {"migration": "vm-1"}), ("restore", asked)):
            error = await remote.error(method, **params)
            assert is_error(error, "bad-lend", "reason")
            assert "descriptors" in error["message"]
        with Caller(tmp_path / "vdpad.sock") as caller:
            report = await caller.result("commit", lender.fds, migration="vm-1")
        assert is_report(report, "restored")


# --- what gets no answer ---


async def refused(udp: UdpEndpoint, remote: Remote, *tokens: bytes) -> dict[Reason, int]:
    """Why these were not let in. No answer to any of them came, and others still get theirs."""
    before = udp.refused
    for token in tokens:
        remote.socket.send(token)
    assert (await remote.result("info"))["name"] == "vdpad"
    assert remote.nothing_came()
    return udp.refused - before


async def test_what_is_not_sealed_properly_gets_no_answer_and_is_counted(
    udp: UdpEndpoint, remote: Remote
) -> None:
    info = request("info", 1)
    good = remote.seal(info)
    now = int(time.time())
    cases: dict[Reason, list[bytes]] = {
        Reason.FOREIGN: [b"", b"\0", info, b"x" * 65484, b"\xff" * 500, good[:6]],
        Reason.TRUNCATED: [good[:-1], good[:-32], good[:100]],
        Reason.WRONG_KEY: [Fernet(OTHER_KEY).encrypt(info), good[:-48] + good[-48:].swapcase()],
        Reason.EXPIRED: [Fernet(KEY).encrypt_at_time(info, now - 40)],
        Reason.EARLY: [Fernet(KEY).encrypt_at_time(info, now + 40)],
        Reason.TOO_LONG: [b"gAAAAABr" + b"A" * 65480, b"x" * 65507],
    }
    for reason, tokens in cases.items():
        assert await refused(udp, remote, *tokens) == {reason: len(tokens)}
    remote.socket.send(good)
    assert "result" in await remote.receive()
    assert await refused(udp, remote, good, good, good) == {Reason.REPLAYED: 3}


async def test_a_reply_is_no_request(udp: UdpEndpoint, remote: Remote) -> None:
    """Played back to the daemon, for the client to get an error instead of what was lost."""
    replies = []
    for text in (request("info", 1), request("nothing", 2), b"{", request("status", 3)):
        remote.send(text)
        replies.append(await remote.receive_token())
    assert await refused(udp, remote, *replies) == {Reason.REFLECTED: 4}
    # And a second time it is a replay as any.
    assert await refused(udp, remote, *replies) == {Reason.REPLAYED: 4}


async def test_from_another_address_a_replay_is_one_too(udp: UdpEndpoint, remote: Remote) -> None:
    token = remote.send(request("info", 1))
    await remote.receive()
    with Remote(udp.address) as other:
        assert await refused(udp, other, token) == {Reason.REPLAYED: 1}


async def test_the_next_daemon_knows_what_was_let_in(tmp_path: Path) -> None:
    """What was sealed in the second of its start too, and ahead of its clock; and nothing else."""
    records = {"directory": known_for_long(tmp_path / "records")}
    came: list[bytes] = []
    for _ in range(3):
        async with serving_udp(tmp_path, records=records) as udp:
            with Remote(udp.address) as remote:
                for token in came:
                    assert await refused(udp, remote, token) == {Reason.REPLAYED: 1}
                for age in (-8, -1, 0, 20):
                    came.append(sealed_at(time.time() - age))
                    remote.socket.send(came[-1])
                    assert "result" in await remote.receive()


def sealed_at(seconds: float) -> bytes:
    """A request that was sealed at this time."""
    return Fernet(KEY).encrypt_at_time(request("info", 1), int(seconds))


async def test_a_daemon_that_was_killed_leaves_what_it_let_in(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    settings: Json = {
        "udp": {"listen": f"127.0.0.1:{address[1]}", "key_file": str(key_file(tmp_path))},
        "records": {"directory": known_for_long(tmp_path / "records")},
    }
    token = sealed_at(time.time() + 5)
    for number in (1, 2):
        async with running(tmp_path, **settings) as daemon:
            await until(lambda: daemon.log().count('"udp 127.0.0.1 port') == number)  # noqa: B023
            with Remote(address) as remote:
                remote.socket.send(token)
                if number == 1:
                    assert "result" in await remote.receive()
                assert (await remote.result("info"))["name"] == "vdpad"
                assert remote.nothing_came()
            daemon.process.kill()
            await asyncio.to_thread(daemon.process.wait)


async def test_where_nothing_is_remembered_nothing_from_before_is_let_in(tmp_path: Path) -> None:
    """Without records, or in a boot's first daemon: what an earlier one may have let in."""
    for records in ({}, {"directory": tmp_path / "records"}):
        async with serving_udp(tmp_path, records=records) as udp:
            with Remote(udp.address) as remote:
                for ahead in (-1, 0, 5, 9):
                    remote.socket.send(sealed_at(time.time() + ahead))
                await until(lambda: udp.refused == {Reason.EXPIRED: 4})
                assert remote.nothing_came()


def remove(memory: Path) -> None:
    memory.unlink()


def spoil(memory: Path) -> None:
    memory.write_bytes(b"x" * memory.stat().st_size)


def cut(memory: Path) -> None:
    os.truncate(memory, 100)


def put_a_fifo_there(memory: Path) -> None:
    memory.unlink()
    os.mkfifo(memory)


def put_a_folder_there(memory: Path) -> None:
    memory.unlink()
    memory.mkdir()


@pytest.mark.parametrize(
    ("change", "is_told"),
    [
        (remove, False),
        (cut, False),
        (spoil, True),
        (put_a_fifo_there, True),
        (put_a_folder_there, True),
    ],
)
async def test_what_is_wrong_with_the_memory_lets_nothing_in_twice(
    tmp_path: Path, change: Callable[[Path], None], is_told: bool
) -> None:
    directory = known_for_long(tmp_path / "records")
    records = {"directory": directory}
    token = sealed_at(time.time() + 5)
    async with serving_udp(tmp_path, records=records) as udp:
        with Remote(udp.address) as remote:
            remote.socket.send(token)
            assert "result" in await remote.receive()
    change(directory / "requests-from-other-hosts")
    with capture_logs() as events:
        async with serving_udp(tmp_path, records=records) as udp:
            with Remote(udp.address) as remote:
                remote.socket.send(token)
                await until(lambda: udp.refused == {Reason.EXPIRED: 1})
    told = [each["record"] for each in events if each["event"] == "record-lost"]
    assert told == ["requests-from-other-hosts"] * is_told


async def test_the_log_tells_of_refusals_now_and_then(udp: UdpEndpoint, remote: Remote) -> None:
    with capture_logs() as events:
        await refused(udp, remote, *[b"x"] * 200)
        await udp.close()
    first, last = (each for each in events if each["event"] == "datagrams-refused")
    assert (first["log_level"], first["address"]) == ("warning", "127.0.0.1")
    assert (first["datagrams"], first["reasons"]) == (1, ("foreign 1",))
    assert (last["datagrams"], last["reasons"]) == (199, ("foreign 199",))


async def test_ten_thousand_that_are_refused_leave_nothing_behind(
    udp: UdpEndpoint, remote: Remote
) -> None:
    await remote.result("info")
    tasks, descriptors = len(asyncio.all_tasks()), open_descriptors()
    wrong = Fernet(OTHER_KEY).encrypt(request("info", 1))
    for _ in range(500):
        await refused(udp, remote, *[wrong] * 20)
    await until(lambda: len(asyncio.all_tasks()) == tasks)
    assert open_descriptors() == descriptors
    assert udp.refused == {Reason.WRONG_KEY: 10_000}


async def test_refusing_costs_a_fraction_of_answering(udp: UdpEndpoint, remote: Remote) -> None:
    """Both through the whole endpoint; the sender's own work is done beforehand or not counted."""
    await remote.result("restore", migration="vm-1", state=STATE, target=software())
    asked = request("restore", 1, migration="vm-1", state=STATE, target=software())
    wrong = Fernet(OTHER_KEY).encrypt(asked)
    seconds = {"refused": 0.0, "answered": 0.0}
    for _ in range(40):
        began = time.process_time()
        for _ in range(10):
            remote.socket.send(wrong)
        total = sum(udp.refused.values()) + 10
        await until_counted(udp, total)
        seconds["refused"] += time.process_time() - began
        tokens = [remote.seal(asked) for _ in range(10)]
        began = time.process_time()
        for token in tokens:
            remote.socket.send(token)
        for _ in range(10):
            await remote.receive_token()
        seconds["answered"] += time.process_time() - began
    assert seconds["refused"] < 0.5 * seconds["answered"], seconds


async def until_counted(udp: UdpEndpoint, total: int) -> None:
    await until(lambda: sum(udp.refused.values()) >= total, every=0)


# --- what comes again ---


async def test_a_request_that_comes_again_while_it_is_answered_is_answered_once(
    tmp_path: Path,
) -> None:
    async with serving_udp(tmp_path, software=[slow(0.3)]) as udp:
        with Remote(udp.address) as remote:
            asked = request("restore", "a", migration="vm-1", state=vlans(1), target=software())
            for _ in range(30):
                remote.send(asked)
            reply = await remote.receive()
            assert is_report(reply["result"], "restored")
            await remote.result("info")
            assert remote.nothing_came()
            # Its reply was lost: the record answers.
            remote.send(asked)
            assert await remote.receive() == reply


async def test_the_same_from_two_senders_is_answered_to_both(tmp_path: Path) -> None:
    async with serving_udp(tmp_path, software=[slow(0.3)]) as udp:
        with Remote(udp.address) as one, Remote(udp.address) as other:
            for each in (one, other):
                each.send(request("restore", 1, migration="v", state=vlans(1), target=software()))
            assert await one.receive() == await other.receive()


# --- how much at once ---


async def test_a_status_of_many_is_as_many_as_fit(remote: Remote) -> None:
    for number in range(150):
        await remote.result(
            "prepare", migration=f"{number:0>128}", state=vlans(1), target=software()
        )
    told = await remote.result("status", limit=1000)
    assert told["total"] == 150
    assert 50 < len(told["operations"]) < 150
    assert told["operations"][0]["migration"].endswith("149")


async def endpoint_of(stack: AsyncExitStack, answer: endpoints.Answer) -> UdpEndpoint:
    """An endpoint whose requests are answered by this."""
    memory = memoryview(bytearray(admitted.size_of(100)))
    endpoint = UdpEndpoint(answer, OVERLOADED, [KEY], 30, admitted.begin(memory, 0))
    await endpoint.listen("127.0.0.1", 0)
    stack.push_async_callback(endpoint.close)
    return endpoint


async def test_a_reply_too_long_to_be_sealed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = len(b'{"jsonrpc":"2.0","id":7,"result":""}')
    lengths = [MAX_TEXT, MAX_TEXT + 1]

    def plain(_method: str, _result: object) -> str:
        return "x" * (lengths.pop(0) - empty)

    monkeypatch.setattr(api, "plain", plain)
    async with serving_udp(tmp_path) as endpoint:
        with Remote(endpoint.address) as remote:
            remote.send(request("info", 7))
            assert "result" in await remote.receive()
            remote.send(request("info", 7))
            reply = await remote.receive()
            assert reply["id"] == 7
            assert is_error(reply["error"], "internal")
            assert f"{MAX_TEXT + 1} bytes" in reply["error"]["message"]


async def test_past_the_most_that_is_answered_at_once_the_answer_is_overloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoints, "_ANSWERED_AT_ONCE", 5)
    go = asyncio.Event()

    async def answer(data: bytes, peer: Peer) -> bytes:
        await go.wait()
        return data.replace(b"method", b"result")

    async with AsyncExitStack() as stack:
        endpoint = await endpoint_of(stack, answer)
        with Remote(endpoint.address) as remote:
            for number in range(8):
                remote.send(b'{"jsonrpc":"2.0","id":%d,"method":"info"}' % number)
            for _ in range(3):
                reply = await remote.receive()
                assert reply["id"] is None
                assert is_error(reply["error"], "overloaded")
            go.set()
            ids = [(await remote.receive())["id"] for _ in range(5)]
            assert sorted(ids) == [0, 1, 2, 3, 4]


async def test_a_reply_that_the_network_does_not_take_is_counted(
    udp: UdpEndpoint, remote: Remote
) -> None:
    with pytest.MonkeyPatch.context() as patch:

        def sendto(*_: object) -> int:
            raise OSError(101, "Network is unreachable")

        patch.setattr(socket.socket, "sendto", sendto, raising=False)
        remote.send(request("info", 1))
        await until(lambda: udp.replies_dropped == 1)
    assert (await remote.result("info"))["name"] == "vdpad"


# --- how it is configured ---


@pytest.mark.parametrize("configured", [False, True])
def test_without_settings_there_is_no_udp_and_none_of_its_weight(
    tmp_path: Path, configured: bool
) -> None:
    udp = {"listen": "127.0.0.1:0", "key_file": str(key_file(tmp_path))} if configured else {}
    with daemon(tmp_path, udp=udp) as running:
        assert running.process.poll() is None
        wait_until(running.log)
        assert bool(running.mappings("cryptography")) is configured
    assert ('"udp 127.0.0.1 port' in running.log()) is configured


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('listen = "127.0.0.1:7117"', "udp.key_file: .*vdpactl keygen"),
        ('listen = "127.0.0.1"\nkey_file = "k"', "udp.listen: .*expected host:port"),
        ('listen = "::1"\nkey_file = "k"', "udp.listen: .*brackets|udp.listen: .*IPv6"),
        ('listen = "127.0.0.1:70000"\nkey_file = "k"', "udp.listen: .*65535"),
        ('listen = ":7117"\nkey_file = "k"', "udp.listen: "),
        ("ttl_s = 0", "udp.ttl_s: "),
        ("ttl_s = 3601", "udp.ttl_s: "),
        ("unknown = 1", "udp.unknown: "),
    ],
)
def test_settings_that_cannot_be_are_told(tmp_path: Path, config: str, said: str) -> None:
    path = tmp_path / "vdpad.toml"
    path.write_text(f"[udp]\n{config}\n")
    with pytest.raises(BadSettings, match=said):
        load_settings(path)


async def test_what_keeps_it_from_listening_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    before = open_descriptors()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for listen, said in (
            (f"127.0.0.1:{port}", f"127.0.0.1 port {port}: Address already in use"),
            ("192.0.2.1:0", "192.0.2.1 port 0: Cannot assign"),
            ("no-such-host.invalid:0", r"no-such-host\.invalid"),
        ):
            with pytest.raises(CannotListen, match=said):
                async with serving_udp(tmp_path, listen=listen):
                    pass
    assert open_descriptors() == before
    assert os.listdir(tmp_path) == ["keys"]


async def test_keys_that_others_may_read_keep_it_from_starting(tmp_path: Path) -> None:
    keys = key_file(tmp_path)
    keys.chmod(0o644)
    udp: Json = {"listen": "127.0.0.1:0", "key_file": str(keys)}
    with pytest.raises(VdpadError, match="chmod 0600"):
        async with serving(tmp_path, udp=udp):
            pass
    assert os.listdir(tmp_path) == ["keys"]
