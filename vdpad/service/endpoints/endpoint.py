"""Endpoints: where datagrams come in and replies go out. asyncio-dgram's streams, kept in bounds.

    socket ──▶ queue ──▶ a task each: waits for its user's turn, answers, sends ──▶ socket
      └─ full, or no share left ──▶ a constant reply, nothing is looked at

Each datagram is answered in a task of its own, so that a commit under way keeps nobody waiting. The
tasks are bounded, in number and by the bytes of their datagrams, and each user has a share of both;
and since what begins a task keeps the event loop, tasks begin by turns of users. A datagram's
descriptors are closed when it has been answered, whatever happened, on threads; where too many wait
for that, nothing more is read until some are gone.

All that is here, but what a Unix socket's path is about, serves the UDP endpoint too (udp.py).
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from asyncio_dgram.aio import DatagramServer, Protocol

from vdpad.service.events.announcing import Announce, log_event
from vdpad.service.events.kinds import DescriptorsStuck, RepliesLost, SocketError, SocketLost
from vdpad.service.events.tally import Tally
from vdpad.service.users.shares import Shares
from vdpad.service.users.turns import Turns
from vdpad.wire.datagrams import Loss, NoRequest, Peer
from vdpad.wire.descriptors import CLOSER, call_soon

Answer = Callable[[bytes, Peer], Awaitable[bytes | None]]

# Datagrams that have been read in one turn of the loop. Stops a flood from filling memory.
_QUEUED_DATAGRAMS = 64

# Datagrams of one user that wait or are being answered, which takes up to a commit's deadline.
# Stops the same.
_ANSWERED_AT_ONCE = 1024

# And their bytes. What a datagram holds takes ten times its size while it waits for a commit, so
# these are 80 MiB, and with others' 120 (systemd/vdpad.service reckons with it); by the number
# above alone they could be 2 GiB. On average one may have 8 KiB, which a guest's state does not
# reach.
_BYTES_AT_ONCE = 8 * 1024 * 1024

# How many users an event names.
_NAMED = 8


class _BoundedProtocol(Protocol):
    """asyncio-dgram's protocol, but whoever it is for decides what comes of what came."""

    def __init__(
        self,
        received: asyncio.Queue[Any],
        errors: asyncio.Queue[Any],
        drained: asyncio.Event,
        came: Callable[[bytes, Peer], None],
        announce: Announce,
        name: str,
    ) -> None:
        super().__init__(received, errors, drained)
        self._came = came
        self._announce = announce
        self._name = name

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._came(data, addr)

    def error_received(self, exc: Exception) -> None:
        # The stream would raise it out of somebody else's recv.
        self._announce(SocketError(str(exc)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the stream without asyncio-dgram's sentinel, which a full queue would not take.

        asyncio closes a socket for good whose reading raised anything but an OSError.
        """
        if exc is not None:
            self._announce(SocketLost(self._name, repr(exc)))


class Endpoint:
    """A datagram socket whose `recvfrom` gives Peers and whose `sendto` takes them."""

    def __init__(
        self,
        answer: Answer,
        overloaded: bytes,
        announce: Announce = log_event,
        turns: Turns | None = None,
    ) -> None:
        """
        Args:
            answer: gives the reply to a datagram, or raises NoRequest.
            overloaded: the reply to one that there is no room for.
            announce: told of the socket's errors, and of replies that were lost.
            turns: who may keep the loop; others than this endpoint may go by them too.
        """
        self._answer = answer
        self._overloaded = overloaded
        self._announce = announce
        self._received: asyncio.Queue[Any] = asyncio.Queue(_QUEUED_DATAGRAMS)
        self._lost: Tally[tuple[str, int | None, str]] = Tally(
            lambda count, reasons, last: announce(RepliesLost(count, reasons, *last))
        )
        self._turns = Turns() if turns is None else turns
        self._tasks: set[asyncio.Task[None]] = set()
        self._datagrams = Shares(_ANSWERED_AT_ONCE)
        self._bytes = Shares(_BYTES_AT_ONCE)
        self._refused = 0
        self._is_paused = False
        self._leaves_the_rest = False
        self._stream: DatagramServer | None = None
        self._transport: Any = None
        self._protocol: _BoundedProtocol | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def datagrams_refused(self) -> int:
        """How many there was no room for."""
        return self._refused

    @property
    def replies_dropped(self) -> int:
        """How many could not be sent."""
        return self._lost.counts.total()

    def leave_the_rest(self) -> None:
        """What comes from now on stays in the socket, for whoever serves it next."""
        self._leaves_the_rest = True
        if self._transport is not None:
            _stop_reading(self._transport)

    def _pause(self) -> None:
        """Reads no more until descriptors that wait to be closed are gone."""
        if self._is_paused or self._leaves_the_rest:
            return
        self._is_paused = True
        _stop_reading(self._transport)
        self._announce(descriptors_stuck())
        loop = asyncio.get_running_loop()
        CLOSER.when_relieved(partial(call_soon, loop, self._read_again))

    def _read_again(self) -> None:
        self._is_paused = False
        if not self._leaves_the_rest:
            _begin_reading(self._transport)

    async def close(self) -> None:
        """Ends once all that had been read is answered."""
        await self._stop_reading()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._stream is not None:
            self._stream.close()
        self._lost.flush()

    def _note_lost(self, loss: Loss, peer: Peer, words: str) -> None:
        """What the socket tells of a reply that could not be sent."""
        self._lost.note(loss, (words, None if peer.sealed else peer.pid, peer.named()))

    async def _serve(self, endpoint: socket.socket) -> None:
        """Begins to answer on a bound socket, which is the stream's from now on."""
        loop = asyncio.get_running_loop()
        errors: asyncio.Queue[Any] = asyncio.Queue()
        drained = asyncio.Event()
        name = str(endpoint.getsockname())
        self._transport, self._protocol = await loop.create_datagram_endpoint(
            lambda: _BoundedProtocol(
                self._received, errors, drained, self._came, self._announce, name
            ),
            sock=endpoint,
        )
        self._stream = DatagramServer(self._transport, self._received, errors, drained)
        self._reader = loop.create_task(self._read(), name="endpoint")

    async def _read(self) -> None:
        assert self._stream is not None
        while True:
            data, address = await self._stream.recv()
            self._answer_or_refuse(data, cast("Peer", address))

    async def _stop_reading(self) -> None:
        """What was read is being answered from here on."""
        self.leave_the_rest()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        while not self._received.empty():
            self._answer_or_refuse(*self._received.get_nowait())

    def _came(self, data: bytes, peer: Peer) -> None:
        """Begins with a datagram where there is none before it; else puts it in the queue, or
        refuses it where that is full."""
        if not self._tasks and self._received.empty():
            self._answer_or_refuse(data, peer)
        else:
            try:
                self._received.put_nowait((data, peer))
            except asyncio.QueueFull:
                self._refuse(peer)
        # With a sealed one none come.
        if CLOSER.are_too_many and not peer.sealed:
            self._pause()

    def _answer_or_refuse(self, data: bytes, peer: Peer) -> None:
        user, size = peer.user, len(data)
        if not self._datagrams.take(user):
            self._refuse(peer)
        elif not self._bytes.take(user, size):
            self._datagrams.give_back(user)
            self._refuse(peer)
        else:
            task = asyncio.get_running_loop().create_task(self._reply(data, peer))
            self._tasks.add(task)
            task.add_done_callback(partial(self._answered, user, size))

    def _answered(self, user: int, size: int, task: asyncio.Task[None]) -> None:
        self._datagrams.give_back(user)
        self._bytes.give_back(user, size)
        self._tasks.discard(task)

    def _refuse(self, peer: Peer) -> None:
        """Says that there is no room for it, and counts it."""
        self._refused += 1
        peer.close_fds()
        self._send_soon(self._overloaded, peer)

    async def _reply(self, data: bytes, peer: Peer) -> None:
        try:
            await self._turns.step(peer.user)
            reply = await self._answer(data, peer)
            if reply is not None:
                await self._send(reply, peer)
        except NoRequest as error:
            self._note_lost(Loss.REFLECTED, peer, str(error))
        finally:
            peer.close_fds()

    async def _send(self, reply: bytes, peer: Peer) -> None:
        assert self._stream is not None
        await self._stream.send(reply, cast("Any", peer))

    def _send_soon(self, reply: bytes, peer: Peer) -> None:
        """Sends a small reply without waiting for anything."""
        self._transport.sendto(reply, cast("Any", peer))


def descriptors_stuck() -> DescriptorsStuck:
    """The event of nothing being read until descriptors are closed."""
    users = tuple(f"{uid}: {count}" for uid, count in CLOSER.by_user()[:_NAMED])
    return DescriptorsStuck(CLOSER.waiting, users)


# Up to Python 3.11.2 at least, which Debian 12 has, a datagram transport cannot be paused; there is
# done what later ones do.


def _stop_reading(transport: Any) -> None:
    try:
        transport.pause_reading()
    except NotImplementedError:
        asyncio.get_running_loop()._remove_reader(transport._sock_fd)  # type: ignore[attr-defined]


def _begin_reading(transport: Any) -> None:
    try:
        transport.resume_reading()
    except NotImplementedError:
        loop = asyncio.get_running_loop()
        loop._add_reader(transport._sock_fd, transport._read_ready)  # type: ignore[attr-defined]
