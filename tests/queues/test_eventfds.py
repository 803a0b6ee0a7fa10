"""Kick and call: never block, never lose a notification, never touch what is no eventfd."""

import asyncio
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.descriptors import no_descriptor_left
from tests.support.marks import in_bulk
from tests.support.waiting import GUARD
from vdpad.errors import VdpadError
from vdpad.queues import eventfds
from vdpad.queues.eventfds import (
    UNKNOWN_EVENTFD,
    EventfdSender,
    NotAnEventfd,
    Waiter,
    check_eventfd,
    kicks_that_do_not_block,
)

FULL = (1 << 64) - 2
"""All that an eventfd's counter takes."""


@pytest.fixture(params=[0, os.EFD_NONBLOCK], ids=["blocking", "nonblocking"])
def eventfd(request: pytest.FixtureRequest) -> Iterator[int]:
    fd = os.eventfd(0, request.param | os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


def _count(fd: int) -> int:
    """What the counter holds; it is 0 afterwards."""
    os.set_blocking(fd, False)
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


# --- what is an eventfd ---


def _pipe() -> int:
    end, other = os.pipe()
    os.close(other)
    return end


def _file() -> int:
    return os.open("/proc/self/status", os.O_RDONLY)


def _memfd() -> int:
    return os.memfd_create("eventfd-count: 1")


def _socket() -> int:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach()


def _epoll() -> int:
    """One that watches an eventfd, and so names it in its own fdinfo."""
    epoll, eventfd = select.epoll(), os.eventfd(0)
    epoll.register(eventfd)
    os.close(eventfd)
    fd = os.dup(epoll.fileno())
    epoll.close()
    return fd


def _directory() -> int:
    return os.open("/", os.O_RDONLY | os.O_DIRECTORY)


@pytest.mark.parametrize("kind", [_pipe, _file, _memfd, _socket, _epoll, _directory])
def test_what_is_no_eventfd_is_refused_by_its_name(kind: Callable[[], int]) -> None:
    fd = kind()
    try:
        with pytest.raises(NotAnEventfd, match="expected an eventfd as the kick") as refused:
            check_eventfd(fd, "kick")
    finally:
        os.close(fd)
    assert isinstance(refused.value, VdpadError)


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    fd = os.eventfd(0)
    os.close(fd)
    with pytest.raises(NotAnEventfd, match="expected the call eventfd"):
        check_eventfd(fd, "call")


def test_an_eventfd_is_accepted_and_left_alone(eventfd: int) -> None:
    os.eventfd_write(eventfd, 3)
    check_eventfd(eventfd, "kick")
    assert _count(eventfd) == 3


def test_looking_leaves_no_descriptor_open(eventfd: int) -> None:
    with no_descriptor_left():
        check_eventfd(eventfd, "kick")


# --- the sending side ---


def test_each_notification_adds_one(eventfd: int) -> None:
    send = EventfdSender(eventfd)
    for _ in range(3):
        send()
    assert _count(eventfd) == 3


def test_a_full_eventfd_does_not_block_the_sender_and_stays_full(eventfd: int) -> None:
    os.eventfd_write(eventfd, FULL)
    EventfdSender(eventfd)()  # would block for ever
    assert _count(eventfd) == FULL


def test_one_below_full_is_filled(eventfd: int) -> None:
    os.eventfd_write(eventfd, FULL - 1)
    send = EventfdSender(eventfd)
    send()
    send()
    assert _count(eventfd) == FULL


@pytest.mark.parametrize("flags", [0, os.EFD_NONBLOCK])
def test_a_notifier_leaves_the_flags_that_it_shares_with_others_alone(flags: int) -> None:
    fd = os.eventfd(0, flags)
    try:
        EventfdSender(fd)()
        assert os.get_blocking(fd) is not bool(flags)
    finally:
        os.close(fd)


class _Hopeful:
    """A poll that finds room, as it was before a lender filled the counter."""

    def poll(self, _timeout: int) -> bool:
        return True


def _blocking_and_full() -> int:
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    os.eventfd_write(fd, FULL)
    return fd


def test_a_kick_that_sleeps_is_interrupted_and_the_eventfd_left_alone_then() -> None:
    fd = _blocking_and_full()
    try:
        notify = EventfdSender(fd)
        notify._poll = _Hopeful()  # type: ignore[assignment]
        with kicks_that_do_not_block():
            notify()  # would sleep for ever
        assert _count(fd) == FULL
        notify()  # outside, where nothing would interrupt it
        assert _count(fd) == 0
    finally:
        os.close(fd)


@pytest.mark.parametrize("seconds", [0.2, *in_bulk([1.0])])
def test_a_tick_in_the_midst_of_a_kick_loses_none(eventfd: int, seconds: float) -> None:
    """However often the processor is taken from us there."""
    notify = EventfdSender(eventfd)
    came = 0
    with kicks_that_do_not_block():
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            notify()
            assert _count(eventfd) == 1
            came += 1
    assert came > 100


@pytest.mark.parametrize(("before", "after"), [(2, 0), (1, 1), (0, 2), (3, 3)])
def test_a_kick_among_two_ticks_that_does_not_sleep_is_done_and_the_next_one_too(
    eventfd: int, before: int, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the processor is taken from the first tick's handler."""
    write = os.write

    def write_among_ticks(fd: int, data: bytes) -> int:
        for _ in range(before):
            signal.raise_signal(signal.SIGALRM)
        written = write(fd, data)
        for _ in range(after):
            signal.raise_signal(signal.SIGALRM)
        return written

    notify = EventfdSender(eventfd)
    with kicks_that_do_not_block():
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", write_among_ticks)
            notify()
        assert _count(eventfd) == 1
        notify()
        assert _count(eventfd) == 1


def test_the_timer_ticks_only_while_somebody_wants_it() -> None:
    with kicks_that_do_not_block():
        with kicks_that_do_not_block():
            pass
        assert signal.getitimer(signal.ITIMER_REAL)[1] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_on_another_thread_kicks_are_as_they_were(eventfd: int) -> None:
    def kick() -> None:
        with kicks_that_do_not_block():
            EventfdSender(eventfd)()

    thread = threading.Thread(target=kick)
    thread.start()
    thread.join()
    assert _count(eventfd) == 1


# --- the receiving side ---


async def _waits(waiter: Waiter, seconds: float = 10.0) -> float:
    """How long a wait takes, of the loop's time."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    await waiter.wait(seconds)
    return loop.time() - started


@pytest.fixture
async def waiter(eventfd: int) -> Iterator[Waiter]:  # type: ignore[misc]
    waiter = Waiter(eventfd)
    yield waiter
    waiter.close()


async def test_a_wait_ends_after_its_time(waiter: Waiter) -> None:
    assert await _waits(waiter, 3.0) == 3.0


async def test_a_notification_ends_a_wait(waiter: Waiter, eventfd: int) -> None:
    asyncio.get_running_loop().call_later(2.0, os.eventfd_write, eventfd, 1)
    assert await _waits(waiter) == 2.0


async def test_a_notification_that_came_before_the_wait_ends_it_at_once(
    waiter: Waiter, eventfd: int
) -> None:
    os.eventfd_write(eventfd, 1)
    assert await _waits(waiter) == 0.0


async def test_one_that_came_between_two_waits_ends_the_second_at_once(
    waiter: Waiter, eventfd: int
) -> None:
    await waiter.wait(1.0)
    os.eventfd_write(eventfd, 1)
    await asyncio.sleep(5.0)
    assert await _waits(waiter) == 0.0


async def test_many_notifications_end_one_wait_only(waiter: Waiter, eventfd: int) -> None:
    os.eventfd_write(eventfd, 1000)
    assert await _waits(waiter) == 0.0
    assert await _waits(waiter, 4.0) == 4.0
    assert _count(eventfd) == 0


async def test_a_notification_is_kept_over_a_cancelled_wait(waiter: Waiter, eventfd: int) -> None:
    waiting = asyncio.create_task(waiter.wait(10.0))
    await asyncio.sleep(1.0)
    waiting.cancel()
    os.eventfd_write(eventfd, 1)
    await asyncio.sleep(1.0)
    assert waiting.cancelled()
    assert await _waits(waiter) == 0.0


async def test_a_notification_in_the_moment_of_cancellation_is_kept(
    waiter: Waiter, eventfd: int
) -> None:
    waiting = asyncio.create_task(waiter.wait(10.0))
    await asyncio.sleep(1.0)
    os.eventfd_write(eventfd, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    # It has been read and the wait is about to return, but is cancelled first.
    assert not _readable(eventfd)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await _waits(waiter) == 0.0


def _readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


async def test_a_cancelled_wait_leaves_no_timer_that_ends_a_later_one(waiter: Waiter) -> None:
    waiting = asyncio.create_task(waiter.wait(2.0))
    await asyncio.sleep(1.0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert await _waits(waiter, 5.0) == 5.0


async def test_a_wait_that_was_notified_leaves_no_timer_either(
    waiter: Waiter, eventfd: int
) -> None:
    os.eventfd_write(eventfd, 1)
    await waiter.wait(2.0)
    assert await _waits(waiter, 5.0) == 5.0


async def test_another_reader_may_be_faster(waiter: Waiter, eventfd: int) -> None:
    await waiter.wait(1.0)
    os.eventfd_write(eventfd, 1)
    # Runs when the loop has seen the notification and has not read it yet.
    asyncio.get_running_loop().call_soon(os.eventfd_read, eventfd)
    await waiter.wait(1.0)  # a read that blocks would never end
    assert not _readable(eventfd)
    assert await _waits(waiter, 3.0) == 3.0


async def test_after_closing_nobody_reads_and_the_descriptor_is_open(eventfd: int) -> None:
    waiter = Waiter(eventfd)
    await waiter.wait(1.0)
    waiter.close()
    waiter.close()
    os.eventfd_write(eventfd, 7)
    await asyncio.sleep(1.0)
    assert _count(eventfd) == 7


async def test_a_waiter_that_never_waited_can_be_closed(eventfd: int) -> None:
    Waiter(eventfd).close()
    assert _count(eventfd) == 0


async def test_waiting_opens_no_descriptor(eventfd: int) -> None:
    with no_descriptor_left():
        waiter = Waiter(eventfd)
        await waiter.wait(1.0)
        waiter.close()


async def test_a_call_that_stays_readable_does_not_take_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With EFD_SEMAPHORE a read takes one of the count only."""
    monkeypatch.setattr(eventfds, "_CALLS_IN_A_ROW", 10)
    monkeypatch.setattr(eventfds, "_PACE", 0.02)
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
    os.eventfd_write(fd, FULL)
    waiter = Waiter(fd)
    try:
        now = asyncio.get_running_loop().time
        waits, ends = 0, now() + 0.2
        while now() < ends:
            await waiter.wait(0.01)
            waits += 1
        # Those in a row, and then one a pace; without it there were thousands.
        assert waits < 10 + 2 * 20 + 10
    finally:
        waiter.close()
        os.close(fd)


async def test_a_call_after_a_pause_is_heard(monkeypatch: pytest.MonkeyPatch, eventfd: int) -> None:
    monkeypatch.setattr(eventfds, "_CALLS_IN_A_ROW", 0)
    waiter = Waiter(eventfd)
    try:
        for _ in range(3):
            os.eventfd_write(eventfd, 1)
            async with asyncio.timeout(GUARD):
                await waiter.wait(10)
    finally:
        waiter.close()


async def test_calls_are_heard_as_they_come_where_they_are_not_paced(
    monkeypatch: pytest.MonkeyPatch, eventfd: int
) -> None:
    monkeypatch.setattr(eventfds, "_CALLS_IN_A_ROW", 0)
    monkeypatch.setattr(eventfds, "_PACE", 3600)
    waiter = Waiter(eventfd, paced=False)
    try:
        for _ in range(3):
            os.eventfd_write(eventfd, 1)
            async with asyncio.timeout(GUARD):
                await waiter.wait(3600)
    finally:
        waiter.close()


async def test_a_paused_waiter_can_be_closed(monkeypatch: pytest.MonkeyPatch, eventfd: int) -> None:
    monkeypatch.setattr(eventfds, "_CALLS_IN_A_ROW", 0)
    waiter = Waiter(eventfd)
    os.eventfd_write(eventfd, 1)
    await waiter.wait(10)
    waiter.close()
    await asyncio.sleep(0.005)
    os.eventfd_write(eventfd, 1)
    await asyncio.sleep(0.005)
    assert _count(eventfd) == 1


def test_each_eventfd_has_a_number_and_its_copies_have_the_same() -> None:
    with ExitStack() as stack:
        fds = [os.eventfd(0), os.eventfd(0, os.EFD_SEMAPHORE)]
        fds.append(os.dup(fds[0]))
        for fd in fds:
            stack.callback(os.close, fd)
        first, second, copy = (check_eventfd(fd, "kick") for fd in fds)
    assert first == copy
    assert len({first, second, UNKNOWN_EVENTFD}) == 3
