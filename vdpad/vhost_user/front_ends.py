"""Front ends and the order of their messages: one at a time, each message answered before the next.

How it works. Who of those that connect is the front end newcomers.py says, and what becomes of the
others.

What is not served is told by the reply that the request has of its own, or by a number that is not
zero where the front end asked for one (REPLY_ACK). Where there is no way to say it the connection
is closed, since the front end would go on as if it were done. So is it where what comes is no
message. Either way all that the front end gave is let go of before its connection is.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from vdpad.errors import VdpadError
from vdpad.vhost_user import messages
from vdpad.vhost_user.channel import Channel, FrontEndMessage
from vdpad.vhost_user.device import VhostUserDevice
from vdpad.vhost_user.faults import FrontEndGone, NotServed, NotTold, means
from vdpad.vhost_user.messages import Header, ProtocolFeature, request_name
from vdpad.vhost_user.newcomers import Newcomers, OnRefusal
from vdpad.vhost_user.payloads import push_u64
from vdpad.vhost_user.requests import serve
from vdpad.vhost_user.session import Session
from vdpad.vhost_user.shapes import SHAPES, Shape

_DONE = 0
_NOT_DONE = 1

OnSession = Callable[[Session | None], None]
"""Is told of a session that begins, by its first message, and when all of it has ended."""


class FrontEnds:
    """Gives one device to front ends, one after the other."""

    def __init__(
        self,
        device: VhostUserDevice,
        on_refusal: OnRefusal,
        on_session: OnSession = lambda session: None,
    ) -> None:
        """Nobody is served yet."""
        self._device = device
        self._on_refusal = on_refusal
        self.session: Session | None = None
        """The front end's that is served now."""
        self._on_session = on_session

    async def serve_next(self, listener: socket.socket) -> None:
        """Waits for a front end and serves it until it is gone.

        Args:
            listener: a listening stream socket of AF_UNIX, non-blocking; it stays the caller's.

        Raises:
            VdpadError: as of `serve`.
        """
        newcomers = Newcomers(listener, self._on_refusal)
        try:
            channel, first = await newcomers.front_end()
            with means(), contextlib.closing(channel):
                await self._serve_beside(newcomers, channel, first)
        finally:
            await newcomers.close()

    async def _serve_beside(
        self, newcomers: Newcomers, channel: Channel, first: FrontEndMessage
    ) -> None:
        """Serves one, as `_serve`, and turns all others away meanwhile."""
        turning_away = asyncio.create_task(newcomers.turn_away(channel))
        try:
            await self._serve(channel, self._begin(channel), first, turning_away.cancel)
        finally:
            turning_away.cancel()
            await asyncio.wait([turning_away])

    async def serve(self, connection: socket.socket) -> None:
        """Serves a front end until it is gone. On cancellation too the device is stopped first.

        Args:
            connection: taken over.

        Raises:
            BadConnection: no vhost-user can be spoken over it.
            BadMessage, NotServed, NoMeans: the connection was closed for this reason.
            VdpadError: the device could not be stopped as it should.
        """
        channel = Channel(connection)
        with means(), contextlib.closing(channel):
            session = self._begin(channel)
            try:
                first = await _first(channel)
            finally:
                self.session = None
            if first is not None:
                self.session = session
                await self._serve(channel, session, first, lambda: None)

    def _begin(self, channel: Channel) -> Session:
        self.session = Session(self._device, channel.front_end, channel.gone)
        return self.session

    async def _serve(
        self,
        channel: Channel,
        session: Session,
        first: FrontEndMessage,
        on_end: Callable[[], object],
    ) -> None:
        """Serves a session from its first message on.

        Args:
            channel: the caller's to close.
            session: the one that is served now.
            first: its first message.
            on_end: called as soon as no more of its messages are read.
        """
        try:
            self._on_session(session)
            await self._converse(channel, session, first)
        finally:
            on_end()
            self.session = None
            await self._end(session)

    async def _end(self, session: Session) -> None:
        try:
            await session.end()
        finally:
            self._on_session(None)

    async def _converse(self, channel: Channel, session: Session, first: FrontEndMessage) -> None:
        message: FrontEndMessage | None = first
        with contextlib.suppress(FrontEndGone):
            while message is not None:
                try:
                    reply = await self._reply(session, message)
                    if reply is not None:
                        flags = messages.VERSION | messages.REPLY
                        await channel.send(Header(message.request, flags, len(reply)), reply)
                finally:
                    message.attached.close()
                message = await channel.receive()

    async def _reply(self, session: Session, message: FrontEndMessage) -> bytes | None:
        try:
            with means():
                reply = await serve(session, message)
        except VdpadError as error:
            self._on_refusal(request_name(message.request), error)
            return _refusal(session, message, error)
        if reply is None and _acknowledges(session, message):
            return push_u64(_DONE)
        return reply


async def _first(channel: Channel) -> FrontEndMessage | None:
    with contextlib.suppress(FrontEndGone):
        return await channel.receive()
    return None


def _refusal(session: Session, message: FrontEndMessage, error: VdpadError) -> bytes:
    """How a front end is told.

    Raises:
        NotServed: there is no way to.
    """
    shape = SHAPES.get(message.request, Shape())
    replies = shape.replies or shape.replies_with in session.protocol_features
    if not isinstance(error, NotTold):
        if replies and shape.refusal is not None:
            return shape.refusal(message.payload)
        if not replies and _acknowledges(session, message):
            return push_u64(_NOT_DONE)
    raise NotServed(
        f"{request_name(message.request)} was not served, and the connection closed, as there is "
        f"no other way to say so: {error}"
    ) from error


def _acknowledges(session: Session, message: FrontEndMessage) -> bool:
    """Whether a message without a reply of its own is answered by a number."""
    return message.needs_reply and ProtocolFeature.REPLY_ACK in session.protocol_features
