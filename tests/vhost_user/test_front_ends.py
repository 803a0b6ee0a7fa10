"""Front ends that come, lie and go: each is told or closed, and nothing of theirs is left."""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.descriptors import lingering, open_descriptors
from tests.support.users import ALICE, open_folder, users
from tests.support.waiting import GUARD
from tests.vhost_user import front_end as page
from tests.vhost_user.conftest import Served, mappings, serving
from tests.vhost_user.front_end import (
    ALL_SERVED,
    NEED_REPLY,
    VERSION,
    FrontEnd,
    Memory,
    u64,
)
from tests.vhost_user.recording_device import FEATURES, RecordingDevice
from vdpad.errors import VdpadError
from vdpad.vhost_user import newcomers
from vdpad.vhost_user.faults import BadConnection, BadMessage, NotServed
from vdpad.vhost_user.front_ends import FrontEnds
from vdpad.vhost_user.session import Session
from vdpad.virtio.bits import mask_of
from vdpad.wire import descriptors
from vdpad.wire.descriptors import CLOSER

pytestmark = pytest.mark.usefixtures("nothing_left")

TAKEN = page.NOT_A_FLAG_OF_OURS | mask_of(FEATURES)

Step = Callable[[FrontEnd], Awaitable[object]]


def _ring(index: int) -> list[Step]:
    at = Memory.USER + index * 4096
    addresses = page.addresses(index, at, at + 1024, at + 512)
    return [
        lambda it: it.send(page.SET_VRING_NUM, page.state(index, 16)),
        lambda it: it.send(page.SET_VRING_BASE, page.state(index, 3)),
        lambda it: it.send(page.SET_VRING_ADDR, addresses),
        lambda it: it.send(page.SET_VRING_ERR, u64(index), [it.eventfd()]),
        lambda it: it.send(page.SET_VRING_KICK, u64(index), [it.eventfd()]),
        lambda it: it.send(page.SET_VRING_CALL, u64(index), [it.eventfd()]),
    ]


_MEMORY = page.single(Memory.GUEST, Memory.SIZE, Memory.USER, 0)
_OTHER = page.region(0, 4096, 1 << 20, 0)
_WHOLE = page.region(Memory.GUEST, Memory.SIZE, Memory.USER, 0)


async def _give_back_channel(it: FrontEnd) -> None:
    ours, theirs = socket.socketpair()
    await it.send(page.SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
    ours.close()
    theirs.close()


STEPS: list[Step] = [
    lambda it: it.number(page.GET_FEATURES),
    lambda it: it.number(page.GET_PROTOCOL_FEATURES),
    lambda it: it.send(page.SET_PROTOCOL_FEATURES, u64(ALL_SERVED)),
    lambda it: it.number(page.GET_QUEUE_NUM),
    lambda it: it.number(page.GET_MAX_MEM_SLOTS),
    _give_back_channel,
    lambda it: it.send(page.SET_OWNER),
    lambda it: it.ask(page.GET_CONFIG, page.config(0, bytes(24))),
    lambda it: it.send(page.SET_FEATURES, u64(TAKEN)),
    lambda it: it.send(page.SET_STATUS, u64(8)),
    lambda it: it.done(page.ADD_MEM_REG, _MEMORY, [it.memory.fd]),
    lambda it: it.done(page.SET_MEM_TABLE, page.table(_OTHER, _WHOLE), [it.memory.fd] * 2),
    *_ring(0),
    *_ring(1),
    *_ring(2),
    *[
        lambda it, index=index: it.done(page.SET_VRING_ENABLE, page.state(index, 1))
        for index in range(3)
    ],
    lambda it: it.done(page.SET_STATUS, u64(15)),
    lambda it: it.send(page.SET_VRING_CALL, u64(0), [it.eventfd()]),
    lambda it: it.base(0),
    lambda it: it.number(page.SET_DEVICE_STATE_FD, page.state(0, 0), [it.eventfd()]),
    lambda it: it.number(page.CHECK_DEVICE_STATE),
    lambda it: it.base(1),
    lambda it: it.done(page.REM_MEM_REG, _MEMORY),
    lambda it: it.send(page.RESET_DEVICE),
]
"""A whole life, one message a step."""


@pytest.mark.parametrize("number", range(len(STEPS) + 1))
async def test_a_front_end_that_goes_after_any_message(served: Served, number: int) -> None:
    for step in STEPS[:number]:
        await step(served.front_end)
    served.front_end.close()
    assert await served.end() is None


@pytest.mark.parametrize("number", range(len(STEPS)))
async def test_a_front_end_that_goes_in_any_message(served: Served, number: int) -> None:
    for step in STEPS[:number]:
        await step(served.front_end)
    await served.front_end.send_bytes(page.HEADER.pack(page.SET_MEM_TABLE, VERSION, 40)[:7])
    served.front_end.close()
    assert isinstance(await served.end(), BadMessage)


@pytest.mark.parametrize("number", range(len(STEPS)))
async def test_noise_after_any_message(served: Served, number: int) -> None:
    for step in STEPS[:number]:
        await step(served.front_end)
    await served.front_end.send_bytes(b"GET / HTTP/1.1\r\n\r\n", [served.front_end.eventfd()] * 9)
    await served.front_end.ended()
    assert isinstance(await served.end(), BadMessage)


@pytest.mark.parametrize("number", range(0, len(STEPS), 3))
async def test_a_session_that_is_cancelled(served: Served, number: int) -> None:
    for step in STEPS[:number]:
        await step(served.front_end)
    assert served.task is not None
    served.task.cancel()
    await asyncio.wait([served.task])
    assert served.device.started is None
    assert await served.front_end.ended() == b""
    served.task = asyncio.create_task(asyncio.sleep(0))


async def test_a_front_end_that_goes_while_the_device_sleeps(served: Served) -> None:
    for step in STEPS[:26]:
        await step(served.front_end)
    served.device.gate = asyncio.Event()
    for index in range(3):
        enable = page.state(index, 1)
        await served.front_end.send(page.SET_VRING_ENABLE, enable, flags=VERSION | NEED_REPLY)
    await asyncio.sleep(0.01)
    served.front_end.close()
    served.device.gate.set()
    assert await served.end() is None


# --- lies ---

LIES: dict[str, Step] = {
    "a ring that there is not": lambda it: it.acked(page.SET_VRING_NUM, page.state(3, 16)),
    "the last of all rings": lambda it: it.acked(page.SET_VRING_KICK, u64(255), [it.eventfd()]),
    "a ring of no entries": lambda it: it.acked(page.SET_VRING_NUM, page.state(0, 0)),
    "a ring of 24": lambda it: it.acked(page.SET_VRING_NUM, page.state(0, 24)),
    "a ring of 65536": lambda it: it.acked(page.SET_VRING_NUM, page.state(0, 65536)),
    "a base of 17 bits": lambda it: it.acked(page.SET_VRING_BASE, page.state(0, 65536)),
    "a ring outside the memory": lambda it: it.acked(
        page.SET_VRING_ADDR, page.addresses(0, 4096, Memory.USER, Memory.USER)
    ),
    "a ring that is logged": lambda it: it.acked(
        page.SET_VRING_ADDR, page.addresses(0, Memory.USER, Memory.USER, Memory.USER, flags=1)
    ),
    "memory that is none": lambda it: it.acked(
        page.ADD_MEM_REG, page.single(0, 4096, 0, 0), [it.eventfd()]
    ),
    "memory of no bytes": lambda it: it.acked(
        page.ADD_MEM_REG, page.single(0, 0, 0, 0), [it.memory.fd]
    ),
    "memory that overlaps": lambda it: it.acked(
        page.ADD_MEM_REG, page.single(Memory.GUEST + 4096, 4096, 0, 0), [it.memory.fd]
    ),
    "more than the file has": lambda it: it.acked(
        page.ADD_MEM_REG, page.single(0, Memory.SIZE + 4096, 0, 0), [it.memory.fd]
    ),
    "memory that was never added": lambda it: it.acked(
        page.REM_MEM_REG, page.single(0, 4096, 0, 0)
    ),
    "a log": lambda it: it.acked(page.SET_LOG_BASE, bytes(16), [it.memory.fd]),
    "a log's call": lambda it: it.acked(page.SET_LOG_FD, b"", [it.eventfd()]),
    "an announcement": lambda it: it.acked(page.SEND_RARP, u64(0x563412005452)),
    "an MTU": lambda it: it.acked(page.NET_SET_MTU, u64(9000)),
    "what is in flight": lambda it: it.acked(page.SET_INFLIGHT_FD, bytes(24), [it.memory.fd]),
    "an IOTLB": lambda it: it.acked(page.IOTLB_MSG, bytes(32)),
    "another byte order": lambda it: it.acked(page.SET_VRING_ENDIAN, page.state(0, 1)),
    "a kick in band": lambda it: it.acked(page.VRING_KICK, page.state(0, 0)),
    "nobody's request": lambda it: it.acked(1 << 30, bytes(99), [it.eventfd()] * 100),
    "a status of 9 bits": lambda it: it.acked(page.SET_STATUS, u64(0x10F)),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_told_and_nothing_comes_of_it(served: Served, lie: str) -> None:
    front_end = served.front_end
    await front_end.negotiate(TAKEN, protocol=ALL_SERVED & ~page.LOG_SHMFD)
    await front_end.share_memory()
    before = [*served.session.vrings], served.session.state, [*served.device.did]
    assert await LIES[lie](front_end) == 1
    assert len(served.refusals) == 1
    assert ": expected " in served.refusals[0]
    assert before == ([*served.session.vrings], served.session.state, served.device.did)
    assert await front_end.number(page.GET_QUEUE_NUM) == 3


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_that_cannot_be_told_closes_the_connection(lie: str) -> None:
    async with serving(RecordingDevice()) as served:
        front_end = served.front_end
        await front_end.negotiate(TAKEN, protocol=ALL_SERVED & ~page.REPLY_ACK & ~page.LOG_SHMFD)
        await front_end.send(page.ADD_MEM_REG, _MEMORY, [front_end.memory.fd])
        with pytest.raises(ConnectionError):
            await LIES[lie](front_end)
        error = await served.end()
    assert isinstance(error, NotServed)
    assert "there is no other way to say so: " in str(error).replace("as there", "there")


UNASKED = {
    page.GET_MAX_MEM_SLOTS: b"",
    page.GET_STATUS: b"",
    page.GET_INFLIGHT_FD: bytes(24),
}


@pytest.mark.parametrize("request_number", UNASKED)
async def test_what_has_a_reply_and_no_word_for_no_closes_the_connection(
    served: Served, request_number: int
) -> None:
    await served.front_end.negotiate(TAKEN, protocol=page.REPLY_ACK)
    flags = VERSION | NEED_REPLY
    await served.front_end.send(request_number, UNASKED[request_number], flags=flags)
    assert await served.front_end.ended() == b""
    assert isinstance(await served.end(), NotServed)


async def test_the_number_of_queues_is_told_to_whoever_was_offered_it(served: Served) -> None:
    assert await served.front_end.number(page.GET_QUEUE_NUM) == 3
    await served.front_end.negotiate(TAKEN, protocol=page.REPLY_ACK)
    assert await served.front_end.number(page.GET_QUEUE_NUM) == 3


async def test_what_has_a_word_for_no_says_it_also_where_it_was_not_agreed_upon(
    served: Served,
) -> None:
    it = served.front_end
    await it.negotiate(TAKEN, protocol=0)
    assert await it.ask(page.GET_CONFIG, page.config(0, bytes(8))) == page.config(0, b"")
    assert await it.number(page.SET_DEVICE_STATE_FD, page.state(0, 0), [it.eventfd()]) == 257
    assert await it.number(page.CHECK_DEVICE_STATE) == 1
    assert len(served.refusals) == 3


async def test_rings_of_memory_that_went_away(served: Served) -> None:
    front_end = served.front_end
    await front_end.negotiate(TAKEN)
    await front_end.share_memory()
    for index in range(3):
        await front_end.set_up(index)
    await front_end.done(page.REM_MEM_REG, _MEMORY)
    await front_end.enable(0, 1)
    assert await front_end.acked(page.SET_VRING_ENABLE, page.state(2, 1)) != 0
    assert "reach outside the memory" in served.refusals[0]
    assert served.device.starts == []


async def test_a_ring_that_reaches_over_the_memory_s_end(served: Served) -> None:
    front_end = served.front_end
    await front_end.negotiate(TAKEN)
    await front_end.share_memory()
    await front_end.set_up(0)
    at = Memory.USER + Memory.SIZE - 16
    parts = page.addresses(0, at, at, at)
    await front_end.done(page.SET_VRING_ADDR, parts)
    assert await front_end.acked(page.SET_STATUS, u64(15)) != 0
    assert served.device.starts == []


# --- one at a time ---


@asynccontextmanager
async def listening(path: Path) -> AsyncIterator[tuple[FrontEnds, socket.socket]]:
    """Somebody who gives a device to front ends, and where it listens."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    listener.setblocking(False)
    with listener:
        yield FrontEnds(RecordingDevice(), _ignore), listener


def _ignore(_request: str, _error: VdpadError) -> None:
    pass


def _note(refusals: list[str], request: str, error: VdpadError) -> None:
    refusals.append(f"{request}: {error}")


async def connect(path: Path) -> FrontEnd:
    """A front end that comes by the socket's path."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(path))
    return FrontEnd(connection)


async def test_a_second_front_end_is_turned_away(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    refusals = list[str]()
    async with listening(path) as (_, listener):
        front_ends = FrontEnds(RecordingDevice(), lambda what, _: refusals.append(what))
        serving = asyncio.create_task(front_ends.serve_next(listener))
        async with await connect(path) as first:
            await first.negotiate(TAKEN)
            for _ in range(3):
                async with await connect(path) as second:
                    assert await second.ended() == b""
            assert refusals == ["a second connection"] * 3
            assert await first.number(page.GET_QUEUE_NUM) == 3
            assert front_ends.session is not None
            assert front_ends.session.front_end.pid == os.getpid()
        await asyncio.wait_for(serving, GUARD)
        assert front_ends.session is None
        serving = asyncio.create_task(front_ends.serve_next(listener))
        async with await connect(path) as third:
            assert await third.number(page.GET_FEATURES) == TAKEN | page.LOG_ALL
        await asyncio.wait_for(serving, GUARD)


async def test_who_goes_without_a_word_was_no_front_end(tmp_path: Path) -> None:
    path, sessions = tmp_path / "socket", list[Session | None]()
    async with listening(path) as (_, listener):
        front_ends = FrontEnds(RecordingDevice(), _ignore, sessions.append)
        serving = asyncio.create_task(front_ends.serve_next(listener))
        for _ in range(3):
            async with await connect(path):
                pass
        async with await connect(path) as first:
            assert await first.number(page.GET_FEATURES) == TAKEN | page.LOG_ALL
        await asyncio.wait_for(serving, GUARD)
    assert len(sessions) == 2


NOISE = {
    "who asks for a page": b"GET / HTTP/1.1\r\n\r\n",
    "half a message": page.HEADER.pack(page.GET_FEATURES, VERSION, 0)[:7],
    "a request that nobody knows": page.HEADER.pack(1 << 30, VERSION, 0),
    "a request of another size": page.HEADER.pack(page.SET_FEATURES, VERSION, 9) + bytes(9),
    "a request of no version": page.HEADER.pack(page.GET_FEATURES, 0, 0),
}


@pytest.mark.parametrize("noise", NOISE)
async def test_who_begins_otherwise_was_no_front_end(tmp_path: Path, noise: str) -> None:
    path, sessions, refusals = tmp_path / "socket", list[Session | None](), list[str]()
    async with listening(path) as (_, listener):
        told = partial(_note, refusals)
        front_ends = FrontEnds(RecordingDevice(), told, sessions.append)
        serving = asyncio.create_task(front_ends.serve_next(listener))
        async with await connect(path) as stranger:
            await stranger.send_bytes(NOISE[noise], [stranger.eventfd()])
            stranger.socket.shutdown(socket.SHUT_WR)
            assert await stranger.ended() == b""
        async with await connect(path) as first:
            assert await first.number(page.GET_FEATURES) == TAKEN | page.LOG_ALL
        await asyncio.wait_for(serving, GUARD)
    assert len(sessions) == 2
    (refusal,) = refusals
    assert refusal.startswith("a connection: expected a front end, got who begins ")


async def test_who_is_silent_keeps_no_front_end_waiting(tmp_path: Path) -> None:
    path, refusals = tmp_path / "socket", list[str]()
    async with listening(path) as (_, listener), AsyncExitStack() as stack:
        front_ends = FrontEnds(RecordingDevice(), partial(_note, refusals))
        serving = asyncio.create_task(front_ends.serve_next(listener))
        silent = [await stack.enter_async_context(await connect(path)) for _ in range(3)]
        # Not all of it: he is listened to, with what he has sent along.
        await silent[0].send_bytes(b"\1", [silent[0].eventfd()])
        await asyncio.sleep(0.01)
        assert front_ends.session is None
        async with await connect(path) as first:
            assert await first.number(page.GET_FEATURES) == TAKEN | page.LOG_ALL
            for each in silent:
                assert await each.ended() == b""
            assert await first.number(page.GET_QUEUE_NUM) == 3
        await asyncio.wait_for(serving, GUARD)
    reason = "expected one front end at a time, another has the device"
    assert refusals == [f"a second connection: {reason}"] * 3


async def test_of_too_many_that_are_silent_the_longest_makes_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, refusals = tmp_path / "socket", list[str]()
    monkeypatch.setattr(newcomers, "_MOST_SILENT", 2)
    async with listening(path) as (_, listener), AsyncExitStack() as stack:
        front_ends = FrontEnds(RecordingDevice(), partial(_note, refusals))
        serving = asyncio.create_task(front_ends.serve_next(listener))
        silent = [await stack.enter_async_context(await connect(path)) for _ in range(3)]
        assert await silent[0].ended() == b""
        assert refusals == ["a connection: expected a message sooner, got none before others came"]
        assert await silent[1].number(page.GET_FEATURES) == TAKEN | page.LOG_ALL
        assert await silent[2].ended() == b""
        silent[1].close()
        await asyncio.wait_for(serving, GUARD)


async def test_nobody_is_left_where_waiting_for_a_front_end_is_cancelled(tmp_path: Path) -> None:
    path, refusals = tmp_path / "socket", list[str]()
    async with listening(path) as (_, listener):
        front_ends = FrontEnds(RecordingDevice(), partial(_note, refusals))
        serving = asyncio.create_task(front_ends.serve_next(listener))
        async with await connect(path) as silent:
            await asyncio.sleep(0.01)
            serving.cancel()
            assert await silent.ended() == b""
        await asyncio.wait([serving])
    assert refusals == []


async def test_one_that_comes_while_the_last_is_cleaned_up_after_waits(tmp_path: Path) -> None:
    path, device = tmp_path / "socket", RecordingDevice()
    async with listening(path) as (_, listener):
        front_ends = FrontEnds(device, _ignore)
        serving = asyncio.create_task(front_ends.serve_next(listener))
        async with await connect(path) as first:
            for step in STEPS[:33]:
                await step(first)
            assert device.started is not None
            device.gate = asyncio.Event()
        await asyncio.wait_for(device.until(lambda: device.did[-1] == "stop"), GUARD)
        async with await connect(path) as second:
            device.gate.set()
            await asyncio.wait_for(serving, GUARD)
            serving = asyncio.create_task(front_ends.serve_next(listener))
            assert await second.number(page.GET_FEATURES) == TAKEN | page.LOG_ALL
        await asyncio.wait_for(serving, GUARD)


async def test_one_that_comes_while_the_last_has_hung_up_and_is_served_waits(
    tmp_path: Path,
) -> None:
    path, device = tmp_path / "socket", RecordingDevice()
    async with listening(path) as (_, listener):
        refusals = list[str]()
        front_ends = FrontEnds(device, partial(_note, refusals))
        serving = asyncio.create_task(front_ends.serve_next(listener))
        async with await connect(path) as first:
            for step in STEPS[:33]:
                await step(first)
            device.gate = asyncio.Event()
            await first.send(page.RESET_DEVICE)
            await asyncio.wait_for(device.until(lambda: device.did[-1] == "stop"), GUARD)
            await first.send(page.GET_FEATURES)
        async with await connect(path) as second:
            await second.send(page.GET_FEATURES)
            await asyncio.sleep(0.02)
            assert not serving.done()
            device.gate.set()
            await asyncio.wait_for(serving, GUARD)
            serving = asyncio.create_task(front_ends.serve_next(listener))
            assert (await second.receive())[0] == page.GET_FEATURES
        await asyncio.wait_for(serving, GUARD)
    assert refusals == []


@pytest.mark.parametrize("which", [0, 1], ids=["served", "turned away"])
async def test_what_nobody_received_is_closed_on_a_thread(tmp_path: Path, which: int) -> None:
    path = tmp_path / "socket"
    async with listening(path) as (front_ends, listener):
        serving = asyncio.create_task(front_ends.serve_next(listener))
        with lingering(seconds=5) as fd:
            async with await connect(path) as first, await connect(path) as second:
                noise = page.HEADER.pack(page.GET_FEATURES, 0, 0)
                sender = (first, second)[which]
                sender.socket.sendmsg([noise])
                socket.send_fds(sender.socket, [noise], [fd])
                os.close(fd)
                assert await sender.ended() == b""
                CLOSER.flush()
                # Had the loop closed it, it would be closed by now.
                assert CLOSER.waiting
            serving.cancel()
            await asyncio.wait([serving])


async def test_who_is_turned_away_is_closed_as_his_own_and_not_past_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(newcomers, "_RESTS", 0.001)
    monkeypatch.setattr(descriptors, "_MAX_WAITING", 2)
    refusals = list[str]()
    with open_folder() as folder, users(ALICE) as [alice], lingering(seconds=60) as fd:
        path = folder / "socket"
        async with listening(path) as (_, listener):
            path.chmod(0o666)
            front_ends = FrontEnds(RecordingDevice(), lambda _, why: refusals.append(str(why)))
            serving = asyncio.create_task(front_ends.serve_next(listener))
            async with await connect(path) as first:
                await first.negotiate(TAKEN)
                hers = [alice.do(_connection, path)]
                alice.do(socket.send_fds, hers[0], [b"x"], [fd])
                os.close(fd)
                async with asyncio.timeout(GUARD):
                    while not any("closing sleeps" in each for each in refusals):
                        hers.append(alice.do(_connection, path))
                        await asyncio.sleep(0.001)
                        CLOSER.flush()
                [(uid, waiting)] = CLOSER.by_user()
                assert uid == ALICE
                assert waiting < len(hers)
                assert await first.number(page.GET_QUEUE_NUM) == 3
            for each in hers:
                each.close()
            serving.cancel()
            await asyncio.wait([serving])


def _connection(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(path))
    return connection


async def test_nobody_is_accepted_while_there_are_no_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, refusals = tmp_path / "socket", list[str]()
    monkeypatch.setattr(newcomers, "_RESTS", 0.001)
    async with listening(path) as (_, listener):
        front_ends = FrontEnds(RecordingDevice(), lambda what, _: refusals.append(what))
        async with await connect(path) as first, await connect(path) as second:
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (first.eventfd(), limits[1]))
            try:
                serving = asyncio.create_task(front_ends.serve_next(listener))
                async with asyncio.timeout(GUARD):
                    while len(refusals) < 3:  # noqa: ASYNC110 - the system says when
                        await asyncio.sleep(0.001)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert set(refusals) == {"a connection"}
            await first.negotiate(TAKEN)
            assert await second.ended() == b""
        await asyncio.wait_for(serving, GUARD)


async def test_what_is_no_connection_is_refused() -> None:
    with pytest.raises(BadConnection):
        await FrontEnds(RecordingDevice(), _ignore).serve(socket.socket())


async def test_a_device_that_keeps_its_memory_is_told_of_all_the_same() -> None:
    """Whatever the device says at the end, the rest is done."""
    device = RecordingDevice()
    ours, theirs = socket.socketpair()
    async with FrontEnd(theirs) as front_end:
        serving = asyncio.create_task(FrontEnds(device, _ignore).serve(ours))
        await front_end.negotiate(TAKEN)
        await front_end.share_memory()
        await front_end.set_up(0)
        await front_end.done(page.SET_STATUS, u64(15))
        descriptors = len(open_descriptors())
        device.unwilling = {"stop", "remove_memory"}
    with pytest.raises(VdpadError, match="expected nobody to ask for"):
        await asyncio.wait_for(serving, GUARD)
    assert len(open_descriptors()) < descriptors
    assert mappings() == []
