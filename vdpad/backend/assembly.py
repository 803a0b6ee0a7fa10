"""A back end put together: its device, its control sockets, its metrics; and taken apart again.

The last that was put in is the first to go, so that none outlives what it needs. What a back end
does meanwhile back_end.py says.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from vdpad.backend.back_end import BackEnd
from vdpad.backend.control.api import ControlApi
from vdpad.backend.control.sockets import ControlSockets
from vdpad.backend.device import BackEndDevice
from vdpad.backend.following.follower import Follower
from vdpad.backend.options import BackEndOptions
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.service import log
from vdpad.service.events.announcing import Announcer
from vdpad.service.textfile import Textfile
from vdpad.service.threads import on_a_thread

# Of the control sockets: for this user and root, or for whoever may ask, as each request is held
# against the uids.
_OWN_MODE, _OTHERS_MODE = 0o600, 0o666

# In seconds, as the daemon's by default.
_TEXTFILE_INTERVAL = 15.0


@asynccontextmanager
async def opened(
    options: BackEndOptions, opener: Callable[[], ShadowedDevice], announce: Announcer
) -> AsyncIterator[BackEnd]:
    """A back end whose control sockets listen; at the end of the context all is let go of.

    Args:
        options: all of them.
        opener: opens its device, on a thread.
        announce: told of what an operator wants to know.

    Raises:
        VdpadError: the device, or a socket, cannot be had.
    """
    async with AsyncExitStack() as closing:
        closing.callback(announce.flush)
        # Before anything is told of a directory: another may have the device, and all else of it.
        opened_device = await on_a_thread(opener, "open device")
        back_end = BackEnd(options, announce)
        closing.callback(back_end.kept.close)
        kept = back_end.kept.recall()
        device = await BackEndDevice.open(
            opened_device,
            options.name,
            back_end.listeners(),
            shared_address_space=options.shared_address_space,
            follows_filter=options.monitor is not None,
            card_mac=options.card_mac,
            rehearses=options.rehearses,
            addresses=back_end.kept_addresses.recall,
            in_order=options.in_order,
        )
        closing.push_async_callback(device.close)
        back_end.attend(device, kept)
        if back_end.follower is not None:
            await closing.enter_async_context(_running(back_end.follower))
        api = ControlApi(
            options.name,
            device,
            back_end.overview,
            back_end.load,
            device.switching.switch,
            {0, os.geteuid(), *options.allowed},
            announce,
        )
        sockets = ControlSockets(api, announce)
        closing.push_async_callback(sockets.close)
        mode = _OTHERS_MODE if options.allowed else _OWN_MODE
        await sockets.listen(options.control, options.inherited, mode)
        if options.textfile is not None:
            textfile = _textfile(back_end, api, sockets, options.textfile)
            closing.push_async_callback(textfile.stop)
            textfile.start()
        yield back_end


def _textfile(back_end: BackEnd, api: ControlApi, sockets: ControlSockets, path: Path) -> Textfile:
    # Here, since it takes 55 ms that nobody else should wait for.
    from vdpad.backend.metrics import BackEndMetrics, BackEndSources

    announce, follower = back_end.announce, back_end.follower
    sources = BackEndSources(
        phase=lambda: back_end.overview.phase,
        commands=lambda: back_end.device.settings.counts,
        packets_dropped=lambda: back_end.device.dropped,
        follows=None if follower is None else lambda: follower.follows,
        requests=lambda: api.answered,
        datagrams_refused=lambda: sockets.datagrams_refused,
        replies_dropped=lambda: sockets.replies_dropped,
        journal_dropped=log.dropped,
        listener_failures=lambda: announce.failures,
    )
    counted = BackEndMetrics(back_end.name, sources)
    announce.listeners.append(counted.heard)
    return Textfile(path, _TEXTFILE_INTERVAL, counted.render, _at_once, announce)


async def _at_once() -> None:
    """What is urgent, a guest's command, is never more than a millisecond of waiting."""


@asynccontextmanager
async def _running(follower: Follower) -> AsyncIterator[None]:
    """A follower that follows, for the time of the context."""
    task = asyncio.create_task(follower.run(), name="follower")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
