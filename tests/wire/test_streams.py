"""Messages on a connected socket: their bounds, what rides on them, and who does not keep to it."""

import asyncio
import os
import socket
from collections.abc import Iterator, Sequence

import pytest

from tests.support.descriptors import no_descriptor_left
from tests.support.waiting import GUARD
from vdpad.wire.datagrams import MAX_DESCRIPTORS
from vdpad.wire.streams import (
    MAX_MESSAGE,
    SMALL,
    CutOff,
    Message,
    Stalled,
    Stream,
    TooLong,
)

# In seconds: whatever takes longer hangs. Nothing that passes ever waits for it.

# In seconds: so short that tests can wait for it.
SOON = 0.05

Ends = tuple[Stream, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A stream, and the other end, which blocks."""
    with no_descriptor_left():
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            yield Stream(ours, GUARD), theirs


async def received(stream: Stream) -> Message:
    async with asyncio.timeout(GUARD):
        message = await stream.receive()
    assert message is not None
    return message


@pytest.fixture
def files() -> Iterator[list[int]]:
    """Descriptors to send, each of another file."""
    made = [os.memfd_create(str(number)) for number in range(2 * MAX_DESCRIPTORS)]
    yield made
    for fd in made:
        os.close(fd)


def are(fds: Sequence[int], files: Sequence[int]) -> bool:
    """Whether descriptors are copies of these; they are closed."""
    inodes = [os.fstat(fd).st_ino for fd in fds]
    for fd in fds:
        os.close(fd)
    return inodes == [os.fstat(fd).st_ino for fd in files]


# --- bounds ---


async def test_a_message_ends_with_its_nul_byte(ends: Ends) -> None:
    stream, peer = ends
    peer.sendall(b"one\0two\0\0thr")
    assert [(await received(stream)).data for _ in range(3)] == [b"one", b"two", b""]
    peer.sendall(b"ee\0")
    assert (await received(stream)).data == b"three"


async def test_a_message_may_come_byte_by_byte(ends: Ends) -> None:
    stream, peer = ends
    receiving = asyncio.ensure_future(received(stream))
    for byte in b"drip\0":
        peer.send(bytes([byte]))
        await asyncio.sleep(0.001)
    assert (await receiving).data == b"drip"


async def test_the_end_comes_after_the_last_message(ends: Ends) -> None:
    stream, peer = ends
    peer.sendall(b"last\0")
    peer.shutdown(socket.SHUT_WR)
    assert (await received(stream)).data == b"last"
    assert await stream.receive() is None
    assert await stream.receive() is None


async def test_an_end_in_the_midst_of_a_message_says_so(ends: Ends) -> None:
    stream, peer = ends
    peer.sendall(b"las")
    peer.close()
    with pytest.raises(CutOff, match="after 3 bytes"):
        await stream.receive()


@pytest.mark.parametrize("length", [MAX_MESSAGE - 1, MAX_MESSAGE])
async def test_a_message_may_be_as_long_as_the_page_says(ends: Ends, length: int) -> None:
    stream, peer = ends
    sending = asyncio.create_task(asyncio.to_thread(peer.sendall, b"x" * length + b"\0next\0"))
    assert (await received(stream)).data == b"x" * length
    assert (await received(stream)).data == b"next"
    await sending


async def test_a_longer_one_is_refused_before_it_is_taken(ends: Ends) -> None:
    stream, peer = ends
    sending = asyncio.create_task(asyncio.to_thread(peer.sendall, b"x" * (2 * MAX_MESSAGE)))
    async with asyncio.timeout(GUARD):
        with pytest.raises(TooLong, match=str(MAX_MESSAGE)):
            await stream.receive()
    stream.close()
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        await sending


async def test_before_a_large_message_is_read_on_one_is_asked_once(ends: Ends) -> None:
    stream, peer = ends
    asked = 0

    async def before_more() -> None:
        nonlocal asked
        asked += 1

    whole = b"s" * SMALL + b"\0" + b"l" * (20 * SMALL) + b"\0"
    sending = asyncio.create_task(asyncio.to_thread(peer.sendall, whole))
    for expected in (0, 1):
        message = await stream.receive(before_more)
        assert message is not None
        assert asked == expected
    await sending


async def test_waiting_for_room_takes_nothing_more(ends: Ends) -> None:
    stream, peer = ends
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * SMALL)
    peer.setblocking(False)
    room = asyncio.Event()

    async def before_more() -> None:
        await room.wait()

    receiving = asyncio.create_task(stream.receive(before_more))
    loop = asyncio.get_running_loop()
    sending = asyncio.create_task(loop.sock_sendall(peer, b"x" * MAX_MESSAGE + b"\0"))
    done, _ = await asyncio.wait([receiving, sending], timeout=SOON)
    assert not done
    room.set()
    message = await receiving
    assert message is not None
    assert len(message.data) == MAX_MESSAGE
    await sending


# --- those who don't keep to it ---


async def test_who_drips_is_cut_off_though_something_always_comes() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = Stream(ours, SOON)

    async def drip() -> None:
        while True:
            theirs.send(b"x")
            await asyncio.sleep(SOON / 20)

    dripping = asyncio.create_task(drip())
    with ours, theirs:
        async with asyncio.timeout(GUARD):
            with pytest.raises(Stalled, match=r"expected a message .* got \d+ bytes"):
                await stream.receive()
        dripping.cancel()


async def test_who_is_silent_in_the_midst_of_a_message_is_cut_off() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        theirs.send(b"x")
        async with asyncio.timeout(GUARD):
            with pytest.raises(Stalled):
                await Stream(ours, SOON).receive()


async def test_nobody_is_hurried_between_messages() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        receiving = asyncio.create_task(Stream(ours, SOON / 10).receive())
        await asyncio.wait([receiving], timeout=SOON)
        assert not receiving.done()
        theirs.sendall(b"x\0")
        message = await receiving
        assert message is not None
        assert message.data == b"x"


async def test_who_does_not_read_is_cut_off() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        async with asyncio.timeout(GUARD):
            with pytest.raises(Stalled, match=r"expected the replies to be read .* bytes"):
                await Stream(ours, SOON).send(b"x" * MAX_MESSAGE)


async def test_who_reads_slowly_gets_all(ends: Ends) -> None:
    stream, peer = ends
    sending = asyncio.create_task(stream.send(b"x" * MAX_MESSAGE))
    got = bytearray()
    while not got.endswith(b"\0"):
        got += await asyncio.to_thread(peer.recv, 100_000)
    await sending
    assert got == b"x" * MAX_MESSAGE + b"\0"


# --- descriptors ---


async def test_descriptors_are_of_the_message_that_they_came_with(
    ends: Ends, files: list[int]
) -> None:
    stream, peer = ends
    peer.sendall(b"none\0")
    socket.send_fds(peer, [b"first\0"], files[:1])
    peer.sendall(b"none\0")
    socket.send_fds(peer, [b"second\0"], files[1:4])
    messages = [await received(stream) for _ in range(4)]
    assert not any(os.get_inheritable(fd) for each in messages for fd in each.fds)
    assert [each.data for each in messages] == [b"none", b"first", b"none", b"second"]
    assert [len(each.fds) for each in messages] == [0, 1, 0, 3]
    assert are(messages[1].fds, files[:1])
    assert are(messages[3].fds, files[1:4])


async def test_descriptors_of_several_messages_sent_at_once_are_of_the_first(
    ends: Ends, files: list[int]
) -> None:
    stream, peer = ends
    socket.send_fds(peer, [b"first\0second\0"], files[:2])
    first, second = await received(stream), await received(stream)
    assert are(first.fds, files[:2])
    assert not second.fds


async def test_descriptors_may_ride_on_any_piece(ends: Ends, files: list[int]) -> None:
    stream, peer = ends
    peer.send(b"a")
    socket.send_fds(peer, [b"b"], files[:1])
    socket.send_fds(peer, [b"c\0"], files[1:2])
    message = await received(stream)
    assert message.data == b"abc"
    assert are(message.fds, files[:2])


async def test_of_too_many_descriptors_none_is_kept(ends: Ends, files: list[int]) -> None:
    stream, peer = ends
    socket.send_fds(peer, [b"a"], files)
    socket.send_fds(peer, [b"b\0"], files[:2])
    peer.sendall(b"next\0")
    message = await received(stream)
    assert message.too_many_fds
    assert not message.fds
    assert not (await received(stream)).too_many_fds


@pytest.mark.parametrize("what", ["cancel", "close"])
async def test_descriptors_of_a_message_that_never_comes_whole_are_closed(
    ends: Ends, files: list[int], what: str
) -> None:
    stream, peer = ends
    socket.send_fds(peer, [b"x"], files[:3])
    receiving = asyncio.create_task(stream.receive())
    await asyncio.sleep(SOON)
    if what == "cancel":
        receiving.cancel()
    else:
        peer.close()
    with pytest.raises((CutOff, asyncio.CancelledError)):
        await receiving


async def test_descriptors_are_sent_once(ends: Ends, files: list[int]) -> None:
    stream, peer = ends
    sending = asyncio.create_task(stream.send(b"x" * MAX_MESSAGE, files[:2]))
    data, fds, _, _ = await asyncio.to_thread(socket.recv_fds, peer, 100, 10)
    assert are(fds, files[:2])
    size = len(data)
    while size <= MAX_MESSAGE:
        data, fds, _, _ = await asyncio.to_thread(socket.recv_fds, peer, 1 << 20, 10)
        assert not fds
        size += len(data)
    await sending


# --- the other end ---


async def test_the_kernel_says_who_is_there(ends: Ends) -> None:
    credentials = ends[0].credentials
    assert (credentials.pid, credentials.uid, credentials.gid) == (
        os.getpid(),
        os.geteuid(),
        os.getegid(),
    )


async def test_a_hang_up_is_told_whatever_is_unread(ends: Ends) -> None:
    stream, peer = ends
    peer.sendall(b"unread\0")
    hung_up = asyncio.create_task(stream.hung_up())
    await asyncio.wait([hung_up], timeout=SOON)
    assert not hung_up.done()
    peer.close()
    async with asyncio.timeout(GUARD):
        await hung_up
    assert (await received(stream)).data == b"unread"


async def test_who_only_sends_no_more_has_not_hung_up(ends: Ends) -> None:
    stream, peer = ends
    peer.shutdown(socket.SHUT_WR)
    hung_up = asyncio.create_task(stream.hung_up())
    await asyncio.wait([hung_up], timeout=SOON)
    assert not hung_up.done()
    hung_up.cancel()


async def test_what_had_come_is_received_after_the_end_of_receiving(ends: Ends) -> None:
    stream, peer = ends
    peer.sendall(b"one\0two\0")
    stream.end_receiving()
    with pytest.raises(BrokenPipeError):
        peer.send(b"three\0")
    assert [(await received(stream)).data for _ in range(2)] == [b"one", b"two"]
    assert await stream.receive() is None
