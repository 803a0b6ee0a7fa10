"""Unix datagrams with descriptors and credentials, under asyncio-dgram's streams.

asyncio-dgram moves bytes and addresses, and drops the rest. So its sockets here are of a subclass
whose `recvfrom` returns, in the address's place, a Peer: who sent it, by the kernel's word, and the
descriptors that rode along. `sendto` unwraps it again, and never raises for what a peer does: one
that is gone or does not read loses its reply, which is told, and nobody else's trouble.

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

from vdpad.errors import VdpadError, why
from vdpad.wire.descriptors import CLOSER, RIGHTS_SIZE, received
from vdpad.wire.reply_address import is_autobound
from vdpad.wire.strict_json import Most

# docs/api.md: "At most 200 KiB". Stops memory and parsing time from being the sender's choice.
MAX_DATAGRAM = 200 * 1024

# A state in a datagram has at most 100000 values, and coalescing for 5500 queues, which are 17000
# names. Stops requests, those over a connection too, which may be longer, from keeping whoever
# reads them: what that costs goes by these, and not by bytes.
MAX_IN_REQUEST = Most(values=MAX_DATAGRAM // 2, containers=1 << 14, names=MAX_DATAGRAM // 8)

# A lent target has 3. Stops a sender from filling our descriptor table: of a datagram with more
# none is kept. There is room to receive all (descriptors.py says why).
MAX_DESCRIPTORS = 3

# Replies that a client does not read are charged to the daemon's one socket, from which all others
# are answered too. So its buffer is made large (past the host's limit where the daemon may; a
# systemd socket unit can do it with SendBuffer=), and service/endpoints/unread.py shares it out.
_SEND_BUFFER = 64 * 1024 * 1024
_SO_SNDBUFFORCE = 32

ANOTHER_HOST = -1
"""Stands for all who have a key, where users are told apart by their uids."""

# Plain numbers: those of the module are members of an enum, with which `|` and `&` take as long as
# the system call.
_CLOEXEC, _CTRUNC = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_CTRUNC)
_TRUNC = int(socket.MSG_TRUNC)

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

    @property
    def user(self) -> int:
        """Whose its requests are: a uid, or ANOTHER_HOST."""
        return ANOTHER_HOST if self.sealed else self.uid

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
    """The client's queue is full, or its user has left so much unread that others would wait."""
    NOT_ITS_OWN = "not-its-own"
    """What the address leads to may be somebody else's."""
    STUCK = "stuck"
    """The file system that its path is on does not answer."""
    REFLECTED = "reflected"
    """A reply came, or something of our own, where requests are expected."""
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


class NoRequest(VdpadError):
    """A datagram that nobody may be answered to, lest two daemons talk to each other for good."""


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
        self._charged = array.array("i", [0])
        self.lost: NoteLoss = untold
        """Told of each reply that could not be sent."""

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        """One datagram and its Peer, whatever size is asked for."""
        data, control, got, address = self.recvmsg(MAX_DATAGRAM, _CONTROL_SIZE, flags | _CLOEXEC)
        peer = Peer(address or None, fds=received(control))
        for level, kind, payload in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                peer.pid, peer.uid, peer.gid = _UCRED.unpack(payload[: _UCRED.size])
        # Truncated where this process has no room for more of them.
        if got & _CTRUNC or len(peer.fds) > MAX_DESCRIPTORS:
            peer.too_many_fds = True
            peer.close_fds()
        peer.too_long = bool(got & _TRUNC)
        return data, peer

    def sendto(self, data: Any, address: Any) -> int:  # type: ignore[override]
        """Sends a reply to a Peer whose name is of the kernel's choice, or drops it and tells."""
        assert is_autobound(address.address)
        try:
            self.send_to(data, address.address)
        except OSError as error:
            # Its own affair, and `status` tells it later.
            self.lost(loss_of(error), address, why(error))
        return len(data)

    def send_to(self, data: bytes, name: str | bytes) -> None:
        """Sends a datagram to a socket by its name. Of a path it may sleep.

        Raises:
            OSError: it cannot be sent, or not now.
        """
        super().sendto(data, name)

    @property
    def send_buffer(self) -> int:
        """How much may be unread of what it sends, in bytes as the kernel charges them."""
        return self.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)

    def unread(self) -> int:
        """How much of `send_buffer` is unread."""
        fcntl.ioctl(self.fileno(), termios.TIOCOUTQ, self._charged)
        return self._charged[0]

    def _widen_send_buffer(self) -> None:
        try:
            self.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
        except PermissionError:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
