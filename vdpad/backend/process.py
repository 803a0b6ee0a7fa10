"""The process of a back end: until its front end has gone, or a signal ends it."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager

from vdpad.backend.address_space import check_room
from vdpad.backend.assembly import opened
from vdpad.backend.back_end import BackEnd
from vdpad.backend.options import BackEndOptions
from vdpad.backend.process_events import BackEndEnded
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.service.address_space import spare_address_space
from vdpad.service.collector import leave_out_all_there_is
from vdpad.service.events.announcing import Announcer, EventLog
from vdpad.service.systemd import notify as systemd


async def run(
    options: BackEndOptions,
    opener: Callable[[], ShadowedDevice],
    front_ends: AbstractContextManager[socket.socket],
) -> None:
    """Serves until the front end has gone, unless it is to stay, or SIGTERM or SIGINT comes.

    Args:
        options: all of them.
        opener: opens the device, on a thread.
        front_ends: their socket, or the connection of one.

    Raises:
        VdpadError: the device, or a socket, cannot be had.
        OddEnvironment: it makes no sense what a service manager left there.
        TooLittleSpace: the address space is bounded below what a back end may need.
    """
    spare_address_space()
    check_room()
    # numpy brings OpenBLAS along, which nothing here needs. It would make a thread for each
    # processor; and where the system gives none, end this process by SIGINT.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    notifier = systemd.take_notifier(os.environ)
    watchdog = systemd.take_watchdog(os.environ)
    ended = _signalled()
    # A daemon's way to read its settings again. There are none here, and a guest has the device.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    announce = Announcer(EventLog())
    async with contextlib.AsyncExitStack() as beside:
        if watchdog is not None:
            await beside.enter_async_context(_kept_alive(notifier, watchdog))
        endpoint = beside.enter_context(front_ends)
        back_end = await beside.enter_async_context(opened(options, opener, announce))
        beside.callback(notifier.stopping, "Stopping the device")
        leave_out_all_there_is()
        notifier.ready(f"Waiting for a front end of {options.name}")
        await _serve(back_end, endpoint, ended)
    announce(BackEndEnded(options.name))


async def _serve(back_end: BackEnd, endpoint: socket.socket, ended: asyncio.Event) -> None:
    """Serves until that ends, or until it is told to end."""
    serving = asyncio.create_task(back_end.serve(endpoint), name="front ends")
    told = asyncio.create_task(ended.wait())
    await asyncio.wait((serving, told), return_when=asyncio.FIRST_COMPLETED)
    serving.cancel()
    told.cancel()
    await asyncio.wait((serving, told))
    if not serving.cancelled():
        serving.result()


def _signalled() -> asyncio.Event:
    """What is set by SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, ended.set)
    return ended


@asynccontextmanager
async def _kept_alive(notifier: systemd.Notifier, seconds: float) -> AsyncIterator[None]:
    task = asyncio.create_task(systemd.keep_alive(notifier, seconds))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
