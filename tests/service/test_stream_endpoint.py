"""Who is let in at a stream socket, how many, and what becomes of them at the end."""

import asyncio
import errno
import os
import resource
import socket
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.descriptors import lingering, no_descriptor_left
from tests.support.waiting import GUARD
from tests.support.waiting import until as until_within
from vdpad.service.endpoints import stream as stream_endpoint
from vdpad.service.endpoints.binding import CannotListen
from vdpad.service.endpoints.stream import Connection, StreamEndpoint
from vdpad.service.events.event import Event
from vdpad.service.events.kinds import ConnectionCut, DescriptorsStuck, SocketError
from vdpad.wire import descriptors
from vdpad.wire.descriptors import CLOSER
from vdpad.wire.streams import MAX_MESSAGE, SMALL

# In seconds: whatever takes longer hangs. Nothing that passes ever waits for it.
until = partial(until_within, every=0.001)

# And how long a descriptor's closing takes that nobody must wait for.
LINGERS = 20

OVERLOADED = b"no room\0"


async def echo(connection: Connection) -> None:
    """Says what it hears."""
    while (message := await connection.stream.receive(connection.place.take)) is not None:
        CLOSER.close(-1, message.fds)
        try:
            await connection.stream.send(message.data)
        finally:
            connection.place.leave()


class Listening:
    """An endpoint that echoes, and what it announced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self.endpoint = StreamEndpoint(echo, OVERLOADED, self.events.append)


@pytest.fixture
async def listening(tmp_path: Path) -> AsyncIterator[Listening]:
    with no_descriptor_left():
        made = Listening(tmp_path / "socket")
        made.endpoint.listen(made.path, 0o600, None)
        yield made
        await made.endpoint.close()


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, str(path))
        yield connection


async def said(connection: socket.socket) -> bytes:
    async with asyncio.timeout(GUARD):
        return await asyncio.get_running_loop().sock_recv(connection, 1 << 20)


async def echoed(connection: socket.socket, data: bytes = b"hello\0") -> bool:
    await asyncio.get_running_loop().sock_sendall(connection, data)
    got = b""
    while not got.endswith(b"\0"):
        got += await said(connection)
    return got == data


# --- the socket ---


async def test_the_socket_has_its_mode_and_goes_with_the_endpoint(tmp_path: Path) -> None:
    made = Listening(tmp_path / "socket")
    made.endpoint.listen(made.path, 0o620, None)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o620
    await made.endpoint.close()
    assert not made.path.exists()


async def test_another_s_socket_at_its_path_is_left(tmp_path: Path) -> None:
    made = Listening(tmp_path / "socket")
    made.endpoint.listen(made.path, 0o600, None)
    made.path.unlink()
    made.path.touch()
    await made.endpoint.close()
    assert made.path.exists()


async def test_where_somebody_listens_nobody_else_can(listening: Listening) -> None:
    with pytest.raises(CannotListen, match="another process listens there"):
        Listening(listening.path).endpoint.listen(listening.path, 0o600, None)
    async with connected(listening.path) as connection:
        assert await echoed(connection)


async def test_who_looks_whether_somebody_listens_is_no_client(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()
        other.setblocking(False)
        with pytest.raises(CannotListen, match="another process listens there"):
            Listening(path).endpoint.listen(path, 0o600, None)
        with pytest.raises(BlockingIOError):
            other.accept()


async def test_where_datagrams_are_taken_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(CannotListen, match="wrong type"):
            Listening(path).endpoint.listen(path, 0o600, None)


async def test_a_socket_that_was_left_makes_way(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()
    made = Listening(path)
    made.endpoint.listen(path, 0o600, None)
    async with connected(path) as connection:
        assert await echoed(connection)
    await made.endpoint.close()


async def test_a_socket_is_taken_over_and_left_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(str(path))
        bound.listen()
        for _ in range(2):
            made = Listening(path)
            assert made.endpoint.take_over(os.dup(bound.fileno())) == path
            async with connected(path) as connection:
                assert await echoed(connection)
            await made.endpoint.close()
            assert path.exists()
        async with connected(path) as waiting:
            # Nobody has accepted it; the next one would.
            assert await asyncio.wait([asyncio.create_task(said(waiting))], timeout=0.05)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
async def test_only_a_stream_socket_with_a_path_is_taken_over(
    tmp_path: Path, kind: socket.SocketKind
) -> None:
    with socket.socket(socket.AF_UNIX, kind) as bound:
        if kind is socket.SOCK_DGRAM:
            bound.bind(str(tmp_path / "socket"))
        expected = "ListenStream=" if kind is socket.SOCK_DGRAM else "bound to a path"
        with pytest.raises(CannotListen, match=expected):
            Listening(tmp_path / "socket").endpoint.take_over(bound.fileno())


# --- who is let in ---


async def test_one_user_has_so_many_connections_and_then_no_more(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_endpoint, "_MAX_PER_USER", 2)
    async with connected(listening.path) as first, connected(listening.path) as second:
        assert await echoed(first)
        assert await echoed(second)
        async with connected(listening.path) as third:
            assert await said(third) == OVERLOADED
            assert await said(third) == b""
        (event,) = listening.events
        assert isinstance(event, ConnectionCut)
        assert (event.pid, event.user) == (os.getpid(), os.geteuid())
        assert "2 others" in event.reason
    await until(lambda: not listening.endpoint._users)
    async with connected(listening.path) as fourth:
        assert await echoed(fourth)


async def test_all_have_so_many(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_endpoint, "_MOST", 1)
    async with connected(listening.path) as first:
        assert await echoed(first)
        async with connected(listening.path) as second:
            assert await said(second) == OVERLOADED
        assert await echoed(first)


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno(), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_where_there_are_no_descriptors_it_listens_on_and_says_so(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_endpoint, "_RESTS", 0.01)
    async with connected(listening.path) as connection:
        # Those that it accepts take numbers from the same table.
        with no_more_descriptors():
            await until(lambda: len(listening.events) > 1)
        assert all(isinstance(each, SocketError) for each in listening.events)
        assert os.strerror(errno.EMFILE) in str(listening.events[0])
        assert await echoed(connection)


# --- foreign descriptors ---


@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
async def test_nobody_waits_for_descriptors_that_go_with_a_connection(
    listening: Listening, read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_endpoint, "_MAX_PER_USER", 64 if read else 0)
    before = time.monotonic()
    with lingering(LINGERS) as fd:
        async with connected(listening.path) as one:
            socket.send_fds(one, [b"x"], [fd])
            os.close(fd)
            if not read:
                assert await said(one) == OVERLOADED
            await asyncio.sleep(0.01)
        monkeypatch.setattr(stream_endpoint, "_MAX_PER_USER", 64)
        async with connected(listening.path) as other:
            assert await echoed(other)
            await until(lambda: len(listening.endpoint._connections) == 1)
        assert time.monotonic() - before < LINGERS


async def test_where_descriptors_are_stuck_nothing_is_taken_until_they_are_not(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_endpoint, "_RESTS", 0.001)
    async with connected(listening.path) as connection:
        assert await echoed(connection)
        monkeypatch.setattr(descriptors, "_MAX_WAITING", 0)
        answer = asyncio.create_task(echoed(connection))
        async with connected(listening.path) as other:
            another = asyncio.create_task(echoed(other))
            await until(lambda: len(listening.events) > 2)
            assert not answer.done()
            assert not another.done()
            assert {type(each) for each in listening.events} == {DescriptorsStuck}
            monkeypatch.setattr(descriptors, "_MAX_WAITING", 4096)
            CLOSER.close(-1, [os.memfd_create("the last one")])
            CLOSER.flush()
            assert await answer
            assert await another


async def test_another_user_s_descriptors_that_are_stuck_stop_no_connection(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "_MAX_WAITING", 8)
    with lingering(LINGERS) as fd:
        before = time.monotonic()
        CLOSER.close(60_001, [fd, *(os.memfd_create("behind it") for _ in range(7))])
        CLOSER.flush()
        assert CLOSER.are_too_many  # for a datagram
        async with connected(listening.path) as connection:
            assert await echoed(connection)
        assert CLOSER.are_too_many
        assert time.monotonic() - before < LINGERS


# --- large messages ---


async def test_a_user_s_large_messages_wait_for_each_other_and_small_ones_do_not(
    listening: Listening,
) -> None:
    loop = asyncio.get_running_loop()
    large = b"x" * MAX_MESSAGE + b"\0"
    async with connected(listening.path) as one, connected(listening.path) as other:
        await loop.sock_sendall(one, large[: 2 * SMALL])
        waiting = asyncio.create_task(echoed(other, large))
        async with connected(listening.path) as third:
            assert await echoed(third)
        assert not waiting.done()
        await loop.sock_sendall(one, b"\0")
        assert len(await said(one)) > SMALL
        async with asyncio.timeout(GUARD):
            assert await waiting


# --- the end ---


async def test_what_had_come_is_answered_at_the_end(tmp_path: Path) -> None:
    made = Listening(tmp_path / "socket")
    made.endpoint.listen(made.path, 0o600, None)
    async with connected(made.path) as known, connected(made.path) as idle:
        assert await echoed(known)
        assert await echoed(idle)
        async with connected(made.path) as unknown:
            known.send(b"one\0two\0")
            unknown.send(b"three\0")
            await made.endpoint.close()
            assert await said(known) == b"one\0two\0"
            assert await said(unknown) == b"three\0"
        assert await said(idle) == b""
        with pytest.raises(BrokenPipeError):
            idle.send(b"late\0")
