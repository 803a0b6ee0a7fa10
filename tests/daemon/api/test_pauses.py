"""The event loop's longest pause while each kind of hostile peer works beside an honest client.

How long it is, is told (`longest_ms` of the record, and in the output) and not judged: slow
machines are slow. What a peer holds lasts for longer than GIVEN_UP, so that a daemon whose event
loop waits for it is told from one that does not.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.availability import skip_or_fail
from tests.daemon.lending import lending
from tests.daemon.support import Caller, is_error, request, software, vlans
from tests.support.daemon import running
from tests.support.descriptors import lingering
from tests.support.fuse import silent_file
from tests.support.honest import GIVEN_UP, Honest
from tests.support.waiting import GUARD

# In seconds, how long a hostile one would hold.
HOLDS = 30

INFO = request("info", 1)

# While it holds, the honest client is answered for so many seconds, which is many times what the
# daemon puts the closing of descriptors off by, and then so often.
_BESIDE = 0.5
_REPLIES = 50

_MAY_MOUNT = os.geteuid() == 0 and os.path.exists("/dev/fuse")

_FULL = (1 << 64) - 2

Hostile = Callable[[Path, Path], AbstractAsyncContextManager[None]]
"""By the daemon's socket and a folder of its own; what it holds is held in the context."""


# --- the hostile ---


@asynccontextmanager
async def hard_to_close(path: Path, folder: Path) -> AsyncIterator[None]:
    """Sends a descriptor whose closing lingers."""
    with lingering(HOLDS) as fd, Caller(path) as caller:
        await caller.send(INFO, [fd])
        os.close(fd)
        yield


@asynccontextmanager
async def silent(path: Path, folder: Path) -> AsyncIterator[None]:
    """Sends files of a server that answers nothing until the context ends."""
    if not _MAY_MOUNT:
        skip_or_fail("mounting FUSE takes root and /dev/fuse")
    sent = -1
    try:
        with silent_file(folder) as (sent, asked), Caller(path) as caller:
            for _ in range(4):
                await caller.send(INFO, [sent] * 253)
            await asyncio.to_thread(asked.wait, GUARD)
            yield
    finally:
        # Here too it would sleep before; now there is no server to answer.
        with contextlib.suppress(OSError):
            os.close(sent)


@asynccontextmanager
async def silent_node(path: Path, folder: Path) -> AsyncIterator[None]:
    """Names a device by a path of a server that answers nothing until the context ends."""
    if not _MAY_MOUNT:
        skip_or_fail("mounting FUSE takes root and /dev/fuse")
    sent = -1
    try:
        with silent_file(folder) as (sent, asked), Caller(path) as caller:
            target = {"kind": "vhost-vdpa", "path": str(folder / "file")}
            for number in range(40):
                await caller.send(request("check", number, state=vlans(1), target=target))
                wish = {"migration": f"vm-{number}", "state": vlans(1), "target": target}
                await caller.send(request("prepare", number, **wish))
            await asyncio.to_thread(asked.wait, GUARD)
            yield
    finally:
        with contextlib.suppress(OSError):
            os.close(sent)


@asynccontextmanager
async def lend(path: Path, which: int, value: int, flags: int = 0) -> AsyncIterator[None]:
    """Commits with an eventfd that has this value in the kick's or the call's place."""
    hostile = os.eventfd(0, flags)
    os.eventfd_write(hostile, value)
    try:
        async with lending(start=False) as lender:
            fds = [*lender.fds]
            fds[which] = hostile
            wish: dict[str, Any] = {"state": vlans(1), "target": lender.target, "deadline_ms": 500}
            with Caller(path) as caller:
                await caller.send(request("restore", 1, migration="x", **wish), fds)
                yield
                async with asyncio.timeout(GIVEN_UP):
                    assert is_error((await caller.receive())["error"], "timeout", "report")
    finally:
        os.close(hostile)


def full_kick(path: Path, folder: Path) -> AbstractAsyncContextManager[None]:
    """Lends a kick that has no room for one more."""
    return lend(path, 1, _FULL)


def readable_call(path: Path, folder: Path) -> AbstractAsyncContextManager[None]:
    """Lends a call that stays readable however often it is read."""
    return lend(path, 2, _FULL, os.EFD_SEMAPHORE | os.EFD_NONBLOCK)


@asynccontextmanager
async def deaf(path: Path, folder: Path) -> AsyncIterator[None]:
    """Asks, and reads no reply."""
    with Caller(path) as caller:
        for number in range(50):
            wish = {"migration": f"{number:0>128}", "state": vlans(1), "target": software()}
            await caller.result("restore", **wish)
        for number in range(300):
            await caller.send(request("status", number))
        yield


@asynccontextmanager
async def wrong_lists(path: Path, folder: Path) -> AsyncIterator[None]:
    """Sends lists of 190 KiB, each of whose entries is wrong."""
    state = {**vlans(1), "vlans": [-1] * 48_000}
    with Caller(path) as caller:
        caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        datagram = request("check", 1, state=state, target=software())
        for _ in range(20):
            await caller.send(datagram)
            assert is_error((await caller.receive())["error"], "invalid-params", "problems")
        yield


@asynccontextmanager
async def refused_lends(path: Path, folder: Path) -> AsyncIterator[None]:
    """Lends what is no memory and no eventfds, again and again."""
    async with lending() as lender:
        with Caller(path) as caller, socket.socket() as other:
            await caller.result("prepare", migration="vm-1", state=vlans(1), target=lender.target)
            for _ in range(200):
                error = await caller.error("commit", [other.fileno()] * 3, migration="vm-1")
                assert is_error(error, "bad-lend", "reason")
            yield


@asynccontextmanager
async def reflected(path: Path, folder: Path) -> AsyncIterator[None]:
    """Sends what are replies themselves."""
    with Caller(path) as caller:
        for _ in range(1000):
            await caller.send(b'{"jsonrpc": "2.0", "id": 1, "result": {}}')
        yield


@asynccontextmanager
async def huge_memory(path: Path, folder: Path) -> AsyncIterator[None]:
    """Lends memory of 64 TiB that is not there."""
    size = 1 << 46
    memory = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, size)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    try:
        async with lending() as lender:
            target = lender.target_with(memory={**lender.ring["memory"], "size": size})
            with Caller(path) as caller:
                fds = [memory, *lender.fds[1:]]
                for number in range(60):
                    wish: dict[str, Any] = {"state": vlans(1), "target": target}
                    error = await caller.error("restore", fds, migration=f"vm-{number}", **wish)
                    assert is_error(error, "bad-lend", "reason")
                yield
    finally:
        os.close(memory)


KINDS: list[Hostile] = [
    *(
        hard_to_close,
        silent,
        silent_node,
        full_kick,
        readable_call,
        deaf,
        wrong_lists,
        refused_lends,
    ),
    *(reflected, huge_memory),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_an_honest_client_is_answered_beside(
    kind: Hostile, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    async with running(tmp_path) as daemon:
        honest = Honest(daemon.socket)
        honest.start()
        try:
            async with kind(daemon.socket, folder):
                await asyncio.sleep(_BESIDE)
                await honest.is_answered(_REPLIES)
        finally:
            await asyncio.to_thread(honest.end)
    record_property("longest_ms", round(1000 * honest.longest, 1))
    print(f"{kind.__name__}: {honest.replies} replies, the longest in {honest.longest:.4f} s")
    assert not honest.gave_up
