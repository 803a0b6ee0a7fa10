"""The client for a vdpad on another host: the same methods over UDP, each datagram sealed.

    async with RemoteClient("host-b", load_keys(path)) as vdpad:
        report = await vdpad.restore("vm-7", state, target)

Datagrams get lost, come twice, or late. So a request is sent again, each time sealed anew and after
a longer wait, until its reply is there or its time is over; the migration makes that harmless. What
does not open, is no reply, or has another id is somebody else's, and is skipped. The daemon says
nothing to what it cannot open: a wrong key looks like a lost datagram.

The socket is bound to no peer: a host with several addresses may answer from another one than it
was asked at, and the seal says more about the sender than its address.
"""

import asyncio
import contextlib
import json
import secrets
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from vdpad.errors import why
from vdpad.methods import (
    DEFAULT_TIMEOUT,
    CannotSend,
    Methods,
    Refused,
    Unreachable,
    result_of,
)
from vdpad.wire.addresses import DEFAULT_PORT
from vdpad.wire.keys import BadKeys, load_keys
from vdpad.wire.sealing import MAX_TEXT, MAX_TOKEN, NotOpened, Sealer

__all__ = [
    "DEFAULT_TIMEOUT",
    "BadKeys",
    "CannotSend",
    "Refused",
    "RemoteClient",
    "Unreachable",
    "load_keys",
]

# How long to wait for a reply before asking again, in seconds: above a round trip between hosts and
# a commit that goes well; doubled each time, so that a daemon with much to do is not given more.
_FIRST_WAIT = 0.2
_MAX_WAIT = 2.0

# What is in an id stands for one request among all that were ever made with a key, in bytes.
_ID_BYTES = 16


class RemoteClient(Methods):
    """A vdpad on another host. One request is under way at a time."""

    def __init__(
        self,
        host: str,
        keys: Sequence[bytes],
        port: int = DEFAULT_PORT,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """
        Args:
            host: a name or an address. Of a name the first address is used, and no other, as
                another may be another host's.
            keys: as `load_keys` gives them.
            port: the daemon's.
            timeout: how long to ask, in seconds, beside a request's own deadline.
        """
        self._host = host
        self._port = port
        self._sealer = Sealer(keys)
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._address: tuple[Any, ...] = ()
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Looks the host up. Nothing is sent yet.

        Raises:
            Unreachable: it has no address, or this host cannot reach such.
        """
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                self._host, self._port, type=socket.SOCK_DGRAM
            )
            family, *_, self._address = found[0]
            self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except (OSError, ValueError) as error:
            raise Unreachable(f"{self._host}: {why(error)}") from error
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the socket. Commits that were begun go on."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def call(self, method: str, fds: Sequence[int] = (), **params: Any) -> Any:
        """Any method by its name.

        Cancellation gives up the reply, not what was asked for. `release` of a device may be
        refused as no-such-device where the reply to an earlier try was lost.

        Raises:
            Refused: the daemon answered with an error.
            Unreachable: it could not be asked, or did not answer in time.
            CannotSend: with descriptors, or too long.
        """
        if fds:
            raise CannotSend("descriptors do not go between hosts; commit on the device's host")
        async with self._turn:
            request_id = secrets.token_hex(_ID_BYTES)
            request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
            text = json.dumps(request, separators=(",", ":")).encode()
            if len(text) > MAX_TEXT:
                raise CannotSend(
                    f"expected a request of at most {MAX_TEXT} bytes, got {len(text)}; ask over "
                    "the Unix socket, through ssh"
                )
            # A request that says how long the daemon may take is given that time on top.
            timeout = self._timeout + params.get("deadline_ms", 0) / 1000
            try:
                async with asyncio.timeout(timeout):
                    reply = await self._exchange(text, request_id)
            except TimeoutError:
                raise Unreachable(
                    f"{self._where()}: no reply within {timeout:g} s: nobody listens there, or has "
                    "another key or clock (its log tells); `status` tells what came of the request"
                ) from None
            except OSError as error:
                raise Unreachable(f"{self._where()}: {why(error)}") from error
        return result_of(reply)

    def _where(self) -> str:
        return f"{self._host} (udp {self._address[0]} port {self._port})"

    async def _exchange(self, text: bytes, request_id: str) -> dict[str, Any]:
        """Asks until there is a reply."""
        if self._socket is None:
            raise Unreachable("not connected; use the client as `async with RemoteClient() as …`")
        wait = _FIRST_WAIT
        while True:
            with contextlib.suppress(BlockingIOError):  # no room: as good as lost on the way
                self._socket.sendto(self._sealer.seal(text), self._address)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    return await self._reply_to(self._socket, request_id)
            wait = min(2 * wait, _MAX_WAIT)

    async def _reply_to(self, connection: socket.socket, request_id: str) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        while True:
            token, _ = await loop.sock_recvfrom(connection, MAX_TOKEN + 1)
            reply = self._reply(token)
            if reply is not None and reply.get("id") == request_id:
                return reply
            # A flood of what is not ours must not keep the timeout from ending it.
            await asyncio.sleep(0)

    def _reply(self, token: bytes) -> dict[str, Any] | None:
        """What a datagram says, if it is a reply."""
        with contextlib.suppress(NotOpened, ValueError, RecursionError):
            reply = json.loads(self._sealer.open(token))
            if isinstance(reply, dict) and ("result" in reply or "error" in reply):
                return reply
        return None
