"""Foreign descriptors: what their closing does is nobody's trouble but their sender's."""

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.support.descriptors import lingering
from tests.support.fuse import silent_file
from tests.support.no_means import no_threads
from tests.support.waiting import GUARD, wait_until
from vdpad.wire import descriptors, user_threads
from vdpad.wire.descriptors import MAX_RECEIVED, RIGHTS_SIZE, Closer, received

# In seconds: whatever takes longer hangs.
ALICE, BOB = 1000, 1001
until = partial(wait_until, every=0.001)


def is_open(fd: int) -> bool:
    """Whether this process has such a descriptor."""
    return os.path.lexists(f"/proc/self/fd/{fd}")


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[int]:
    """A descriptor whose closing sleeps for as long as the test goes on."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        skip_or_fail("mounting FUSE takes root and /dev/fuse")
    with silent_file(tmp_path) as (fd, _):
        yield fd


def some() -> int:
    """A descriptor that closes at once."""
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def test_what_is_handed_over_is_closed() -> None:
    closer, fds = Closer(), [some() for _ in range(5)]
    closer.close(ALICE, fds)
    until(lambda: not any(map(is_open, fds)))
    until(lambda: not closer.waiting)


def test_nobody_waits_for_a_closing_that_sleeps(stuck: int) -> None:
    closer, another = Closer(), some()
    closer.close(ALICE, [stuck, another])
    assert closer.waiting == 2
    assert closer.by_user() == [(ALICE, 2)]


def test_one_user_s_descriptors_hold_up_none_of_another_s(stuck: int) -> None:
    closer, hers, his = Closer(), some(), some()
    closer.close(ALICE, [stuck])
    closer.close(ALICE, [hers])
    closer.close(BOB, [his])
    until(lambda: not is_open(his))
    assert is_open(hers)
    assert closer.by_user() == [(ALICE, 2)]


def test_a_socket_that_lingers_holds_up_nobody() -> None:
    with lingering(3600) as fd:
        closer = Closer()
        closer.close(ALICE, [fd])
        assert closer.waiting == 1
    until(lambda: not closer.waiting)  # its peer is gone


async def test_in_a_loop_it_waits_a_moment_so_that_no_thread_wakes_in_a_commit() -> None:
    closer, fd = Closer(), some()
    closer.close(ALICE, [fd])
    assert is_open(fd)
    async with asyncio.timeout(GUARD):
        while closer.waiting:  # noqa: ASYNC110 - a thread does it
            await asyncio.sleep(0.001)
    assert not is_open(fd)


async def test_many_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "_LATER", 3600)
    monkeypatch.setattr(descriptors, "_MAX_DEFERRED", 3)
    closer, fds = Closer(), [some() for _ in range(4)]
    closer.close(ALICE, fds)
    until(lambda: not any(map(is_open, fds)))


def test_past_a_bound_there_are_too_many_until_half_are_gone(
    stuck: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "_MAX_WAITING", 4)
    closer, relieved = Closer(), []
    closer.close(ALICE, [stuck, some(), some()])
    assert not closer.are_too_many
    closer.when_relieved(lambda: relieved.append(True))
    closer.close(BOB, [some()])
    until(lambda: closer.by_user() == [(ALICE, 3)])
    closer.close(ALICE, [some()])
    assert closer.are_too_many
    assert not relieved


def test_of_a_process_that_may_have_few_a_third_may_wait(stuck: int) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, limits[1]))
    try:
        closer = Closer()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    closer.close(ALICE, [stuck, *(some() for _ in range(49))])
    assert closer.are_too_many_of(ALICE)
    assert not closer.are_too_many
    closer.close(BOB, [some() for _ in range(10)])
    until(lambda: closer.by_user() == [(ALICE, 50)])
    closer.close(ALICE, [some() for _ in range(150)])
    assert closer.are_too_many


def test_a_user_whose_descriptors_are_stuck_keeps_no_room_from_another(
    stuck: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "_MAX_WAITING", 8)
    monkeypatch.setattr(descriptors, "_MAX_OF_ONE", 4)
    closer = Closer()
    closer.close(ALICE, [stuck, *(some() for _ in range(7))])
    until(lambda: closer.by_user() == [(ALICE, 8)])
    assert closer.are_too_many
    assert closer.are_too_many_of(ALICE)
    assert not closer.are_too_many_of(BOB)
    closer.close(ALICE, [some() for _ in range(4)])
    assert closer.are_too_many_of(BOB)


async def test_a_user_is_relieved_of_his_own_while_another_s_are_stuck(
    stuck: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "_MAX_WAITING", 8)
    monkeypatch.setattr(descriptors, "_MAX_OF_ONE", 4)
    closer = Closer()
    closer.close(ALICE, [stuck, some(), some(), some()])
    waiting = asyncio.create_task(closer.relieved(BOB))
    hers = asyncio.create_task(closer.relieved(ALICE))
    await asyncio.sleep(0)
    closer.close(BOB, [some() for _ in range(3)])
    async with asyncio.timeout(GUARD):
        await waiting
    assert not hers.done()
    hers.cancel()


def test_whoever_waited_is_called_once_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "_MAX_WAITING", 4)
    closer, relieved = Closer(), []
    closer.when_relieved(lambda: relieved.append(True))
    closer.close(ALICE, [some() for _ in range(9)])
    until(lambda: relieved == [True])


def test_users_past_the_most_share_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_threads, "_MAX_USERS", 1)
    closer, fds = Closer(), [some() for _ in range(3)]
    for uid, fd in enumerate(fds):
        closer.close(uid, [fd])
    assert len(closer._threads) <= 2
    until(lambda: not any(map(is_open, fds)))


def test_a_thread_ends_when_there_is_nothing_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_threads, "_IDLE", 0.01)
    closer, again = Closer(), some()
    closer.close(ALICE, [some()])
    until(lambda: not closer._threads)
    closer.close(ALICE, [again])
    until(lambda: not is_open(again))


def test_what_is_not_open_any_more_harms_nobody() -> None:
    closer, fd, another = Closer(), some(), some()
    os.close(fd)
    closer.close(ALICE, [fd, another])
    until(lambda: not is_open(another))


def test_there_is_room_for_all_that_the_kernel_lets_through() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs, open("/dev/null") as file:
        socket.send_fds(theirs, [b"x"], [file.fileno()] * MAX_RECEIVED)
        _, control, flags, _ = ours.recvmsg(1, RIGHTS_SIZE, socket.MSG_CMSG_CLOEXEC)
        fds = received(control)
        with pytest.raises(OSError, match="Invalid argument"):
            socket.send_fds(theirs, [b"x"], [file.fileno()] * (MAX_RECEIVED + 1))
    for fd in fds:
        os.close(fd)
    assert len(fds) == MAX_RECEIVED
    assert not flags & socket.MSG_CTRUNC


async def test_without_threads_they_wait_until_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(descriptors, "_TRIES_AGAIN", 0.001)
    closer, fds = Closer(), [some() for _ in range(3)]
    with monkeypatch.context() as patch:
        no_threads(patch)
        closer.close(ALICE, fds)
        closer.flush()
        assert all(map(is_open, fds))
        assert (closer.waiting, closer.by_user()) == (3, [])
        await asyncio.sleep(0.01)
        assert closer.waiting == 3
    async with asyncio.timeout(GUARD):
        while closer.waiting:  # noqa: ASYNC110 - threads say when
            await asyncio.sleep(0.001)
    assert not any(map(is_open, fds))
