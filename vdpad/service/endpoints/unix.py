"""The Unix datagram socket: bound or inherited, and replies that wait for room in its buffer."""

import asyncio
import contextlib
import socket
from pathlib import Path

from vdpad.service.endpoints.binding import bind, check_inherited, inode_of
from vdpad.service.endpoints.endpoint import Answer, Endpoint
from vdpad.service.events.announcing import Announce, log_event
from vdpad.wire.datagrams import MAX_DATAGRAM, AncillarySocket, Peer

# How many more are answered at the end. Stops senders that go on from putting it off.
_MOST_OF_THE_REST = 1024


# How long a large reply waits for room in the send buffer, in seconds, how often it looks, and how
# many may wait: each is up to 200 KiB. Room is what readers make, however slow.
_REPLY_WAITS = 2.0


_REPLY_LOOKS = 0.005


_WAITING_REPLIES = 32


class UnixEndpoint(Endpoint):
    """The Unix datagram socket."""

    def __init__(self, answer: Answer, overloaded: bytes, announce: Announce = log_event) -> None:
        super().__init__(answer, overloaded, announce)
        self._waiting_replies = 0
        self._socket: AncillarySocket | None = None
        self._path: Path | None = None
        self._inode: int | None = None

    async def listen(self, path: Path, mode: int, group: str | None) -> None:
        """Binds the socket and begins to answer.

        Raises:
            CannotListen: another daemon answers there, or the path, mode or group can't be had.
        """
        self._socket = AncillarySocket()
        bind(self._socket, path, mode, group)
        self._socket.lost = self._note_lost
        await self._serve(self._socket)
        self._path, self._inode = path, inode_of(path)

    async def take_over(self, fd: int) -> Path:
        """Begins to answer on a socket that was bound before; its file is not ours to remove.

        Returns:
            where it is bound.

        Raises:
            CannotListen: it is no Unix datagram socket with a path.
        """
        check_inherited(fd, socket.SOCK_DGRAM)
        self._socket = AncillarySocket(fd)
        self._socket.lost = self._note_lost
        await self._serve(self._socket)
        return Path(self._socket.getsockname())

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
        self._socket.shutdown(socket.SHUT_RD)
        with contextlib.suppress(OSError):
            for _ in range(_MOST_OF_THE_REST):
                self._answer_or_refuse(*self._socket.recvfrom(MAX_DATAGRAM))

    async def _send(self, reply: bytes, peer: Peer) -> None:
        await self._wait_for_room(len(reply))
        await super()._send(reply, peer)

    async def _wait_for_room(self, size: int) -> None:
        """Returns when a reply of this size may go, or has waited long enough."""
        assert self._socket is not None
        if self._waiting_replies >= _WAITING_REPLIES:
            return
        self._waiting_replies += 1
        try:
            async with asyncio.timeout(_REPLY_WAITS):
                while self._socket.must_give_way(size):  # noqa: ASYNC110
                    await asyncio.sleep(_REPLY_LOOKS)
        except TimeoutError:
            pass
        finally:
            self._waiting_replies -= 1
