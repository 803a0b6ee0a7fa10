"""A conversation: the calls that come on one connection, each answered before the next is read.

    Stream ──message──▶ call ──┬─ Method ──▶ one reply
                               └─ Series ──▶ a reply for each thing it gives, until the caller
                                             goes away or the service ends
           ◀──replies──────────┘

So replies are in the order of the calls, and what a client has sent ahead waits in the kernel. What
is no call ends the connection, after an error that says so: nobody knows what else is on it.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace

from vdpad.service.endpoints.stream import Connection
from vdpad.service.refusal import Kind, Refusal
from vdpad.service.request import Request, reply_too_long
from vdpad.service.users.turns import Turns
from vdpad.service.varlink.about import About, NotCalled, service_interface
from vdpad.service.varlink.interface import Interface, error_reply
from vdpad.wire.datagrams import Peer
from vdpad.wire.streams import MAX_MESSAGE, Message, Stream, TooLong
from vdpad.wire.strict_json import NotJson
from vdpad.wire.varlink import Call, CallReply, Json, NoCall, pull_call, push_reply


class Varlink:
    """A service, and whoever talks to it."""

    def __init__(
        self,
        about: About,
        interface: Interface,
        refused: Callable[[Refusal], None],
        turns: Turns | None = None,
    ) -> None:
        """
        Args:
            about: what it says of itself.
            interface: what it is there for.
            refused: told of what was refused before it was a call.
            turns: who may keep the loop; others than connections may go by them too.
        """
        self._turns = Turns() if turns is None else turns
        self._main = interface.name
        self._refused = refused
        interfaces = (interface, service_interface(about, [interface]))
        self._interfaces: Mapping[str, Interface] = {each.name: each for each in interfaces}

    def overloaded(self) -> bytes:
        """What is said, as a whole, to a connection that there is no room for."""
        refusal = Refusal(Kind.OVERLOADED, "too many connections are open; close some")
        return push_reply(error_reply(self._main, refusal)) + b"\0"

    async def converse(self, connection: Connection) -> None:
        """Answers what comes, until the client closes or what it sends is no call.

        Cancellation leaves running what was begun and must not be cut short.

        Raises:
            BadStream, OSError: the connection is of no more use.
        """
        while (called := await self._called(connection)) is not None:
            call, request = called
            try:
                if connection.place.is_taken:
                    # Reading it took a while, and so will its parameters.
                    await self._turns.step(request.peer.user)
                await self._answer(call, request, connection.stream)
            finally:
                request.peer.close_fds()
                connection.place.leave()

    async def _called(self, connection: Connection) -> tuple[Call, Request] | None:
        """The next call and, apart from it, what it brought; None where there is no more."""
        try:
            message = await connection.stream.receive(connection.place.take)
            if message is None:
                return None
            peer = _peer(connection, message)
            try:
                await self._turns.step(peer.user)
                return _pulled(connection, message.data, peer)
            except BaseException:
                peer.close_fds()
                raise
        except (TooLong, NotJson, NoCall) as error:
            kind = Kind.PARSE_ERROR if isinstance(error, NotJson) else Kind.INVALID_REQUEST
            refusal = Refusal(kind, str(error))
            self._refused(refusal)
            await connection.stream.send(push_reply(error_reply(self._main, refusal)))
            if isinstance(error, TooLong):
                raise
            return None

    async def _answer(self, call: Call, request: Request, stream: Stream) -> None:
        name = call.interface
        try:
            interface = self._interface_of(call)
            if call.name in interface.series:
                await _send_while_there(stream, interface.series[call.name](request))
                return
            reply = CallReply(await interface.methods[call.name](request))
        except NotCalled as error:
            self._refused(Refusal(Kind.METHOD_NOT_FOUND, str(error)))
            reply = error.reply
        except Refusal as refusal:
            reply = error_reply(name, refusal)
        if not call.oneway:
            await stream.send(self._pushed(reply, request.peer))

    def _interface_of(self, call: Call) -> Interface:
        """The interface of a call that can be made like this.

        Raises:
            NotCalled: it cannot.
        """
        interface = self._interfaces.get(call.interface)
        if interface is None:
            raise NotCalled("InterfaceNotFound", interface=call.interface)
        if call.name not in interface.methods.keys() | interface.series.keys():
            raise NotCalled("MethodNotFound", method=call.method)
        if call.name in interface.series and not call.more:
            raise NotCalled("ExpectedMore")
        if call.upgrade:
            raise NotCalled("MethodNotImplemented", method=call.method)
        return interface

    def _pushed(self, reply: CallReply, peer: Peer) -> bytes:
        data = push_reply(reply)
        if len(data) <= peer.limit:
            return data
        return push_reply(error_reply(self._main, reply_too_long(len(data), peer)))


def _peer(connection: Connection, message: Message) -> Peer:
    who = connection.stream.credentials
    return Peer(
        None, who.pid, who.uid, who.gid, message.fds, message.too_many_fds, limit=MAX_MESSAGE
    )


def _pulled(connection: Connection, data: bytes, peer: Peer) -> tuple[Call, Request]:
    call = pull_call(data)
    request = Request(
        call.name, call.parameters, None, peer, time.perf_counter_ns(), connection.place.leave
    )
    return replace(call, parameters={}), request


async def _send_while_there(stream: Stream, series: AsyncGenerator[Json]) -> None:
    """Sends a reply for each that a series gives, until the client hangs up.

    Raises:
        Refusal: why the series ends.
        BadStream, OSError: the connection is of no more use.
    """
    sending = asyncio.ensure_future(_send_each(stream, series))
    hung_up = asyncio.ensure_future(stream.hung_up())
    try:
        await asyncio.wait((sending, hung_up), return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        hung_up.cancel()
        await asyncio.wait((sending, hung_up))
    if not sending.cancelled():
        sending.result()


async def _send_each(stream: Stream, series: AsyncGenerator[Json]) -> None:
    async with contextlib.aclosing(series):
        async for parameters in series:
            await stream.send(push_reply(CallReply(parameters, continues=True)))
            await asyncio.sleep(0)
