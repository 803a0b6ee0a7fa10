"""The client: the socket API from the other side, asynchronous, with descriptors.

    async with Client() as vdpad:
        report = await vdpad.restore("vm-7", state, target, fds=(memory, kick, call))

It asks over a connection where the daemon takes any, and by datagrams else. One request is under
way at a time. Results are the API's JSON objects as dicts: docs/api.md is their contract.
"""

import asyncio
import contextlib
import errno
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vdpad.errors import why
from vdpad.methods import DEFAULT_TIMEOUT, CannotSend, Methods, Refused, Unreachable
from vdpad.transports.connection import OverConnection
from vdpad.transports.datagrams import OverDatagrams
from vdpad.transports.transport import Transport
from vdpad.wire.addresses import (
    BACK_END_INTERFACE,
    DAEMON_INTERFACE,
    DEFAULT_SOCKET,
    DEFAULT_VARLINK,
)
from vdpad.wire.streams import BadStream
from vdpad.wire.unreachable import why_no_daemon

__all__ = ["DEFAULT_TIMEOUT", "CannotSend", "Client", "Refused", "Unreachable"]

# What should listen.
_DAEMON, _BACK_END = "vdpad", "vdpad-vhost-user"


class Client(Methods):
    """A vdpad on this host."""

    def __init__(
        self,
        path: Path | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        interface: str = DAEMON_INTERFACE,
    ) -> None:
        """
        Args:
            path: the daemon's socket, of either kind; None for where it listens by default.
            timeout: how long to wait for a reply, in seconds, beside a request's own deadline.
            interface: whose methods are called where that is a stream socket.
        """
        self._path = path
        self._timeout = timeout
        self._interface = interface
        self._transport: Transport | None = None
        self._entered = False
        self._turn = asyncio.Lock()

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
            # A request that says how long the daemon may take is given that time on top.
            timeout = self._timeout + params.get("deadline_ms", 0) / 1000
            answered = False
            try:
                async with asyncio.timeout(timeout):
                    result = await self._connected().ask(method, params, fds)
                answered = True
            except Refused:
                answered = True
                raise
            except TimeoutError:
                raise Unreachable(
                    f"{self._where}: no reply within {timeout:g} s; `status` tells what came "
                    "of the request"
                ) from None
            except (OSError, BadStream) as error:
                raise Unreachable(f"{self._where}: {why(error)}") from error
            finally:
                if not answered:
                    # Late replies must find nobody.
                    self._disconnect()
        return result

    async def watch(self, states: Sequence[str] | None = None) -> AsyncGenerator[dict[str, Any]]:
        """All operations in these states, and then each operation that changes, as it does.

        It has a connection of its own, from the first iteration until it is closed.

        Args:
            states: None for all.

        Raises:
            Refused: the daemon answered with an error, or ends.
            Unreachable: it could not be asked, or is gone.
            CannotSend: it takes datagrams only.
        """
        transport = self._connect()
        if not isinstance(transport, OverConnection):
            transport.close()
            raise CannotSend(
                f"{self._where} takes datagrams; watching goes over its other socket only"
            )
        params = {} if states is None else {"states": list(states)}
        try:
            async with contextlib.aclosing(transport.watch(params)) as changes:
                async for each in changes:
                    yield each
        except (OSError, BadStream) as error:
            raise Unreachable(f"{self._where}: {why(error)}") from error
        finally:
            transport.close()

    @property
    def _where(self) -> Path:
        return DEFAULT_SOCKET if self._path is None else self._path

    def _connected(self) -> Transport:
        """The transport; a new one where there is none."""
        if self._transport is None:
            if not self._entered:
                raise Unreachable("not connected; use the client as `async with Client() as …`")
            self._transport = self._connect()
        return self._transport

    def _disconnect(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _connect(self) -> Transport:
        """Connects to the path, or where that is not said to what there is.

        Raises:
            Unreachable: nobody listens.
        """
        try:
            if self._path is None:
                with contextlib.suppress(OSError):
                    return OverConnection(DEFAULT_VARLINK)
                return OverDatagrams(DEFAULT_SOCKET)
            return _transport_to(self._path, self._interface)
        except (OSError, ValueError) as error:
            program = _BACK_END if self._interface == BACK_END_INTERFACE else _DAEMON
            raise Unreachable(why_no_daemon(self._where, error, program)) from error


def _transport_to(path: Path, interface: str) -> Transport:
    try:
        return OverConnection(path, interface)
    except OSError as error:
        if error.errno != errno.EPROTOTYPE:
            raise
    return OverDatagrams(path)
