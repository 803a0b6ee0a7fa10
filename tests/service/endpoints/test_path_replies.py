"""Replies to sockets at paths: each user's on his own thread, and so many of them."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.support.fuse import silent_file
from tests.support.no_means import no_threads
from tests.support.waiting import GUARD
from vdpad.service.endpoints import path_replies
from vdpad.service.endpoints.path_replies import PathReplies
from vdpad.wire.datagrams import AncillarySocket, Loss, Peer
from vdpad.wire.descriptors import CLOSER

# In seconds: whatever takes longer hangs.
ME = os.geteuid()
HAS_FUSE = Path("/dev/fuse").exists()


class Post:
    """A socket that sends, and the replies that were lost."""

    def __init__(self, stack: ExitStack) -> None:
        self.lost: list[tuple[Loss, int]] = []
        self.replies = PathReplies(stack.enter_context(AncillarySocket()), self._lost)

    def _lost(self, loss: Loss, peer: Peer, words: str) -> None:
        assert words
        self.lost.append((loss, peer.uid))

    def send(self, path: Path, uid: int = ME, reply: bytes = b"reply") -> "asyncio.Future[None]":
        return self.replies.send(reply, Peer(str(path), uid=uid), str(path))


@pytest.fixture
def post() -> Iterator[Post]:
    with ExitStack() as stack:
        yield Post(stack)


def client(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    made.settimeout(GUARD)
    return made


async def test_it_goes_there(post: Post, tmp_path: Path) -> None:
    with client(tmp_path / "x") as there:
        await post.send(tmp_path / "x")
        assert there.recv(100) == b"reply"
    assert post.lost == []


async def test_replies_to_one_client_keep_their_order(post: Post, tmp_path: Path) -> None:
    with client(tmp_path / "x") as there:
        sent = [post.send(tmp_path / "x", reply=bytes([number])) for number in range(8)]
        await asyncio.wait(sent)
        assert [there.recv(100) for _ in sent] == [bytes([number]) for number in range(8)]


async def test_what_is_lost_is_told(post: Post, tmp_path: Path) -> None:
    await post.send(tmp_path / "x")
    (tmp_path / "x").touch()
    await post.send(tmp_path / "x")
    with client(tmp_path / "y"):
        await post.send(tmp_path / "y", uid=ME + 1)
    assert post.lost == [(Loss.GONE, ME), (Loss.NOT_ITS_OWN, ME), (Loss.NOT_ITS_OWN, ME + 1)]


@asynccontextmanager
async def stuck(folder: Path) -> AsyncIterator[Path]:
    """A path whose socket nobody can look at until the block ends."""
    if ME != 0 or not HAS_FUSE:
        skip_or_fail("mounting FUSE takes root and /dev/fuse")
    with silent_file(folder) as (fd, _):
        # On a thread, since closing asks the server too.
        CLOSER.close(ME, [fd])
        yield folder / "file"


async def test_a_path_that_does_not_answer_holds_up_none_but_its_user(
    post: Post, tmp_path: Path
) -> None:
    (tmp_path / "silent").mkdir()
    with client(tmp_path / "x") as there:
        async with stuck(tmp_path / "silent") as path:
            waiting = post.send(path)
            behind = post.send(tmp_path / "x")
            await asyncio.wait_for(asyncio.shield(post.send(tmp_path / "x", uid=ME + 1)), GUARD)
            assert post.lost == [(Loss.NOT_ITS_OWN, ME + 1)]
            assert not waiting.done()
            assert not behind.done()
        await asyncio.wait([waiting, behind], timeout=GUARD)
        assert there.recv(100) == b"reply"


async def test_so_many_of_a_user_s_wait(
    post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "silent").mkdir()
    async with stuck(tmp_path / "silent") as path:
        waiting = [post.send(path) for _ in range(path_replies._MAX_WAITING + 3)]
        assert post.lost == [(Loss.NOT_READING, ME)] * 3
        assert sum(each.done() for each in waiting) == 3
        # Whoever gives up waiting for one has not made room: it is still held.
        waiting[0].cancel()
        post.send(path)
        assert len(post.lost) == 4
    await asyncio.wait([each for each in waiting if not each.cancelled()], timeout=GUARD)
    with client(tmp_path / "x") as there:
        await post.send(tmp_path / "x")
        assert there.recv(100) == b"reply"


async def test_without_threads_a_reply_is_lost_and_the_next_goes_there(
    post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(tmp_path / "x") as there:
        with monkeypatch.context() as patch:
            no_threads(patch)
            await post.send(tmp_path / "x")
        assert post.lost == [(Loss.STUCK, ME)]
        await post.send(tmp_path / "x")
        assert there.recv(100) == b"reply"
