"""Senders of the worst kind. The daemon goes on answering the others, and keeps nothing of theirs.

The facts about asyncio-dgram name its traps; each has a test here.
"""

import asyncio
import itertools
import os
import resource
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemon.api.mutations import datagrams
from tests.daemon.lending import held, held_wish
from tests.daemon.support import (
    CODES,
    MAX_DATAGRAM,
    STATE,
    Caller,
    Json,
    faulty,
    give_small_buffers,
    is_error,
    is_report,
    request,
    serving,
    software,
    vlans,
)
from tests.support.daemon import ROOT, Daemon, running
from tests.support.descriptors import open_descriptors
from tests.support.marks import in_bulk
from tests.support.waiting import until

INFO = request("info", 1)


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A daemon of its own, whose descriptors can be counted."""
    async with running(tmp_path) as daemon:
        yield daemon


async def answers(path: Path) -> None:
    """Somebody else is answered."""
    with Caller(path) as other:
        assert (await other.result("info"))["name"] == "vdpad"


# --- what is sent ---


@pytest.mark.parametrize("batches", [200, *in_bulk([2000])])
async def test_mutated_datagrams_leave_nothing_behind(tmp_path: Path, batches: int) -> None:
    limits = {"operations_at_once": 100, "operations_kept": 150}
    async with serving(tmp_path, limits=limits, replay={"deadline_ms": 1000}) as path:
        with Caller(path) as caller:
            await caller.result("info")
            tasks, descriptors = len(asyncio.all_tasks()), open_descriptors()
            kinds: dict[str, int] = {}
            hostile = datagrams(seed=7)
            for batch in range(batches):
                for datagram in itertools.islice(hostile, 5):
                    await caller.send(datagram)
                for reply in await up_to(caller, f"end of {batch}"):
                    kind = reply["error"]["data"]["kind"] if "error" in reply else "result"
                    kinds[kind] = kinds.get(kind, 0) + 1
            await until(lambda: len(asyncio.all_tasks()) == tasks)
            assert open_descriptors() == descriptors
            await answers(path)
    assert "internal" not in kinds
    assert kinds.keys() <= {"result", *CODES}
    # Else the datagrams were not what they are meant to be.
    assert {"result", "parse-error", "invalid-request", "invalid-params"} <= kinds.keys()
    assert sum(kinds.values()) > 4 * batches


async def up_to(caller: Caller, name: str) -> list[Json]:
    """All replies that come before the one to a request of this name."""
    await caller.send(request("info", name))
    replies = []
    while (reply := await caller.receive())["id"] != name:
        replies.append(reply)
    return replies


@pytest.mark.parametrize("size", [MAX_DATAGRAM + 1, 256 * 1024, 300 * 1024])
async def test_datagrams_past_the_limit_keep_nobody_from_being_answered(
    path: Path, size: int
) -> None:
    with Caller(path) as caller:
        caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * size)
        for _ in range(10):
            await caller.send(INFO.ljust(size))
            assert is_error((await caller.receive())["error"], "invalid-request")
    await answers(path)


# --- who sends it ---


async def test_senders_without_an_address_are_served_and_not_answered(path: Path) -> None:
    with Caller(path, address=None) as nameless, Caller(path) as caller:
        for number in range(50):
            await nameless.send(INFO)
            await nameless.send(b"{")
            restore = {"state": vlans(1), "target": software()}
            await nameless.send(request("restore", 1, migration=f"vm-{number}", **restore))
            await caller.result("info")
        operations = await caller.listed()
        assert len(operations) == 50
        assert nameless.received() is None


@pytest.mark.parametrize("bound", ["by the kernel", "abstract", "path", "path, then unlinked"])
async def test_senders_that_are_gone_before_their_reply_disturb_nobody(
    path: Path, tmp_path: Path, bound: str
) -> None:
    with Caller(path) as caller:
        for number in range(30):
            address = {"by the kernel": "", "abstract": f"\0vdpad-test-{os.getpid()}-{number}"}
            at = tmp_path / f"gone-{number}"
            with Caller(path, address.get(bound, str(at))) as dying:
                await dying.send(INFO)
                await dying.send(b"{")
                if bound == "path, then unlinked":
                    at.unlink()
            assert (await caller.result("info"))["name"] == "vdpad"


@pytest.mark.parametrize("kind", ["path", "path that is no UTF-8", "by the kernel"])
async def test_senders_are_answered_at_whatever_address_is_their_own(
    path: Path, tmp_path: Path, kind: str
) -> None:
    address: str | bytes = {
        "path": os.fsencode(tmp_path / "caller"),
        "path that is no UTF-8": os.fsencode(tmp_path) + b"/\xff\xfe",
        "by the kernel": b"",
    }[kind]
    with Caller(path, address) as caller:
        await caller.result("info")
        assert is_error(await caller.error("nothing"), "method-not-found")


async def test_a_path_that_was_unlinked_costs_only_its_owner_the_reply(
    path: Path, tmp_path: Path
) -> None:
    with Caller(path, str(tmp_path / "caller")) as caller:
        (tmp_path / "caller").unlink()
        for _ in range(20):
            await caller.send(INFO)
        await answers(path)
        assert caller.received() is None


async def test_a_client_that_never_reads_keeps_nobody_waiting(process: Daemon) -> None:
    with Caller(process.socket) as deaf, Caller(process.socket) as caller:
        for number in range(500):
            await deaf.send(INFO)
            if number % 10 == 0:
                await caller.result("info")
        before = process.cpu_seconds()
        await asyncio.sleep(0.5)
        # Idle: nothing tries over and over to reach the one that does not read.
        assert process.cpu_seconds() - before < 0.3
        await caller.result("info")
        # What came through before its queue was full is there, and proper.
        assert deaf.received() is not None


@pytest.fixture(params=["as it is", "where buffers stay small"])
def any_host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unread replies are charged to the daemon's socket, whose buffer is the host's to limit."""
    if request.param == "where buffers stay small":
        give_small_buffers(monkeypatch)


@pytest.mark.usefixtures("any_host")
async def test_a_client_that_never_reads_large_replies_keeps_nobody_waiting(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as path:
        with Caller(path) as deaf, Caller(path) as caller:
            restore = {"state": vlans(1), "target": software()}
            for number in range(100):
                await caller.result("restore", migration=f"{number:0>128}", **restore)
            for number in range(30):
                await deaf.send(request("status", number))
            for number in range(3):
                await caller.result("info")
                report = await caller.result("restore", migration=f"vm-{number}", **restore)
                assert is_report(report, "restored")
            assert deaf.received() is not None


@pytest.mark.usefixtures("any_host")
async def test_many_large_replies_at_once_all_arrive(tmp_path: Path) -> None:
    """All read, only not at once; meanwhile the replies are more than a buffer may hold."""
    async with serving(tmp_path) as path:
        with ExitStack() as stack:
            callers = [stack.enter_context(Caller(path)) for _ in range(30)]
            restore = {"state": vlans(1), "target": software()}
            for number in range(100):
                await callers[0].result("restore", migration=f"{number:0>128}", **restore)
            for caller in callers:
                await caller.send(request("status", 1))
            await asyncio.sleep(0.5)
            replies = await asyncio.gather(*(caller.receive() for caller in callers))
    assert all(len(reply["result"]["operations"]) == 100 for reply in replies)


# --- descriptors ---


REQUESTS: dict[str, bytes] = {
    "info": INFO,
    "check": request("check", 1, state=STATE, target=software()),
    "prepare": request("prepare", 1, migration="vm-1", state=STATE, target=software()),
    "commit": request("commit", 1, migration="vm-1"),
    "restore": request("restore", 1, migration="vm-1", state=STATE, target=software()),
    "status": request("status", 1),
    "cancel": request("cancel", 1, migration="vm-1"),
    "release": request("release", 1, device="vdpa0"),
    "wrong params": request("commit", 1, deadline_ms=0),
    "no JSON": b"\xff",
    "no request": b"[]",
    "notification": request("status"),
    "nothing": b"",
    "too long": INFO.ljust(MAX_DATAGRAM + 1),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("descriptors"))
    try:
        yield daemon.ready()
    finally:
        daemon.stop()


@pytest.mark.parametrize("datagram", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("address", ["", None], ids=["addressed", "nameless"])
async def test_descriptors_are_never_kept(
    shared: Daemon, datagram: bytes, address: str | None
) -> None:
    with Caller(shared.socket, address) as caller, ExitStack() as stack:
        caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 3 * MAX_DATAGRAM)
        await answers(shared.socket)
        before = shared.descriptors()
        reading, writing = os.pipe()
        stack.callback(os.close, reading)
        try:
            for count in (1, 2, 3, 4, 5, 8, 17, 100, 253):
                await caller.send(datagram, [writing] * count)
        finally:
            os.close(writing)
        # The end of the pipe: nobody anywhere has its other end open any more.
        os.set_blocking(reading, False)
        await until(lambda: ended(reading))
        await answers(shared.socket)
        await until(lambda: shared.descriptors() == before)


def ended(reading: int) -> bool:
    try:
        return os.read(reading, 1) == b""
    except BlockingIOError:
        return False


METHODS: dict[str, Json] = {
    "info": {},
    "status": {},
    "check": {"state": vlans(1), "target": software()},
    "prepare": {"migration": "vm-1", "state": vlans(1), "target": software()},
    "restore": {"migration": "vm-1", "state": vlans(1), "target": software()},
    "commit": {"migration": "vm-1"},
    "cancel": {"migration": "vm-1"},
}


@pytest.fixture
def devnull() -> Iterator[int]:
    with Path(os.devnull).open() as file:
        yield file.fileno()


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_descriptors_where_none_is_taken_change_nothing(
    caller: Caller, devnull: int, count: int
) -> None:
    for method, params in METHODS.items():
        await caller.result(method, [devnull] * count, **params)


@pytest.mark.parametrize("count", [4, 5, 6, 64, 253])
@pytest.mark.parametrize("method", METHODS)
async def test_more_than_three_descriptors_are_refused_everywhere(
    caller: Caller, devnull: int, method: str, count: int
) -> None:
    error = await caller.error(method, [devnull] * count, **METHODS[method])
    assert is_error(error, "bad-lend", "reason")
    assert await caller.listed() == []


# --- what waits ---


async def test_requests_that_wait_for_a_commit_hold_few_descriptors(tmp_path: Path) -> None:
    """300 of them with 3 descriptors each would take what another lender needs."""
    async with running(tmp_path) as daemon, held(daemon.socket) as commit:
        with Caller(daemon.socket) as caller, Caller(daemon.socket) as other:
            before = len(daemon.descriptors())
            for number in range(300):
                await caller.send(request("commit", number, migration="vm-1"), commit.lender.fds)
            await other.result("info")
            await until(lambda: len(daemon.descriptors()) - before < 300)
            assert is_report(await commit.let_go(), "restored")


async def test_each_of_many_that_ask_for_one_commit_gets_its_end_or_is_told_of_the_crowd(
    path: Path,
) -> None:
    async with held(path) as commit:
        with Caller(path) as caller, Caller(path) as other:
            replies: list[Json] = []

            async def collect() -> None:
                while len(replies) < 30:
                    replies.append(await caller.receive())

            collecting = asyncio.create_task(collect())
            for number in range(30):
                await caller.send(request("commit", number, migration="vm-1"))
            await other.result("info")
            report = await commit.let_go()
            await collecting
    assert {reply["id"] for reply in replies} == set(range(30))
    told = [reply["error"] for reply in replies if "error" in reply]
    assert all(is_error(error, "overloaded") for error in told)
    assert len(told) < 30
    assert all(reply["result"] == report for reply in replies if "result" in reply)


async def test_requests_that_wait_for_a_commit_fill_no_memory(tmp_path: Path) -> None:
    """600 of them of 190 KiB each would be 110 MiB."""
    async with running(tmp_path) as daemon, held(daemon.socket) as commit:
        with Caller(daemon.socket) as caller, Caller(daemon.socket) as other:
            await other.result("info")
            before = daemon.resident_kib()
            for number in range(600):
                await caller.send(request("commit", number, migration="vm-1").ljust(190 * 1024))
            await other.result("info")
            grown = daemon.resident_kib() - before
            assert is_report(await commit.let_go(), "restored")
    assert grown < 60_000


async def test_repeated_commits_of_what_failed_fill_no_memory(tmp_path: Path) -> None:
    """400 of them of 190 KiB each would be 74 MiB, if anything of each were kept."""
    async with running(tmp_path, software=[faulty("err", 0)]) as daemon:
        with Caller(daemon.socket) as caller:
            restore = {"migration": "vm-1", "state": vlans(1), "target": software()}
            await caller.error("restore", **restore)
            before = daemon.resident_kib()
            for number in range(400):
                await caller.send(request("commit", number, migration="vm-1").ljust(190 * 1024))
                assert is_error((await caller.receive())["error"], "rejected", "report")
            assert daemon.resident_kib() - before < 30_000


async def test_a_daemon_short_of_descriptors_recovers(tmp_path: Path) -> None:
    """Where nothing can be opened a lend fails; with room again it works."""
    async with running(tmp_path) as daemon, held(daemon.socket) as commit:
        lender = commit.lender
        with Caller(daemon.socket) as caller:
            await caller.result("prepare", **held_wish(lender, "vm-2"))
            used = len(daemon.descriptors())
            limits = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
            for room in range(5):
                limit = (used + room, limits[1])
                resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, limit)
                await caller.error("commit", lender.fds, migration="vm-2")
                await until(lambda: len(daemon.descriptors()) <= used)
            resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, limits)
            assert is_report(await commit.let_go(), "restored")
            # The device has these VLANs by now; that it says so is all that matters.
            error = await caller.error("commit", lender.fds, migration="vm-2")
            assert is_error(error, "rejected", "report")


# --- other users ---


SPEAKER = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
caller = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
caller.bind("")
caller.sendto(sys.argv[2].encode(), sys.argv[1])
caller.settimeout(30)
print(caller.recv(1 << 20).decode())
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter."""
    with tempfile.TemporaryDirectory(prefix="vdpad-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_the_kernel_says_who_speaks(open_folder: Path) -> None:
    settings: Json = {"socket_mode": "0666", "allowed_uids": [0]}
    async with running(open_folder, **settings) as daemon:
        await answers(daemon.socket)
        other = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SPEAKER, str(daemon.socket), INFO.decode()),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        said, _ = await other.communicate()
        assert b"not-allowed" in said
        await answers(daemon.socket)
