"""Asking the kernel about vDPA devices from a process that may get stuck.

The kernel works on a netlink request while the asker is in sendmsg(2), under a lock that
`vdpa dev del` keeps until the device that it removes is closed. Till then whoever asks, even for
the family's number, sleeps there and can't be woken or killed. In the event loop that stops
everything. In a thread it keeps the process from ending, and with it its descriptors: if the device
that must be closed is one of them, it never will be, and the host has no vdpa netlink until it is
booted again (both seen on 6.12). So a child process asks. It has no descriptor but a socket to us
and the standard error, and this process can end whatever becomes of it.

A child lives for one conversation, and there is one at a time. When it has said that it is ready,
each of its answers must come within the time limit; where one has not, it is asked nothing more.
One that we are through with is killed. One that does not even die of that is left, and until it is
gone nobody else is sent the same way.

Sources: Linux net/netlink/genetlink.c (genl_mutex), drivers/vdpa/vdpa.c (vdpa_dev_lock),
drivers/vhost/vdpa.c (vhost_vdpa_remove).
"""

import asyncio
import errno
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from vdpad.errors import why
from vdpad.host.vdpa import (
    AskerFailed,
    NetlinkForbidden,
    NetlinkRefused,
    NetlinkStuck,
    NoSuchVdpaDevice,
    NotLoaded,
    OddReply,
    VdpaError,
)

# -P: what lies in the working directory is not ours to import.
COMMAND = (sys.executable, "-P", "-m", "vdpad.host.vdpa_exchange")

# Importing pyroute2 takes 0.2 s, and was seen to take 30 s on an emulated machine.
_START_SECONDS = 120.0

# A killed process is gone in milliseconds, unless the kernel keeps it.
_DYING_SECONDS = 0.5

_CHUNK = 1 << 16

# How much is repeated of an answer that is none.
_SHOWN = 40

Reply = list[tuple[str, int | str]]
"""The attributes of one reply, named as in vdpa.h without VDPA_ATTR_, in their order."""


class Asker:
    """A child process, and the conversation with it."""

    seconds: float
    """How long the kernel may take for each answer."""

    def __init__(self) -> None:
        """Starts it.

        Raises:
            AskerFailed: the system starts no process.
        """
        self._received = b""
        self._owes_an_answer = False
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        with theirs:
            try:
                # A session of its own: a Ctrl-C in the daemon's terminal is not for the child.
                self._process = subprocess.Popen(  # noqa: S603 - no word of it comes from outside
                    COMMAND,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    start_new_session=True,
                )
            except OSError as error:
                self._socket.close()
                raise AskerFailed(
                    f"the process that asks the kernel cannot be started: {why(error)}"
                ) from error

    @property
    def is_present(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    async def ready(self) -> None:
        """Returns when the process can be asked.

        Raises:
            AskerFailed: it ended, or takes unreasonably long.
        """
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._line()
        except TimeoutError:
            raise AskerFailed(
                f"expected the process that asks the kernel to start within {_START_SECONDS:g} s, "
                "it did not; see whether the host is overloaded"
            ) from None

    async def ask(self, command: str, **attributes: int | str) -> list[Reply]:
        """The kernel's replies to one command; without attributes it asks for all there are.

        Cancelled after it was sent, the kernel may have done it, or do it yet.

        Raises:
            VdpaError: one of its kinds: the kernel refuses, does not answer, or makes no sense.
        """
        if self._owes_an_answer:
            raise _owing()
        request = json.dumps([command, attributes]) + "\n"
        self._owes_an_answer = True
        try:
            async with asyncio.timeout(self.seconds):
                await self._send(request.encode())
                answer = _json(await self._line())
        except TimeoutError:
            raise NetlinkStuck(
                f"expected the kernel's answer within {self.seconds:g} s, got none; somebody may "
                "be removing a vDPA device that is open, and all who ask wait until it is closed"
            ) from None
        self._owes_an_answer = False
        if "replies" not in answer:
            # What the kernel lacks for a new device is not that device.
            raise _error(answer, None if command == "DEV_NEW" else attributes.get("DEV_NAME"))
        replies: list[Reply] = answer["replies"]
        return replies

    async def end(self) -> None:
        """Kills the process, and returns when it is gone, or isn't after half a second."""
        self._process.kill()
        try:
            async with asyncio.timeout(_DYING_SECONDS):
                await self._closed()
            # It has closed its socket, so it is past whatever could keep it: this does not block.
            self._process.wait()
        except TimeoutError:
            pass
        finally:
            self._socket.close()

    async def _send(self, data: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except ConnectionError:
            # It may have said why before it ended: the answer tells.
            return

    async def _line(self) -> bytes:
        while b"\n" not in self._received:
            chunk = await self._chunk()
            if not chunk:
                raise AskerFailed(
                    "expected an answer of the process that asks the kernel, but it ended; "
                    "its standard error is vdpad's own: see there"
                )
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line

    async def _closed(self) -> None:
        while await self._chunk():
            pass

    async def _chunk(self) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self._socket, _CHUNK)
        except ConnectionError:
            return b""


def _json(line: bytes) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError:
        raise AskerFailed(
            f"expected JSON from the process that asks the kernel, got {line[:_SHOWN]!r}; "
            "see what else prints in a new Python here"
        ) from None
    return answer


def _error(fault: dict[str, Any], name: int | str | None) -> VdpaError:
    if "odd" in fault:
        return OddReply(
            f"expected an exchange as vdpa has them since Linux 5.12, got {fault['odd']}"
        )
    code: int = fault["errno"]
    if code == errno.ENOENT:
        return NotLoaded()
    if code == errno.ENODEV and isinstance(name, str):
        return NoSuchVdpaDevice(name)
    refused = NetlinkForbidden if code in (errno.EPERM, errno.EAFNOSUPPORT) else NetlinkRefused
    return refused(errno.errorcode.get(code, str(code)), fault["words"])


class _Turns:
    """One asker at a time, and none while the last one is stuck."""

    def __init__(self) -> None:
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            WeakKeyDictionary()
        )
        self._last: Asker | None = None

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Asker]:
        async with self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            if self._last is not None and self._last.is_present:
                raise _owing()
            self._last = asker = Asker()
            try:
                await asker.ready()
                yield asker
            finally:
                await asker.end()


def _owing() -> NetlinkStuck:
    return NetlinkStuck(
        "the kernel still owes an answer from before; somebody may be removing a vDPA device that "
        "is open, and all who ask wait until it is closed"
    )


_TURNS = _Turns()

_CONVERSATION: ContextVar[Asker] = ContextVar("_CONVERSATION")


@asynccontextmanager
async def one_conversation() -> AsyncIterator[None]:
    """Has all asking in this context share a process, as each costs a start of Python.

    Raises:
        NetlinkStuck: at once, where the kernel still keeps an earlier asker.
        AskerFailed: no process can be had.
    """
    async with _TURNS.take() as asker:
        token = _CONVERSATION.set(asker)
        try:
            yield
        finally:
            _CONVERSATION.reset(token)


@asynccontextmanager
async def asking(seconds: float) -> AsyncIterator[Asker]:
    """The conversation with the kernel that is open; or one, when those before it are over.

    Args:
        seconds: how long the kernel may take for each answer.

    Raises:
        NetlinkStuck: at once, where the kernel still keeps an earlier asker.
        AskerFailed: no process can be had.
    """
    if (asker := _CONVERSATION.get(None)) is not None:
        asker.seconds = seconds
        yield asker
    else:
        async with _TURNS.take() as asker:
            asker.seconds = seconds
            yield asker
