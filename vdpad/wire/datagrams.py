"""Unix datagrams with descriptors and credentials, under asyncio-dgram's streams.

asyncio-dgram moves bytes and addresses, and drops the rest. So its sockets here are of a subclass
whose `recvfrom` returns, in the address's place, a Peer: who sent it, by the kernel's word, and the
descriptors that rode along. `sendto` unwraps it again, and never raises for what a peer does: one
without an address, gone, or not reading loses its reply, which is told, and nobody else's trouble.

The limits on what comes in stand here, each with the attack that it stops.
"""

import array
import errno
import fcntl
import socket
import struct
import termios
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vdpad.errors import why
from vdpad.wire.descriptors import CLOSER, RIGHTS_SIZE, received
from vdpad.wire.strict_json import Most

# docs/api.md: "At most 200 KiB". Stops memory and parsing time from being the sender's choice.
MAX_DATAGRAM = 200 * 1024

# A state in a datagram has at most 100000 values, and coalescing for 5500 queues, which are 17000
# names. Stops requests, those over a connection too, which may be longer, from keeping whoever
# reads them: what that costs goes by these, and not by bytes.
MOST_IN_REQUEST = Most(values=MAX_DATAGRAM // 2, containers=1 << 14, names=MAX_DATAGRAM // 8)

# A lent target has 3. Stops a sender from filling our descriptor table: of a datagram with more
# none is kept. There is room to receive all (descriptors.py says why).
MAX_DESCRIPTORS = 3

# Replies that a client does not read are charged to the daemon's one socket, from which all others
# are answered too. So its buffer is made large (past the host's limit where the daemon may; a
# systemd socket unit can do it with SendBuffer=), and large replies may fill only half of it.
_SEND_BUFFER = 64 * 1024 * 1024
_SMALL_REPLY = 8 * 1024
_SO_SNDBUFFORCE = 32


_UCRED = struct.Struct("iII")
_CONTROL_SIZE = socket.CMSG_SPACE(_UCRED.size) + RIGHTS_SIZE


@dataclass(slots=True)
class Peer:
    """Where a datagram came from, and what rode on it. The descriptors are ours to close."""

    address: str | bytes | tuple[Any, ...] | None
    """None for a sender that is bound to none and so cannot be answered."""
    pid: int = -1
    uid: int = -1
    gid: int = -1
    fds: list[int] = field(default_factory=list)
    too_many_fds: bool = False
    """More descriptors came than MAX_DESCRIPTORS, or than could be opened here; none was kept."""
    too_long: bool = False
    """The datagram was longer than MAX_DATAGRAM; its end is lost."""
    sealed: bool = False
    """It came from another host, and a key vouches for it instead of the kernel: no uid, no pid."""
    limit: int = MAX_DATAGRAM
    """The longest request and reply that its way takes, in bytes."""

    def named(self) -> str:
        """Its address as people write it; "" for none."""
        match self.address:
            case bytes(name):
                return f"@{name[1:].decode(errors='replace')}"
            case (host, port, *_):
                return f"{host} port {port}"
        return str(self.address or "")

    def take_fds(self) -> list[int]:
        """The descriptors, which are the caller's from now on."""
        fds, self.fds = self.fds, []
        return fds

    def close_fds(self) -> None:
        """Has the descriptors closed that nobody has taken."""
        CLOSER.close(self.uid, self.take_fds())


class Loss(StrEnum):
    """Why a reply could not be sent."""

    NO_ADDRESS = "no-address"
    """Whoever asked is bound to none."""
    GONE = "gone"
    """Nobody is at the address: the client has ended, or is where we cannot see its socket."""
    NOT_PERMITTED = "not-permitted"
    """The mode of the client's socket keeps us out."""
    NOT_READING = "not-reading"
    """The client's queue is full, or it has left so much unread that others would wait."""
    TOO_LARGE = "too-large"
    """The kernel takes no datagram of this size."""
    OTHER = "other"


_LOSSES: Mapping[int, Loss] = {
    errno.ECONNREFUSED: Loss.GONE,
    errno.ENOENT: Loss.GONE,
    errno.EACCES: Loss.NOT_PERMITTED,
    errno.EPERM: Loss.NOT_PERMITTED,
    errno.EAGAIN: Loss.NOT_READING,
    errno.EMSGSIZE: Loss.TOO_LARGE,
}

NoteLoss = Callable[[Loss, Peer, str], None]
"""Is told why, of whom, and in the system's words."""


def loss_of(error: OSError) -> Loss:
    """The reason by what the system said."""
    return _LOSSES.get(error.errno or 0, Loss.OTHER)


def untold(loss: Loss, peer: Peer, words: str) -> None:
    """For those whom it does not concern."""


class AncillarySocket(socket.socket):
    """A Unix datagram socket for asyncio_dgram.from_socket and its like."""

    def __init__(self, fileno: int | None = None) -> None:
        """A new non-blocking socket, or one that was inherited, whose buffer is its unit's."""
        super().__init__(socket.AF_UNIX, socket.SOCK_DGRAM, 0, fileno)
        self.setblocking(False)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        if fileno is None:
            self._widen_send_buffer()
        self._send_buffer = self.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self.lost: NoteLoss = untold
        """Told of each reply that could not be sent."""

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        """One datagram and its Peer, whatever size is asked for."""
        data, control, got, address = self.recvmsg(
            MAX_DATAGRAM, _CONTROL_SIZE, flags | socket.MSG_CMSG_CLOEXEC
        )
        peer = Peer(address or None, fds=received(control))
        if address and address == self.getsockname():
            # What we sent ourselves, to a sender whose address leads back here. An answer would go
            # round for good.
            peer.close_fds()
            raise BlockingIOError
        for level, kind, payload in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                peer.pid, peer.uid, peer.gid = _UCRED.unpack(payload[: _UCRED.size])
        # Truncated where this process has no room for more of them.
        if got & socket.MSG_CTRUNC or len(peer.fds) > MAX_DESCRIPTORS:
            peer.too_many_fds = True
            peer.close_fds()
        peer.too_long = bool(got & socket.MSG_TRUNC)
        return data, peer

    def sendto(self, data: Any, address: Any) -> int:  # type: ignore[override]
        """Sends a reply to a Peer, or drops it and tells."""
        if address.address is None:
            self.lost(Loss.NO_ADDRESS, address, "it is bound to no address")
        elif isinstance(address.address, str) and not address.address.startswith("/"):
            # It would lead wherever it leads from our own directory.
            self.lost(Loss.NO_ADDRESS, address, "it is bound to a relative path")
        elif self.must_give_way(len(data)):
            self.lost(Loss.NOT_READING, address, "too much is unread by it or by others")
        else:
            try:
                return super().sendto(data, address.address)
            except OSError as error:
                # Its own affair, and `status` tells it later.
                self.lost(loss_of(error), address, why(error))
        return len(data)

    def _widen_send_buffer(self) -> None:
        try:
            self.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
        except PermissionError:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    def must_give_way(self, size: int) -> bool:
        """Whether a large reply would take what is kept for small ones.

        Where nothing is unread it may go whatever the buffer is: there a small buffer takes it too.
        """
        if size <= _SMALL_REPLY:
            return False
        unread = array.array("i", [0])
        fcntl.ioctl(self, termios.TIOCOUTQ, unread)
        return unread[0] > 0 and unread[0] + 2 * size > self._send_buffer // 2
