"""A textfile for node_exporter's collector: written now and then, never seen half written.

Rendering keeps the event loop for a millisecond or two, so it waits until nothing urgent runs; the
file itself is written on a thread, since a disk may take its time.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from vdpad.errors import why
from vdpad.service.events.announcing import Announce
from vdpad.service.events.kinds import FileNotWritten
from vdpad.service.threads import on_a_thread

# Whoever collects it is another user.
_MODE = 0o644


class Textfile:
    """A file that is kept up to date."""

    def __init__(
        self,
        path: Path,
        interval: float,
        render: Callable[[], bytes],
        until_idle: Callable[[], Awaitable[None]],
        announce: Announce,
    ) -> None:
        """
        Args:
            path: of the file.
            interval: seconds from one writing to the next.
            render: what it is to hold.
            until_idle: returns when nothing urgent runs, or after a moment.
            announce: told of a file that cannot be written, once until it can be again.
        """
        self._path = path
        self._interval = interval
        self._render = render
        self._until_idle = until_idle
        self._announce = announce
        self._writer: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._fails = False

    def start(self) -> None:
        """Writes it at once and from now on, in the running loop."""
        self._writer = asyncio.get_running_loop().create_task(self._write_on(), name="textfile")

    async def stop(self) -> None:
        """Writes it a last time, with what has happened since."""
        self._stopping.set()
        if self._writer is not None:
            await self._writer

    async def _write_on(self) -> None:
        while not self._stopping.is_set():
            await self._until_idle()
            await self._write()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._stopping.wait()
        await self._write()

    async def _write(self) -> None:
        try:
            write = partial(write_whole, self._path, self._render())
            await on_a_thread(write, "textfile")
            self._fails = False
        except Exception as error:  # whatever it is, the daemon goes on
            if not self._fails:
                self._announce(FileNotWritten(str(self._path), why(error)))
            self._fails = True


def write_whole(path: Path, data: bytes) -> None:
    """Puts a file in place of an older one, so that a reader gets the one or the other.

    Raises:
        OSError: it could not be written; the older one is as it was.
    """
    # Not what the collector looks for (*.prom), and of a name that nobody else can have taken: to
    # open another's FIFO would never end.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(beside, flags, _MODE), "wb") as file:
            os.fchmod(file.fileno(), _MODE)  # whatever the umask is
            file.write(data)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
