"""Descriptors of a front end's, each in each place: the back end's loop never sleeps on one.

Whoever asks at the control socket is answered beside it, and the next front end is served.
"""

import asyncio
import contextlib
import os
import select
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.backend.process import BackEndProcess, running
from tests.backend.vmm import OK, Vmm, back_end, vmm
from tests.support.descriptors import lingering
from tests.support.fuse import silent_file
from tests.support.honest import Honest
from tests.support.waiting import until
from tests.vhost_user import front_end as page
from tests.vhost_user.front_end import state, u64
from vdpad.queues.eventfds import EventfdSender
from vdpad.virtio.commands import VlanAdd

# In seconds: for how long one whose closing lingers would hold, and for how long a front end that
# is not answered goes on.
HOLDS, GOES_ON = 30, 0.5

_REPLIES, _PAUSE = 20, 0.005
_FULL = (1 << 64) - 2


# --- what it sends ---


@contextmanager
def silent(folder: Path) -> Iterator[int]:
    """A file of a server that answers nothing until the context ends."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        skip_or_fail("mounting FUSE takes root and /dev/fuse")
    fd = -1
    try:
        with silent_file(folder, 1 << 20) as (fd, _):
            yield fd
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


@contextmanager
def hard_to_close(folder: Path) -> Iterator[int]:
    """A TCP socket whose closing lingers."""
    with lingering(HOLDS) as fd:
        try:
            yield fd
        finally:
            await_nobody(fd)


@contextmanager
def full_eventfd(folder: Path) -> Iterator[int]:
    """An eventfd that blocks whoever adds to it."""
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    os.eventfd_write(fd, _FULL)
    yield fd
    os.close(fd)


@contextmanager
def full_pipe(folder: Path) -> Iterator[int]:
    """The end of a pipe that blocks whoever writes."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, bytes(4096)):
            pass
    os.set_blocking(writer, True)
    yield writer
    os.close(writer)
    os.close(reader)


@contextmanager
def eventfd_that_another_fills(folder: Path) -> Iterator[int]:
    """An eventfd that has room at times, and none the next moment."""
    fd, ends = os.eventfd(0, os.EFD_CLOEXEC), threading.Event()
    filler = threading.Thread(target=_fill_and_drain, args=(fd, ends))
    filler.start()
    yield fd
    ends.set()
    while filler.is_alive():
        # It may sleep itself, where others have added more than it had reckoned with.
        _drain(fd)
        filler.join(0.01)
    os.close(fd)


def _fill_and_drain(fd: int, ends: threading.Event) -> None:
    while not ends.wait(0.00001):
        _drain(fd)
        if select.select([], [fd], [], 0)[1]:
            # One more than this may sleep, which the back end's addition can make of it.
            os.eventfd_write(fd, _FULL - 1)


def _drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.preadv(fd, [bytearray(8)], -1, os.RWF_NOWAIT)


def await_nobody(fd: int) -> None:
    """Closes a descriptor, for as long as that takes, on nobody's time."""
    asyncio.get_running_loop().run_in_executor(None, os.close, fd)


# --- where ---


async def as_kick(vmm: Vmm, fd: int) -> None:
    for index in (0, vmm.control.index):
        await vmm.front_end.acked(page.SET_VRING_KICK, u64(index), [fd])


async def as_call(vmm: Vmm, fd: int) -> None:
    for index in (0, vmm.control.index):
        await vmm.front_end.acked(page.SET_VRING_CALL, u64(index), [fd])


async def as_call_of_one_that_runs(vmm: Vmm, fd: int) -> None:
    await vmm.enable_all()
    await as_call(vmm, fd)


async def as_error(vmm: Vmm, fd: int) -> None:
    for index in (0, vmm.control.index):
        await vmm.front_end.acked(page.SET_VRING_ERR, u64(index), [fd])


async def as_log(vmm: Vmm, fd: int) -> None:
    await vmm.front_end.ask(page.SET_LOG_BASE, page.log_area(1 << 16), [fd])


async def as_memory(vmm: Vmm, fd: int) -> None:
    area = page.single(1 << 40, 1 << 16, 1 << 40, 0)
    await vmm.front_end.acked(page.ADD_MEM_REG, area, [fd])


async def as_state_that_comes(vmm: Vmm, fd: int) -> None:
    await vmm.front_end.ask(page.SET_DEVICE_STATE_FD, state(1, 0), [fd])
    await vmm.front_end.ask(page.CHECK_DEVICE_STATE)


async def as_state_that_goes(vmm: Vmm, fd: int) -> None:
    await vmm.front_end.ask(page.SET_DEVICE_STATE_FD, state(0, 0), [fd])
    await vmm.front_end.ask(page.CHECK_DEVICE_STATE)


async def as_back_channel(vmm: Vmm, fd: int) -> None:
    await vmm.front_end.acked(page.SET_BACKEND_REQ_FD, b"", [fd])


WHAT = [silent, hard_to_close, full_eventfd, eventfd_that_another_fills, full_pipe]
WHERE = [
    *(as_kick, as_call, as_call_of_one_that_runs, as_error, as_log, as_memory),
    *(as_state_that_comes, as_state_that_goes, as_back_channel),
]


@asynccontextmanager
async def asked_beside(process: BackEndProcess) -> AsyncIterator[Honest]:
    """A client at the control socket."""
    honest = Honest(process.control, _PAUSE)
    honest.start()
    try:
        yield honest
    finally:
        await asyncio.to_thread(honest.end)
    assert not honest.gave_up


async def goes_on(vmm: Vmm, put: Callable[[Vmm, int], Awaitable[None]], fd: int) -> None:
    """What a front end does that is told what it may not, or that nobody answers."""
    with contextlib.suppress(ConnectionError, AssertionError, TimeoutError):
        async with asyncio.timeout(GOES_ON):
            await vmm.set_up()
            await put(vmm, fd)
            await vmm.enable_all()
            await vmm.command(VlanAdd(7).encode())
            await vmm.loop(b"packet")


@pytest.mark.parametrize("put", WHERE, ids=lambda each: each.__name__)
@pytest.mark.parametrize("what", WHAT, ids=lambda each: each.__name__)
async def test_the_control_socket_is_answered_and_the_next_front_end_served(
    tmp_path: Path,
    what: Callable[[Path], AbstractContextManager[int]],
    put: Callable[[Vmm, int], Awaitable[None]],
) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    async with running(tmp_path, "--stay") as process, asked_beside(process) as honest:
        with what(folder) as fd:
            async with process.vmm() as vmm:
                await goes_on(vmm, put, fd)
                await honest.is_answered(_REPLIES)
            await until(lambda: len(process.events("front-end-left")) == 1)
            await honest.is_answered(_REPLIES)
            async with process.vmm() as vmm:
                await vmm.start()
                assert await vmm.command(VlanAdd(8).encode()) == OK
                assert await vmm.loop(b"packet") == b"packet"


async def test_the_timer_that_interrupts_ticks_whenever_it_kicks_or_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A counter may be filled between the look at it and the write, which no test can time."""
    call, ticks = EventfdSender.__call__, list[float]()

    def watched(sender: EventfdSender) -> None:
        ticks.append(signal.getitimer(signal.ITIMER_REAL)[1])
        call(sender)

    monkeypatch.setattr(EventfdSender, "__call__", watched)
    async with back_end() as on, vmm(on) as machine:
        await machine.start()
        kicks = len(ticks)
        assert await machine.command(VlanAdd(7).encode()) == OK
    assert 0 < kicks < len(ticks)
    assert all(ticks)
