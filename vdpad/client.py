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
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vdpad.datagrams import DEFAULT_SOCKET, MAX_DATAGRAM
from vdpad.errors import VdpadError, why

# Above any deadline that a caller leaves to the daemon, in seconds.
DEFAULT_TIMEOUT = 30.0

_REPLY_ROOM = 2 * MAX_DATAGRAM


class Unreachable(VdpadError):
    """No daemon took the request, or none replied in time. What became of it `status` tells."""


class Refused(VdpadError):
    """The daemon's error reply."""

    def __init__(self, code: int, message: str, data: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        """`error.data` of the reply."""

    @property
    def kind(self) -> str:
        """The error's name, such as "incompatible"; see docs/api.md."""
        return str(self.data.get("kind", "unknown"))


class Client:
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

    async def info(self) -> dict[str, Any]:
        """The daemon's name, version, limits, formats and targets."""
        return await self._object("info")

    async def check(self, state: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
        """Whether a target takes a state, and what would be sent. Touches no device."""
        return await self._object("check", state=state, target=target)

    async def prepare(
        self,
        migration: str,
        state: Mapping[str, Any],
        target: Mapping[str, Any],
        *,
        deadline_ms: int | None = None,
    ) -> dict[str, Any]:
        """Checks and encodes a state for a target, so that commit has next to nothing to do."""
        return await self._object(
            "prepare",
            migration=migration,
            state=state,
            target=target,
            **_given(deadline_ms=deadline_ms),
        )

    async def commit(
        self, migration: str, *, fds: Sequence[int] = (), deadline_ms: int | None = None
    ) -> dict[str, Any]:
        """Replays what was prepared and gives its report.

        Cancellation leaves the commit running in the daemon.

        Args:
            migration: as it was prepared.
            fds: for a lent target its memory, kick and call; they stay the caller's.
            deadline_ms: for the whole replay.
        """
        return await self._object(
            "commit", fds, migration=migration, **_given(deadline_ms=deadline_ms)
        )

    async def restore(
        self,
        migration: str,
        state: Mapping[str, Any],
        target: Mapping[str, Any],
        *,
        fds: Sequence[int] = (),
        deadline_ms: int | None = None,
    ) -> dict[str, Any]:
        """prepare and commit in one; see there."""
        return await self._object(
            "restore",
            fds,
            migration=migration,
            state=state,
            target=target,
            **_given(deadline_ms=deadline_ms),
        )

    async def status(self, migration: str) -> dict[str, Any]:
        """What became of a migration."""
        return await self._object("status", migration=migration)

    async def operations(self) -> list[dict[str, Any]]:
        """All operations that the daemon remembers, as far as a reply takes them; newest first."""
        return await self._list("status")

    async def devices(self) -> list[dict[str, Any]]:
        """The vDPA devices of the daemon's host."""
        return await self._list("devices")

    async def release(self, device: str) -> None:
        """Has the daemon close a vhost-vdpa device that it keeps, which resets the device.

        Args:
            device: its vdpa name, or its node's path.
        """
        await self._object("release", device=device)

    async def cancel(self, migration: str) -> dict[str, Any]:
        """Cancels what was prepared."""
        return await self._object("cancel", migration=migration)

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
            # A request that says how long the daemon may take is given that time on top.
            timeout = self._timeout + params.get("deadline_ms", 0) / 1000
            reply = None
            try:
                async with asyncio.timeout(timeout):
                    await self._send(json.dumps(request, separators=(",", ":")).encode(), fds)
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
        if "error" in reply:
            raise _refusal(reply["error"])
        return reply["result"]

    async def _list(self, method: str) -> list[dict[str, Any]]:
        result: Any = await self.call(method)
        if not isinstance(result, list):
            raise Unreachable(f"expected a list as the reply, got {type(result).__name__}")
        return result

    async def _object(
        self, method: str, fds: Sequence[int] = (), /, **params: Any
    ) -> dict[str, Any]:
        result: Any = await self.call(method, fds, **params)
        if not isinstance(result, dict):
            raise Unreachable(f"expected an object as the reply, got {type(result).__name__}")
        return result

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
            raise Unreachable(f"{self._path}: {why(error)}; is vdpad running?") from error
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


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _refusal(error: Any) -> VdpadError:
    match error:
        case {"code": int(code), "message": str(message), "data": dict(data)}:
            return Refused(code, message, data)
        case {"code": int(code), "message": str(message), **rest} if "data" not in rest:
            return Refused(code, message, {})
    return Unreachable("expected a JSON-RPC error, got something else; is this vdpad's socket?")


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
