"""Front ends and the order of their messages: one at a time, each message answered before the next.

How it works. While a front end is served, others are accepted and closed at once, each on its
user's thread: one that waited in the kernel's queue would take its device for hung. One that comes
when the last is gone, but not cleaned up after, waits until it is. Who connects and goes without a
word, as who looks whether somebody listens there, was no front end.

What is not served is told by the reply that the request has of its own, or by a number that is not
zero where the front end asked for one (REPLY_ACK). Where there is no way to say it the connection
is closed, since the front end would go on as if it were done. So is it where what comes is no
message. Either way all that the front end gave is let go of before its connection is.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from vdpad.errors import VdpadError, why
from vdpad.vhost_user import messages
from vdpad.vhost_user.channel import Channel, FrontEndMessage, hang_up, who_connected
from vdpad.vhost_user.device import VhostUserDevice
from vdpad.vhost_user.faults import FrontEndGone, NotServed, NotTold, means
from vdpad.vhost_user.messages import Header, ProtocolFeature, push_u64, request_name
from vdpad.vhost_user.requests import serve
from vdpad.vhost_user.session import Session
from vdpad.vhost_user.shapes import SHAPES, Shape
from vdpad.wire.descriptors import CLOSER
from vdpad.wire.readiness import readable

_DONE = 0
_NOT_DONE = 1

OnRefusal = Callable[[str, VdpadError], None]
"""Is told what was refused, a request by its name, and why."""

OnSession = Callable[[Session | None], None]
"""Is told of a session that begins, by its first message, and when all of it has ended."""

# How long nobody is accepted where there are no descriptors, in seconds.
_RESTS = 1.0

# Under a number that no user has: whose connection it is, is known once it is accepted.
_NOBODY = -1


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
        came = False
        while not came:
            connection = await self._accept(listener)
            turning_away = asyncio.create_task(self._turn_away(listener))
            try:
                came = await self._serve(connection, turning_away.cancel)
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
        await self._serve(connection, lambda: None)

    async def _serve(self, connection: socket.socket, on_end: Callable[[], object]) -> bool:
        """As `serve`; whether it was a front end.

        Args:
            connection: taken over.
            on_end: called as soon as no more of its messages are read.
        """
        channel = Channel(connection)
        with means(), contextlib.closing(channel):
            self.session = session = Session(self._device, channel.front_end, channel.gone)
            first: FrontEndMessage | None = None
            try:
                first = await _first(channel)
                if first is None:
                    return False
                self._on_session(session)
                await self._converse(channel, session, first)
            finally:
                on_end()
                self.session = None
                if first is not None:
                    await self._end(session)
        return True

    async def _end(self, session: Session) -> None:
        try:
            await session.end()
        finally:
            self._on_session(None)

    async def _turn_away(self, listener: socket.socket) -> None:
        while True:
            another = await self._accept(listener)
            hang_up(another, who_connected(another).uid)
            reason = NotServed("expected one front end at a time, another has the device")
            self._on_refusal("a second connection", reason)

    async def _accept(self, listener: socket.socket) -> socket.socket:
        """The next connection. Cancellation leaves it to whoever accepts then."""
        while True:
            await readable(listener)
            if CLOSER.are_too_many_of(_NOBODY):
                await self._rest(
                    "descriptors that can be closed, got too many whose closing sleeps"
                )
                continue
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                # No descriptors, no memory: nothing ends the listening.
                await self._rest(f"room for it, got {why(error)}")
            else:
                return connection

    async def _rest(self, expected: str) -> None:
        self._on_refusal("a connection", NotServed(f"expected {expected}"))
        await asyncio.sleep(_RESTS)

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
