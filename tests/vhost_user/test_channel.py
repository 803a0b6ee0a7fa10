"""Whole messages out of a stream, whatever the front end does with its bytes and descriptors."""

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.descriptors import lingering
from tests.support.waiting import GUARD
from tests.vhost_user import front_end as page
from tests.vhost_user.front_end import HEADER, NEED_REPLY, VERSION, FrontEnd
from vdpad.vhost_user.channel import Channel
from vdpad.vhost_user.faults import BadConnection, BadMessage, FrontEndGone
from vdpad.vhost_user.messages import Header
from vdpad.wire import descriptors
from vdpad.wire.descriptors import CLOSER, MAX_RECEIVED

KICK = HEADER.pack(page.SET_VRING_KICK, VERSION, 8) + page.u64(1)
FEATURES = HEADER.pack(page.SET_FEATURES, VERSION | NEED_REPLY, 8) + page.u64(1 << 32)

pytestmark = pytest.mark.usefixtures("nothing_left")


class Ends:
    """Both ends of a connection."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        self.front_end = FrontEnd(theirs)

    def close(self) -> None:
        self.channel.close()
        self.front_end.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


async def test_a_message_with_its_descriptor(ends: Ends) -> None:
    await ends.front_end.send_bytes(KICK, [ends.front_end.eventfd()])
    message = await ends.channel.receive()
    assert message is not None
    assert (message.request, message.needs_reply) == (page.SET_VRING_KICK, False)
    assert message.payload == page.u64(1)
    assert len(message.attached) == 1
    fd = message.attached.take()
    assert os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventfd]"
    assert not os.get_inheritable(fd)
    os.close(fd)


async def test_who_is_there(ends: Ends) -> None:
    assert (ends.channel.front_end.pid, ends.channel.front_end.uid) == (os.getpid(), os.getuid())


async def test_several_that_came_at_once(ends: Ends) -> None:
    await ends.front_end.send_bytes(FEATURES * 3)
    ends.front_end.close()
    for _ in range(3):
        message = await ends.channel.receive()
        assert message is not None
        assert (message.payload, message.needs_reply) == (page.u64(1 << 32), True)
    assert await ends.channel.receive() is None


async def test_bytes_that_drip(ends: Ends) -> None:
    receiving = asyncio.create_task(ends.channel.receive())
    for at in range(len(KICK)):
        await ends.front_end.send_bytes(
            KICK[at : at + 1], [ends.front_end.eventfd()] if not at else []
        )
        await asyncio.sleep(0.001)
    message = await receiving
    assert message is not None
    assert message.payload == page.u64(1)
    message.attached.close()


@pytest.mark.parametrize("cut", range(1, len(KICK)))
async def test_a_connection_that_ends_in_the_midst(ends: Ends, cut: int) -> None:
    await ends.front_end.send_bytes(KICK[:cut], [ends.front_end.eventfd()])
    ends.front_end.close()
    with pytest.raises(BadMessage, match="the connection's end"):
        await ends.channel.receive()


async def test_a_connection_that_ends_between_two(ends: Ends) -> None:
    ends.front_end.close()
    assert await ends.channel.receive() is None


async def test_a_front_end_that_went_without_reading(ends: Ends) -> None:
    await ends.channel.send(Header(page.GET_FEATURES, 5, 8), page.u64(0))
    ends.front_end.close()
    assert await ends.channel.receive() is None


@pytest.mark.parametrize("size", [0, 7, 9, 4096, 4097, 1 << 31, (1 << 32) - 1])
async def test_a_size_that_is_a_lie_is_refused_before_its_bytes_come(ends: Ends, size: int) -> None:
    fds = [ends.front_end.eventfd()]
    await ends.front_end.send(page.SET_VRING_KICK, b"", fds, size=size)
    with pytest.raises(BadMessage, match="SET_VRING_KICK: expected 8 bytes, got"):
        await ends.channel.receive()


@pytest.mark.parametrize("number", [0, 2, 8, MAX_RECEIVED])
async def test_too_few_and_too_many_descriptors(ends: Ends, number: int) -> None:
    fds = [ends.front_end.eventfd()] * number
    await ends.front_end.send_bytes(KICK, fds)
    with pytest.raises(BadMessage, match=f"expected 1 descriptors, got {number}"):
        await ends.channel.receive()


@pytest.mark.parametrize("at", [1, 11, 12, 19])
async def test_descriptors_behind_the_first_byte(ends: Ends, at: int) -> None:
    receiving = asyncio.create_task(ends.channel.receive())
    await ends.front_end.send_bytes(KICK[:at])
    await asyncio.sleep(0.01)
    await ends.front_end.send_bytes(KICK[at:], [ends.front_end.eventfd()])
    with pytest.raises(BadMessage, match="on a message's first byte"):
        await receiving


@pytest.mark.parametrize(("uid", "is_served"), [(60_001, True), (os.getuid(), False)])
async def test_descriptors_that_are_stuck_end_only_their_own_user_s_connection(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, uid: int, is_served: bool
) -> None:
    monkeypatch.setattr(descriptors, "_MAX_WAITING", 8)
    monkeypatch.setattr(descriptors, "_MAX_OF_ONE", 8)
    with lingering(seconds=60) as fd:
        CLOSER.close(uid, [fd, *(os.memfd_create("behind it") for _ in range(7))])
        CLOSER.flush()
        assert CLOSER.are_too_many  # for a datagram
        await ends.front_end.send_bytes(KICK, [ends.front_end.eventfd()])
        if is_served:
            message = await ends.channel.receive()
            assert message is not None
            message.attached.close()
        else:
            with pytest.raises(BadMessage, match="too many whose closing sleeps"):
                await ends.channel.receive()


async def test_more_descriptors_than_this_process_may_have(ends: Ends) -> None:
    await ends.front_end.send_bytes(KICK, [ends.front_end.eventfd()] * 100)
    await asyncio.sleep(0)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = ends.front_end.eventfd()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 5, limits[1]))
    try:
        with pytest.raises(BadMessage, match="RLIMIT_NOFILE"):
            await ends.channel.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_a_reply_waits_for_its_reader(ends: Ends) -> None:
    sending = asyncio.create_task(_send_many(ends.channel, 2000))
    await asyncio.sleep(0.05)
    assert not sending.done()
    for _ in range(2000):
        assert (await ends.front_end.receive())[2] == bytes(200)
    await asyncio.wait_for(sending, GUARD)


async def _send_many(channel: Channel, number: int) -> None:
    for _ in range(number):
        await channel.send(Header(page.GET_CONFIG, 5, 200), bytes(200))


async def test_a_reply_that_nobody_will_read(ends: Ends) -> None:
    ends.front_end.close()
    with pytest.raises(FrontEndGone, match="the front end is gone"):
        await ends.channel.send(Header(page.GET_FEATURES, 5, 8), page.u64(0))


async def test_a_front_end_that_sends_without_end_lets_others_run(ends: Ends) -> None:
    await ends.front_end.send_bytes(FEATURES * 100)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    for _ in range(100):
        assert await ends.channel.receive() is not None
    counting.cancel()
    assert turns >= 99


async def test_a_descriptor_that_blocks_holds_up_nobody() -> None:
    """As an inherited one may: its flags are whoever made it's to change."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    receiving = asyncio.create_task(channel.receive())
    await asyncio.sleep(0)
    os.set_blocking(ours.fileno(), True)
    await asyncio.sleep(0.01)
    theirs.send(FEATURES)
    assert await asyncio.wait_for(receiving, GUARD) is not None
    channel.close()
    theirs.close()


async def test_cancelled_it_keeps_no_descriptor(ends: Ends) -> None:
    receiving = asyncio.create_task(ends.channel.receive())
    await ends.front_end.send_bytes(KICK[:5], [ends.front_end.eventfd()])
    await asyncio.sleep(0.01)
    receiving.cancel()
    await asyncio.wait([receiving])
    assert receiving.cancelled()


@pytest.mark.parametrize(
    ("family", "kind"),
    [(socket.AF_UNIX, socket.SOCK_DGRAM), (socket.AF_INET, socket.SOCK_STREAM)],
)
def test_other_sockets_are_no_connection(family: int, kind: int) -> None:
    with pytest.raises(BadConnection, match="expected a stream socket of AF_UNIX"):
        Channel(socket.socket(family, kind))


def test_a_listening_socket_speaks_of_nobody(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    with pytest.raises(BadConnection, match="expected a connected socket"):
        Channel(listener)
