"""The Unix datagram socket: bound or inherited, and where its replies go and when.

A reply goes to a name that the kernel chose at once, to a path by a thread (path_replies.py), and
nowhere else (wire/reply_address.py says why). Where much is unread it waits for its turn and for
room among what its user may leave unread (unread.py).

A client whose queue was full a while ago is refused first, which is little work and as small a
reply as there is. If that gets through it has read, and is answered again; so one that asks and
asks without reading has no work done for it, behind which others of its user would wait.

Datagrams wait in the kernel in the order in which they came, whoever sent them. So many are read
at a time, that they may wait here, where users have their turns.
"""

import asyncio
import contextlib
import socket
from collections.abc import Hashable
from functools import partial
from pathlib import Path

from vdpad.service.endpoints.binding import bind, check_inherited, inode_of
from vdpad.service.endpoints.deaf import Deaf
from vdpad.service.endpoints.endpoint import Answer, Endpoint
from vdpad.service.endpoints.path_replies import PathReplies
from vdpad.service.endpoints.unread import SMALL, Unread
from vdpad.service.events.announcing import Announce, log_event
from vdpad.service.users.shares import Shares
from vdpad.service.users.turns import Turns
from vdpad.wire.datagrams import MAX_DATAGRAM, AncillarySocket, Loss, Peer
from vdpad.wire.reply_address import NotItsOwn, is_autobound, path_of

# Datagrams read in one turn of the loop: fewer than may wait to become tasks (endpoint.py).
_READ_AT_ONCE = 32

# How many more are answered at the end. Stops senders that go on from putting it off.
_MAX_OF_THE_REST = 1024


# How long a reply waits for room among what is unread, or for its path, in seconds, how often it
# looks, and how many of one user's may wait: each is up to 200 KiB. Room is what readers make,
# however slow.
_REPLY_WAITS = 2.0
_REPLY_LOOKS = 0.005
_WAITING_REPLIES = 32


class UnixEndpoint(Endpoint):
    """The Unix datagram socket, which carries descriptors and tells who sends."""

    def __init__(
        self,
        answer: Answer,
        overloaded: bytes,
        announce: Announce = log_event,
        turns: Turns | None = None,
    ) -> None:
        super().__init__(answer, overloaded, announce, turns)
        self._waiting = Shares(_WAITING_REPLIES)
        self._full = Deaf()
        self._socket: AncillarySocket | None = None
        self._path: Path | None = None
        self._inode: int | None = None

    async def listen(self, path: Path, mode: int, group: str | None) -> None:
        """Binds the socket and begins to answer.

        Raises:
            CannotListen: another daemon answers there, or the path, mode or group can't be had.
        """
        endpoint = AncillarySocket()
        bind(endpoint, path, mode, group)
        await self._begin(endpoint)
        self._path, self._inode = path, inode_of(path)

    async def take_over(self, fd: int) -> Path:
        """Begins to answer on a socket that was bound before; its file is not ours to remove.

        Returns:
            where it is bound.

        Raises:
            CannotListen: it is no Unix datagram socket with a path.
        """
        check_inherited(fd, socket.SOCK_DGRAM)
        endpoint = AncillarySocket(fd)
        await self._begin(endpoint)
        return Path(endpoint.getsockname())

    async def _begin(self, endpoint: AncillarySocket) -> None:
        endpoint.lost = self._note_unsent
        self._socket = endpoint
        self._name = endpoint.getsockname()
        self._unread = Unread(endpoint.send_buffer, endpoint.unread)
        self._by_path = PathReplies(endpoint, self._note_unsent)
        await self._serve(endpoint)

    # --- what comes ---

    def _came(self, data: bytes, peer: Peer) -> None:
        self._take(data, peer)
        if not self._tasks:
            return  # nobody's turn is waited for
        assert self._socket is not None
        for _ in range(_READ_AT_ONCE - 1):
            if self._is_paused:
                return
            try:
                self._take(*self._socket.recvfrom(MAX_DATAGRAM))
            except OSError:
                return  # there is no more, or the loop learns of it next

    def _take(self, data: bytes, peer: Peer) -> None:
        if peer.address == self._name:
            # A daemon's before us on this socket, or whoever has made us talk to ourselves.
            peer.close_fds()
            self._note_lost(Loss.REFLECTED, peer, "it comes from this very socket")
        elif _client(peer) in self._full:
            self._full.discard(_client(peer))
            self._refuse(peer)
        else:
            super()._came(data, peer)

    async def _stop_reading(self) -> None:
        """Removes the socket, if it is ours, and answers what still stands in it."""
        await super()._stop_reading()
        if self._path is None:
            return
        if inode_of(self._path) == self._inode:
            self._path.unlink(missing_ok=True)
        self._read_the_rest()

    def _read_the_rest(self) -> None:
        """Takes what stands in the kernel's queue, which nobody will serve after us."""
        assert self._socket is not None
        # Who is connected could send on, and would never hear of it. So the kernel refuses it now.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
            for _ in range(_MAX_OF_THE_REST):
                self._answer_or_refuse(*self._socket.recvfrom(MAX_DATAGRAM))

    # --- what goes ---

    def _note_unsent(self, loss: Loss, peer: Peer, words: str) -> None:
        if loss is Loss.NOT_READING:
            self._full.add(_client(peer))
        self._note_lost(loss, peer, words)

    async def _send(self, reply: bytes, peer: Peer) -> None:
        if self._unread.is_calm(len(reply)):
            await self._sent_in_time(reply, peer)
        elif len(reply) <= SMALL and self._unread.send_small(
            peer.user, len(reply), partial(self._send_now, reply, peer)
        ):
            return
        elif self._waiting.take(peer.user):
            try:
                await self._send_when_there_is_room(reply, peer)
            finally:
                self._waiting.give_back(peer.user)
        else:
            self._note_lost(Loss.NOT_READING, peer, "replies of its user's wait, as many as may")

    def _send_soon(self, reply: bytes, peer: Peer) -> None:
        if self._unread.is_calm(len(reply)):
            self._send_now(reply, peer)
        else:
            self._note_lost(Loss.NOT_READING, peer, "too much is unread by it or by others")

    async def _send_when_there_is_room(self, reply: bytes, peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + _REPLY_WAITS
        send = partial(self._send_now, reply, peer)
        while not await self._unread.send(peer.user, _client(peer), len(reply), send):
            if loop.time() > ends:
                self._note_lost(Loss.NOT_READING, peer, "too much is unread by its user")
                return
            await asyncio.sleep(_REPLY_LOOKS)

    async def _sent_in_time(self, reply: bytes, peer: Peer) -> None:
        sent = self._send_now(reply, peer)
        if sent is not None:
            done, _ = await asyncio.wait([sent], timeout=_REPLY_WAITS)
            if not done:
                sent.cancel()
                self._note_lost(Loss.STUCK, peer, f"its path takes more than {_REPLY_WAITS:g} s")

    def _send_now(self, reply: bytes, peer: Peer) -> "asyncio.Future[None] | None":
        """Sends a reply, or has it sent by a thread; what is given then ends when it was."""
        assert self._socket is not None
        if is_autobound(peer.address):
            self._socket.sendto(reply, peer)
        elif peer.address is None:
            self._note_lost(Loss.NO_ADDRESS, peer, "it is bound to no address")
        else:
            try:
                return self._by_path.send(reply, peer, path_of(peer.address))
            except NotItsOwn as error:
                self._note_lost(Loss.NOT_ITS_OWN, peer, str(error))
        return None


def _client(peer: Peer) -> Hashable:
    """What tells it from others, though a name may be chosen again once nobody has it."""
    return peer.pid, peer.address
