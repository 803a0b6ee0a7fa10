"""What systemd and the daemon tell each other: READY and its like, descriptors, the watchdog.

All of it begins in the environment, which is read once: NOTIFY_SOCKET, WATCHDOG_* and LISTEN_* are
taken out of it, so that no child process speaks in the daemon's name. Without systemd nothing is
there, and whatever is told goes nowhere.

Nothing here raises for what systemd does later. A notification waits for room only where the state
changes (start, reload, stop); the watchdog's never does, since a commit may be under way.

Sources: sd_notify(3), sd_notify_barrier(3), sd_listen_fds(3), sd_watchdog_enabled(3).
"""

import asyncio
import os
import select
import socket
import time
from array import array
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import NoReturn

import structlog

from vdpad.errors import VdpadError, why

log: structlog.stdlib.BoundLogger = structlog.get_logger("vdpad.systemd")

# SD_LISTEN_FDS_START.
_FIRST = 3

# What a name is where none was given: sd_listen_fds_with_names(3).
_UNNAMED = "unknown"

# Some more than vdpad's unit can hand over; stops a wrong number from becoming a long loop.
_MAX_DESCRIPTORS = 4096

# How long a change of state waits for room in systemd's socket, in seconds.
_PATIENCE = 1.0

# How long systemd may take to read what it was told, in seconds.
_BARRIER_SECONDS = 5.0

# How often a stop under way asks for more time, and for how much: three askings may get lost.
_EXTEND_EVERY = 5.0
_EXTEND_BY = 4 * _EXTEND_EVERY


# How much of what makes no sense is repeated.
_SHOWN = 40


class OddEnvironment(VdpadError):
    """What a service manager left in the environment makes no sense."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """A descriptor that systemd handed over: a socket of its, or one that was stored with it."""

    fd: int
    name: str
    """FileDescriptorName= of the socket unit, or the name under which it was stored."""


class Notifier:
    """Tells systemd how the daemon fares."""

    def __init__(self, address: str | None) -> None:
        """Takes what NOTIFY_SOCKET says: a path, or "@" and an abstract name; None tells nobody."""
        self._address = None if address is None else address.replace("@", "\0", 1)

    def ready(self, status: str) -> None:
        """The start, or a reload, is over; `systemctl status` shows the text."""
        self._tell(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self, status: str) -> None:
        """The stop begins."""
        self._tell(f"STOPPING=1\nSTATUS={status}")

    def alive(self) -> None:
        """Keeps the watchdog from biting; never waits."""
        self._tell("WATCHDOG=1", patience=0)

    def extend(self, seconds: float) -> None:
        """Asks for so much time until the next asking, past the unit's limit; never waits."""
        self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", patience=0)

    @property
    def is_heard(self) -> bool:
        """Whether there is anybody to tell."""
        return self._address is not None

    def store(self, name: str, fd: int) -> None:
        """Gives systemd a copy of a descriptor, to be inherited after a restart.

        Args:
            name: at most 255 printable characters without a colon; more than one may share it.
            fd: stays ours too. systemd does not watch it: an eventfd's state says nothing of its
                owner's.
        """
        self._tell(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fd)

    def forget(self, names: Iterable[str]) -> None:
        """Has systemd close what was stored under these names; returns once it has.

        May be called on a thread, and waits up to 5 s: its copies keep others from what they are.
        """
        for name in names:
            self._tell(f"FDSTOREREMOVE=1\nFDNAME={name}")
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            self._tell("BARRIER=1", theirs)
        finally:
            os.close(theirs)
        try:
            poll = select.poll()
            poll.register(ours, 0)
            if not poll.poll(_BARRIER_SECONDS * 1000):
                log.warning("systemd is slow to let go of descriptors")
        finally:
            os.close(ours)

    def _tell(self, message: str, *fds: int, patience: float = _PATIENCE) -> None:
        if self._address is None:
            return
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
                speaker.settimeout(patience)
                speaker.sendmsg([message.encode()], rights, 0, self._address)
        except OSError as error:
            log.warning("systemd not told", what=message.partition("=")[0], why=why(error))


def take_notifier(environment: MutableMapping[str, str]) -> Notifier:
    """Who is to be told, by NOTIFY_SOCKET.

    One that is no Unix socket is nobody to us, and no reason not to serve: a virtual machine's may
    be "vsock:CID:PORT" (systemd 254), a container's may be set and empty.
    """
    address = environment.pop("NOTIFY_SOCKET", None)
    if address is not None and address[:1] not in ("/", "@"):
        log.warning(
            "NOTIFY_SOCKET cannot be used, so nobody is told of the start and the stop",
            expected="a path or '@' and a name",
            got=address[:_SHOWN],
        )
        return Notifier(None)
    return Notifier(address)


def take_watchdog(environment: MutableMapping[str, str]) -> float | None:
    """Within how many seconds systemd wants a sign of life each time; None where it wants none.

    Raises:
        OddEnvironment: WATCHDOG_USEC or WATCHDOG_PID is no positive number.
    """
    microseconds = _take_number(environment, "WATCHDOG_USEC")
    pid = _take_number(environment, "WATCHDOG_PID")
    if microseconds is None or pid not in (None, os.getpid()):
        return None
    return microseconds / 1e6


def take_inherited(environment: MutableMapping[str, str]) -> tuple[Inherited, ...]:
    """The descriptors that systemd handed over, which no child process gets.

    Raises:
        OddEnvironment: LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES don't fit what is there.
    """
    pid = _take_number(environment, "LISTEN_PID")
    count = _take_number(environment, "LISTEN_FDS")
    names = environment.pop("LISTEN_FDNAMES", None)
    if pid != os.getpid() or count is None:
        return ()
    if count > _MAX_DESCRIPTORS:
        _odd("LISTEN_FDS", f"at most {_MAX_DESCRIPTORS}", str(count))
    each_name = [_UNNAMED] * count if names is None else names.split(":")
    if len(each_name) != count:
        _odd("LISTEN_FDNAMES", f"{count} names", str(len(each_name)))
    inherited = tuple(
        Inherited(fd, name)
        for fd, name in zip(range(_FIRST, _FIRST + count), each_name, strict=True)
    )
    for each in inherited:
        try:
            os.set_inheritable(each.fd, False)
        except OSError:
            _odd("LISTEN_FDS", f"descriptor {each.fd} to be open", "a closed one")
    return inherited


async def keep_alive(notifier: Notifier, seconds: float) -> None:
    """Tells systemd for good that the event loop runs, twice in the time that it wants to know.

    A loop that is stuck tells nothing, and the daemon is killed and started anew.
    """
    while True:
        notifier.alive()
        await asyncio.sleep(seconds / 2)


async def keep_extending(notifier: Notifier, most_seconds: float) -> None:
    """While a stop is under way and the event loop runs, asks for more time; so long at most."""
    loop = asyncio.get_running_loop()
    until = loop.time() + most_seconds
    while loop.time() < until:
        notifier.extend(_EXTEND_BY)
        await asyncio.sleep(_EXTEND_EVERY)


def _take_number(environment: MutableMapping[str, str], name: str) -> int | None:
    text = environment.pop(name, None)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 20 and int(text)):
        _odd(name, "a number above 0", text)
    return int(text)


def _odd(name: str, expected: str, got: str) -> NoReturn:
    raise OddEnvironment(
        f"{name}: expected {expected}, got {got[:_SHOWN]!r}; a service manager sets it, and "
        "without one it must not be set"
    )
