"""Asking over a connection: Varlink's calls of one interface, and their replies in order.

A caller gets the same here as by datagrams: parameters and results in the shapes of docs/api.md,
refusals by their kinds. What Varlink has otherwise is undone here and nowhere else: a result that
it wraps in an object (`_WITHIN`), an error's name (`_KINDS`), the places of a lent ring's
descriptors. A message ends with a NUL byte, so one request after the other is on its way, and the
next reply is the last request's; a `watch` has the connection to itself.
"""

import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vdpad.errors import VdpadError
from vdpad.methods import Refused, Unreachable, too_long
from vdpad.service.envelope import CODES
from vdpad.service.refusal import Kind
from vdpad.service.varlink.interface import error_name
from vdpad.wire.addresses import BACK_END_INTERFACE, DAEMON_INTERFACE
from vdpad.wire.streams import MAX_MESSAGE, Stream
from vdpad.wire.strict_json import NotJson
from vdpad.wire.varlink import SERVICE, Call, CallReply, Json, NoCall, pull_reply, push_call

_INTERFACES = (DAEMON_INTERFACE, BACK_END_INTERFACE)

# A reply may be long in coming, and the client has a timeout of its own.
_PATIENCE = 600.0

_KINDS = {
    **{f"{each}.{error_name(kind)}": kind for each in _INTERFACES for kind in Kind},
    f"{SERVICE}.InvalidParameter": Kind.INVALID_PARAMS,
    f"{SERVICE}.MethodNotFound": Kind.METHOD_NOT_FOUND,
}

# What in a reply is the result, where it is not the whole.
_WITHIN = {"devices": "devices", "prepare": "operation", "cancel": "operation"}


class OverConnection:
    """Implements Transport over a connected stream socket, in Varlink."""

    def __init__(self, path: Path, interface: str = DAEMON_INTERFACE) -> None:
        """Connects.

        Args:
            path: of the listening socket.
            interface: whose methods are called.

        Raises:
            OSError, ValueError: nobody takes connections there.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(str(path))
        except BaseException:
            connection.close()
            raise
        self._interface = interface
        self._stream = Stream(connection, _PATIENCE)

    async def ask(self, method: str, params: Mapping[str, Any], fds: Sequence[int]) -> Any:
        """As Transport has it. On cancellation the reply may still come: close the connection."""
        await self._call(method, _with_places(params, fds), fds)
        return _result(method, _parameters(await self._reply()))

    async def watch(self, params: Mapping[str, Any]) -> AsyncGenerator[Json]:
        """What `watch` gives, one after the other; raises as `ask` does."""
        await self._call("watch", params, (), more=True)
        while True:
            reply = await self._reply()
            yield _result("cancel", _parameters(reply))
            if not reply.continues:
                return

    def close(self) -> None:
        """Closes the connection, which ends what was watched over it."""
        self._stream.close()

    async def _call(
        self, method: str, params: Mapping[str, Any], fds: Sequence[int], *, more: bool = False
    ) -> None:
        data = push_call(Call(f"{self._interface}.{method.capitalize()}", dict(params), more=more))
        if len(data) > MAX_MESSAGE:
            raise too_long(len(data), MAX_MESSAGE)
        await self._stream.send(data, fds)

    async def _reply(self) -> CallReply:
        message = await self._stream.receive()
        if message is None:
            raise Unreachable("it closed the connection; `status` tells what came of the request")
        try:
            return pull_reply(message.data)
        except (NotJson, NoCall) as error:
            raise _no_vdpad(str(error)) from error


def _with_places(params: Mapping[str, Any], fds: Sequence[int]) -> Mapping[str, Any]:
    """With the places of a lent ring's descriptors, where there are any."""
    if len(fds) != 3:
        return params
    return {**params, "descriptors": {"memory": 0, "kick": 1, "call": 2}}


def _parameters(reply: CallReply) -> Json:
    """A reply's.

    Raises:
        Refused: it is an error.
        Unreachable: an error that no vdpad gives.
    """
    if reply.error is not None:
        raise _refusal(reply)
    return reply.parameters


def _refusal(reply: CallReply) -> VdpadError:
    kind = _KINDS.get(str(reply.error))
    if kind is None:
        return _no_vdpad(f"got {reply.error}")
    data = {**reply.parameters, "kind": kind.value}
    data.pop("parameter", None)
    message = data.pop("message", None)
    return Refused(CODES[kind], message if isinstance(message, str) else str(reply.error), data)


def _result(method: str, parameters: Json) -> Any:
    """The method's result, as docs/api.md has it.

    Raises:
        Unreachable: it is not there.
    """
    name = _WITHIN.get(method)
    if method == "status":
        name = "operation" if "operation" in parameters else None
    if name is None:
        return parameters
    if name not in parameters:
        raise _no_vdpad(f"expected {name} in the reply")
    return parameters[name]


def _no_vdpad(what: str) -> Unreachable:
    return Unreachable(f"expected a Varlink reply of vdpad's, {what}; is this vdpad's socket?")
