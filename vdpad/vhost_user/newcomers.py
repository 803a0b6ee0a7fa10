"""Newcomers: who has connected, until one of them is known for a front end, and beside it.

How it works. Whoever connects is listened to until a whole message of the protocol's has come. The
first of whom one has is the front end. Nobody else is: neither who goes without a word, as who
looks whether somebody listens there; nor who says anything else, which is told; nor who says
nothing, for as long as he does. These keep no front end waiting: all are listened to at the same
time, and the one that has been silent for longest makes way where there are too many.

While a front end is served, others are accepted and closed at once, each on its user's thread: one
that waited in the kernel's queue would take its device for hung. One that comes when the last has
hung up waits in that queue until the last is cleaned up after, also where messages of the last are
still served.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from vdpad.errors import VdpadError, why
from vdpad.vhost_user.channel import Channel, FrontEndMessage, hang_up, who_connected
from vdpad.vhost_user.faults import BadConnection, FrontEndGone, NotServed, means
from vdpad.vhost_user.messages import request_name
from vdpad.vhost_user.shapes import SHAPES
from vdpad.wire.descriptors import CLOSER
from vdpad.wire.readiness import readable

OnRefusal = Callable[[str, VdpadError], None]
"""Is told what was refused, a request by its name, and why."""

# How many may be silent at a time. Stops connections from taking all descriptors.
_MOST_SILENT = 16

# How long nobody is accepted where there are no descriptors, in seconds.
_RESTS = 1.0

# Under a number that no user has: whose connection it is, is known once it is accepted.
_NOBODY = -1


class Newcomers:
    """Those of one listening socket."""

    def __init__(self, listener: socket.socket, on_refusal: OnRefusal) -> None:
        """
        Args:
            listener: a stream socket of AF_UNIX, non-blocking; it stays the caller's.
            on_refusal: told of who is turned away.
        """
        self._listener = listener
        self._on_refusal = on_refusal
        self._silent: dict[asyncio.Task[FrontEndMessage | None], Channel] = {}
        """Who is listened to, the longest first."""
        self._accepting: asyncio.Task[socket.socket] | None = None

    async def front_end(self) -> tuple[Channel, FrontEndMessage]:
        """Waits for a front end. Cancellation leaves all others to `close`.

        Returns:
            its connection, and its first message; both are the caller's.
        """
        while True:
            if self._accepting is None:
                self._accepting = asyncio.create_task(self._accept())
            waited_for = {self._accepting, *self._silent}
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
            found = self._who_has_spoken()
            if found is not None:
                return found
            if self._accepting.done():
                connection, self._accepting = self._accepting.result(), None
                await self._listen_to(connection)

    async def turn_away(self, served: Channel) -> None:
        """Closes the connections of all others, and of all that come while this one is served.

        It returns where somebody comes and the one that is served has hung up.
        """
        self._refuse_second(len(self._silent))
        await self.close()
        with contextlib.suppress(FrontEndGone):
            while True:
                _hang_up(await self._accept(served))
                self._refuse_second(1)

    async def close(self) -> None:
        """Leaves nobody connected. Cancellation leaves who is left to another call."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
            accepting, self._accepting = self._accepting, None
            if not accepting.cancelled():
                _hang_up(accepting.result())
        for task in [*self._silent]:
            await self._let_go(task)

    # --- who is listened to ---

    async def _listen_to(self, connection: socket.socket) -> None:
        try:
            channel = Channel(connection)
        except BadConnection:
            return  # gone already
        self._silent[asyncio.create_task(self._first_message(channel))] = channel
        if len(self._silent) > _MOST_SILENT:
            await self._let_go(next(iter(self._silent)))
            self._refuse("a message sooner, got none before others came")

    async def _first_message(self, channel: Channel) -> FrontEndMessage | None:
        """What makes a front end of who sends it; None where nothing does."""
        message = None
        try:
            with means(), contextlib.suppress(FrontEndGone):
                message = await channel.receive()
        except VdpadError as error:
            self._refuse(f"a front end, got who begins otherwise ({error})")
        if message is not None and message.request not in SHAPES:
            message.attached.close()
            self._refuse(f"a front end, got who begins with {request_name(message.request)}")
            return None
        return message

    def _who_has_spoken(self) -> tuple[Channel, FrontEndMessage] | None:
        """A front end, if there is one; who is none is let go of."""
        for task in [each for each in self._silent if each.done()]:
            channel, message = self._silent.pop(task), task.result()
            if message is not None:
                return channel, message
            channel.close()
        return None

    async def _let_go(self, task: asyncio.Task[FrontEndMessage | None]) -> None:
        """Listens to him no more, also where he has spoken by now."""
        task.cancel()
        await asyncio.wait([task])
        channel = self._silent.pop(task)
        message = None if task.cancelled() else task.result()
        if message is not None:
            message.attached.close()
        channel.close()

    def _refuse(self, expected: str) -> None:
        self._on_refusal("a connection", NotServed(f"expected {expected}"))

    def _refuse_second(self, number: int) -> None:
        for _ in range(number):
            reason = NotServed("expected one front end at a time, another has the device")
            self._on_refusal("a second connection", reason)

    # --- who comes ---

    async def _accept(self, served: Channel | None = None) -> socket.socket:
        """The next connection. Cancellation leaves it to whoever accepts then.

        Raises:
            FrontEndGone: as cancellation; the one that is served has hung up.
        """
        while True:
            await readable(self._listener)
            if served is not None and served.has_gone:
                raise FrontEndGone("the front end that is served has hung up")
            if CLOSER.are_too_many_of(_NOBODY):
                await self._rest(
                    "descriptors that can be closed, got too many whose closing sleeps"
                )
                continue
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                # No descriptors, no memory: nothing ends the listening.
                await self._rest(f"room for it, got {why(error)}")
            else:
                return connection

    async def _rest(self, expected: str) -> None:
        self._refuse(expected)
        await asyncio.sleep(_RESTS)


def _hang_up(connection: socket.socket) -> None:
    hang_up(connection, who_connected(connection).uid)
