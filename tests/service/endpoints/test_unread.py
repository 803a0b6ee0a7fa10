"""Replies that nobody has read yet: whoever does not read leaves room for those who do.

The kernel is the judge: a socket with its buffer, and clients that read or do not.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.support.waiting import GUARD
from vdpad.service.endpoints.unread import SMALL, Unread
from vdpad.wire.datagrams import AncillarySocket

ALICE, BOB, CAROL = 1000, 1001, 1002

BUFFER = 4 << 20
REPORT, MIDDLE, LARGE = 200, 7900, 200 * 1024


class Post:
    """A socket that sends, and what is known of its replies."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._stack = stack
        self._path = folder / "post"
        self.socket = stack.enter_context(AncillarySocket())
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER // 2)
        self.socket.bind(str(self._path))
        assert self.socket.send_buffer == BUFFER
        self.unread = Unread(BUFFER, self.socket.unread)

    def client(self) -> socket.socket:
        """One that is connected, so that its queue has no end of its own."""
        made = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        made.setblocking(False)
        made.bind("")
        made.connect(str(self._path))
        return made

    async def send(self, user: int, client: socket.socket, size: int = REPORT) -> bool:
        """Sends a reply as the endpoint does; whether it went."""

        def send() -> None:
            self.socket.send_to(bytes(size), client.getsockname())

        if self.unread.is_calm(size):
            send()
            return True
        if size <= SMALL and self.unread.send_small(user, size, send):
            return True
        return await self.unread.send(user, client, size, send)

    async def fill(self, user: int, client: socket.socket, size: int = MIDDLE) -> int:
        """Sends until no more may go; how many went."""
        count = 0
        while await self.send(user, client, size):
            count += 1
        return count


@pytest.fixture
def post(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Post]:
    # Nobody reads in these tests unless he is made to, at once.
    monkeypatch.setattr("vdpad.service.endpoints.unread._MOMENT", 0.0005)
    with ExitStack() as stack:
        yield Post(tmp_path, stack)


async def talk(
    post: Post, user: int, client: socket.socket, times: int, size: int = REPORT
) -> None:
    """Has so many replies sent, each of which is read as it comes."""
    loop = asyncio.get_running_loop()
    for _ in range(times):
        reading = asyncio.ensure_future(loop.sock_recv(client, LARGE))
        await asyncio.sleep(0)
        assert await post.send(user, client, size)
        assert len(await reading) == size


@pytest.mark.parametrize("size", [REPORT, MIDDLE, LARGE])
async def test_one_who_does_not_read_leaves_room(post: Post, size: int) -> None:
    deaf, honest = post.client(), post.client()
    assert await post.fill(ALICE, deaf, size) > 5
    assert post.socket.unread() < BUFFER * 0.8
    await talk(post, BOB, honest, 100)
    await talk(post, BOB, honest, 20, MIDDLE)


@pytest.mark.parametrize("size", [MIDDLE, LARGE])
async def test_who_does_not_read_lists_leaves_reports_to_others_of_his_user(
    post: Post, size: int
) -> None:
    deaf, honest = post.client(), post.client()
    await post.fill(ALICE, deaf, size)
    assert not await post.send(ALICE, honest, size)
    await talk(post, ALICE, honest, BUFFER // 1000)
    # A burst, of which nothing is read until all has been sent.
    for _ in range(100):
        assert post.unread.send_small(
            ALICE, SMALL, partial(post.socket.send_to, b"x", _name(honest))
        )
    assert [honest.recv(100) for _ in range(100)] == [b"x"] * 100
    await talk(post, BOB, post.client(), 20, MIDDLE)


def _name(client: socket.socket) -> bytes:
    name: bytes = client.getsockname()
    return name


async def test_others_of_a_user_wait_for_one_moment_of_one_who_does_not_read(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vdpad.service.endpoints.deaf._KNOWN", 3600.0)
    deaf, honest = post.client(), post.client()
    while post.unread.is_calm(MIDDLE):
        await post.send(ALICE, deaf, MIDDLE)
    await post.send(ALICE, deaf, MIDDLE)
    monkeypatch.setattr("vdpad.service.endpoints.unread._MOMENT", 3600.0)
    async with asyncio.timeout(GUARD):
        waiting = [asyncio.ensure_future(post.send(ALICE, deaf, MIDDLE)) for _ in range(16)]
        await talk(post, ALICE, honest, 1, MIDDLE)
        assert all(await asyncio.gather(*waiting))


async def test_small_ones_end_too(post: Post) -> None:
    """Those that nobody reads, at the user's share."""
    await post.fill(ALICE, post.client())
    await post.fill(ALICE, post.client(), SMALL)
    assert post.socket.unread() < BUFFER * 0.8
    await talk(post, BOB, post.client(), 20, MIDDLE)


async def test_many_sockets_are_one_user(post: Post) -> None:
    for _ in range(16):
        await post.fill(ALICE, post.client())
    assert post.socket.unread() < BUFFER * 0.8
    await talk(post, BOB, post.client(), 20, MIDDLE)


async def test_a_second_one_who_does_not_read_leaves_some_too(post: Post) -> None:
    first = await post.fill(ALICE, post.client())
    second = await post.fill(BOB, post.client())
    assert second > first / 6
    assert post.socket.unread() < BUFFER * 0.95
    await talk(post, CAROL, post.client(), 100)


async def test_who_reads_is_answered_on_and_on_among_those_who_do_not(post: Post) -> None:
    """More goes to him than there is room for, many times over."""
    await post.fill(ALICE, post.client())
    await talk(post, BOB, post.client(), 2 * BUFFER // MIDDLE, MIDDLE)


async def test_who_does_not_read_cannot_put_it_on_others(post: Post) -> None:
    """Whenever somebody is sent something, and reads it, so is one who does not."""
    deaf, honest = post.client(), post.client()
    went = 0
    for _ in range(1000):
        went += await post.send(ALICE, deaf, MIDDLE)
        await talk(post, BOB, honest, 1, MIDDLE)
    assert went < 300
    assert post.socket.unread() < BUFFER * 0.8


async def test_who_reads_late_is_answered_again(post: Post) -> None:
    deaf, late = post.client(), post.client()
    await post.fill(ALICE, deaf)
    count = await post.fill(BOB, late)
    assert not await post.send(BOB, late, MIDDLE)
    for _ in range(count):
        late.recv(LARGE)
    assert await post.fill(BOB, late) == count


async def test_once_all_is_read_all_is_forgotten(post: Post) -> None:
    deaf = post.client()
    count = await post.fill(ALICE, deaf)
    deaf.close()
    assert post.socket.unread() == 0
    assert await post.fill(ALICE, post.client()) == count


async def test_where_nothing_is_unread_any_reply_goes(tmp_path: Path) -> None:
    """Whatever the buffer is: the kernel takes one datagram past its end."""
    unread = Unread(100_000, lambda: 0)
    assert unread.is_calm(LARGE)
    unread = Unread(100_000, lambda: 1)
    assert not unread.is_calm(LARGE)
    assert not await unread.send(ALICE, "a client", LARGE, lambda: None)


async def test_what_does_not_get_away_is_owed_all_the_same(post: Post) -> None:
    """A path that is looked up for long: the reply may be unread by the time it is sent."""
    await post.fill(ALICE, post.client())
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    send = partial(post.unread.send, BOB, "a client", MIDDLE, lambda: never)
    went = 0
    async with asyncio.timeout(GUARD):
        while await send():
            went += 1
    assert went < 100
