"""The daemon as a process: from what a service manager left it, until a signal ends it."""

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from vdpad.daemon.address_space import check_room
from vdpad.daemon.daemon import Service
from vdpad.daemon.devices.store import DescriptorStore
from vdpad.daemon.settings import MAX_DEADLINE_MS, Settings
from vdpad.errors import VdpadError
from vdpad.service.address_space import spare_address_space
from vdpad.service.collector import leave_out_all_there_is
from vdpad.service.events.event import Event
from vdpad.service.events.kinds import SocketLost
from vdpad.service.systemd import notify as systemd

# The longest that a commit under way may keep a stop waiting.
_LONGEST_STOP = MAX_DEADLINE_MS / 1000 + 30


class SocketGone(VdpadError):
    """A socket of a daemon's that runs is read no more."""


async def run(load: Callable[[], Settings]) -> None:
    """Serves until SIGTERM or SIGINT; until it stops SIGHUP reads the configuration again.

    The commits under way end first. Another SIGTERM changes nothing, since commands cannot be
    called back; another SIGINT is somebody at a terminal who has waited enough, and ends it at
    once.

    Args:
        load: reads the configuration.

    Raises:
        CannotListen: a socket cannot be had.
        BadKeys: the keys for UDP cannot be had.
        BadSettings: as load raises it.
        OddEnvironment: it makes no sense what a service manager left there.
        TooLittleSpace: the address space is bounded below what the limits may need.
        SocketGone: a socket was lost; what had been asked before is answered.
    """
    spare_address_space()
    settings = load()
    check_room(settings.limits)
    notifier = systemd.take_notifier(os.environ)
    watchdog = systemd.take_watchdog(os.environ)
    inherited = systemd.take_inherited(os.environ)
    service = Service(settings, inherited, DescriptorStore(notifier))
    ended = _signalled()
    lost: list[SocketLost] = []

    def heard(event: Event) -> None:
        if isinstance(event, SocketLost):
            lost.append(event)
            ended.set()

    service.announce.listeners.append(heard)
    hangups = _Hangups()
    with contextlib.ExitStack() as beside:
        if watchdog is not None:
            beside.enter_context(_task(systemd.keep_alive(notifier, watchdog)))
        path = await service.start()
        leave_out_all_there_is()
        try:
            notifier.ready(f"Listening on {path}")
            hangups.bring(functools.partial(_reload, service, load, notifier, path))
            await ended.wait()
        finally:
            # It does not end a stop.
            hangups.bring(_nothing)
            notifier.stopping("Waiting for the commits under way")
            with _task(systemd.keep_extending(notifier, _LONGEST_STOP)):
                await service.stop()
    if lost:
        raise SocketGone(f"{lost[0].sentence()}; start it again, and report it")


class _Hangups:
    """What SIGHUP brings about.

    The daemon's sockets are there before it has started, and what changed since it was configured
    is to be read: one that comes so early waits. A loop carries out what a signal's handler was
    when it heard of the signal, also where there is another handler by then; so this one stays.
    """

    def __init__(self) -> None:
        self._waiting = False
        self._brings: Callable[[], None] = self._wait
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: self._brings())

    def _wait(self) -> None:
        self._waiting = True

    def bring(self, what: Callable[[], None]) -> None:
        """Has each bring about this from now on, and now if one has waited for it."""
        self._brings = what
        if self._waiting:
            self._waiting = False
            what()


def _signalled() -> asyncio.Event:
    """What is set by SIGTERM or SIGINT."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        ended.set()
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, end)
    return ended


def _nothing() -> None:
    """What a signal brings about that does not count now."""


def _reload(
    service: Service, load: Callable[[], Settings], notifier: systemd.Notifier, path: Path
) -> None:
    notifier.reloading()
    service.reload(load)
    notifier.ready(f"Listening on {path}")


@contextlib.contextmanager
def _task(work: Coroutine[Any, Any, None]) -> Iterator[None]:
    """Has something done beside what is done in the context."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        task.cancel()
