"""The client: the socket API from the other side, asynchronous, with descriptors.

    async with Client() as vdpad:
        report = await vdpad.restore("vm-7", state, target, fds=(memory, kick, call))

One request is under way at a time. A reply that comes too late for its request is recognised by its
id and dropped. Results are the API's JSON objects as dicts: docs/api.md is their contract.
"""

import asyncio
import contextlib
import itertools
import json
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vdpad.errors import why
from vdpad.methods import DEFAULT_TIMEOUT, Methods, Refused, Unreachable, result_of, too_long
from vdpad.wire.addresses import DEFAULT_SOCKET
from vdpad.wire.datagrams import MAX_DATAGRAM
from vdpad.wire.unreachable import why_no_daemon

__all__ = ["DEFAULT_TIMEOUT", "Client", "Refused", "Unreachable"]

_REPLY_ROOM = 2 * MAX_DATAGRAM


class Client(Methods):
    """A connection to a vdpad on this host."""

    def __init__(self, path: Path = DEFAULT_SOCKET, timeout: float = DEFAULT_TIMEOUT) -> None:
        """
        Args:
            path: the daemon's socket.
            timeout: how long to wait for a reply, in seconds, beside a request's own deadline.
        """
        self._path = path
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._entered = False
        self._turn = asyncio.Lock()
        # Replies to an earlier process with the same address must not pass for ours.
        self._ids = (f"{secrets.token_hex(4)}-{number}" for number in itertools.count(1))

    async def __aenter__(self) -> Self:
        """Connects.

        Raises:
            Unreachable: nobody listens there.
        """
        self._entered = True
        self._connected()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnects. Commits that were begun go on."""
        self._entered = False
        self._disconnect()

    async def call(self, method: str, fds: Sequence[int] = (), **params: Any) -> Any:
        """Any method by its name.

        Cancellation gives up the reply, not what was asked for.

        Raises:
            Refused: the daemon answered with an error.
            Unreachable: it could not be asked, or did not answer in time.
        """
        async with self._turn:
            request_id = next(self._ids)
            request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
            text = json.dumps(request, separators=(",", ":")).encode()
            if len(text) > MAX_DATAGRAM:
                raise too_long(len(text), MAX_DATAGRAM)
            # A request that says how long the daemon may take is given that time on top.
            timeout = self._timeout + params.get("deadline_ms", 0) / 1000
            reply = None
            try:
                async with asyncio.timeout(timeout):
                    await self._send(text, fds)
                    reply = await self._reply_to(request_id)
            except TimeoutError:
                raise Unreachable(
                    f"{self._path}: no reply within {timeout:g} s; `status` tells what came "
                    "of the request"
                ) from None
            except OSError as error:
                raise Unreachable(f"{self._path}: {why(error)}") from error
            finally:
                if reply is None:
                    # Late replies must find nobody: an error without an id passes for another's.
                    self._disconnect()
        return result_of(reply)

    def _connected(self) -> socket.socket:
        """The socket; a new one where there is none."""
        if self._socket is not None:
            return self._socket
        if not self._entered:
            raise Unreachable("not connected; use the client as `async with Client() as …`")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            connection.bind("")  # the kernel gives an address, without which nothing is answered
            connection.connect(str(self._path))
        except (OSError, ValueError) as error:
            connection.close()
            raise Unreachable(why_no_daemon(self._path, error)) from error
        self._socket = connection
        return connection

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _send(self, data: bytes, fds: Sequence[int]) -> None:
        connection = self._connected()
        while True:
            try:
                socket.send_fds(connection, [data], fds)
            except BlockingIOError:
                # The daemon's receive queue is full for the moment.
                await _ready(connection, writable=True)
            else:
                return

    async def _reply_to(self, request_id: str) -> dict[str, Any]:
        connection = self._connected()
        while True:
            try:
                data = connection.recv(_REPLY_ROOM)
            except BlockingIOError:
                await _ready(connection, writable=False)
                continue
            reply = _reply(data)
            # A request that the daemon could not read is answered without an id.
            if reply.get("id") in (request_id, None):
                return reply


def _reply(data: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        reply = json.loads(data)
        if isinstance(reply, dict) and ("result" in reply or "error" in reply):
            return reply
    raise Unreachable("expected a JSON-RPC reply, got something else; is this vdpad's socket?")


async def _ready(connection: socket.socket, *, writable: bool) -> None:
    """Returns when the socket can be written or read. Cancellation leaves nothing behind."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    fd = connection.fileno()
    watch, unwatch = (
        (loop.add_writer, loop.remove_writer) if writable else (loop.add_reader, loop.remove_reader)
    )
    watch(fd, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        unwatch(fd)
