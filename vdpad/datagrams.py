"""Unix datagrams with descriptors and credentials, under asyncio-dgram's streams.

asyncio-dgram moves bytes and addresses, and drops the rest. So its sockets here are of a subclass
whose `recvfrom` returns, in the address's place, a Peer: who sent it, by the kernel's word, and the
descriptors that rode along. `sendto` unwraps it again, and never raises for what a peer does: one
without an address, gone, or not reading is a counted drop, and nobody else's trouble.

The limits on what comes in stand here, each with the attack that it stops.
"""

import array
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# docs/api.md: "At most 200 KiB". Stops memory and parsing time from being the sender's choice.
MAX_DATAGRAM = 200 * 1024

# A lent target has 3. Stops a sender from filling our descriptor table with one datagram; the
# kernel closes what does not fit the buffer, and says so with MSG_CTRUNC.
MAX_DESCRIPTORS = 3

_INT = array.array("i").itemsize
_UCRED = struct.Struct("iII")
_CONTROL_SIZE = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT)


@dataclass(slots=True)
class Peer:
    """Where a datagram came from, and what rode on it. The descriptors are ours to close."""

    address: str | bytes | None
    """None for a sender that is bound to none and so cannot be answered."""
    pid: int = -1
    uid: int = -1
    gid: int = -1
    fds: list[int] = field(default_factory=list)
    too_many_fds: bool = False
    """More descriptors came than MAX_DESCRIPTORS; which of them arrived means nothing."""
    too_long: bool = False
    """The datagram was longer than MAX_DATAGRAM; its end is lost."""

    def take_fds(self) -> list[int]:
        """The descriptors, which are the caller's from now on."""
        fds, self.fds = self.fds, []
        return fds

    def close_fds(self) -> None:
        """Closes the descriptors that nobody has taken."""
        for fd in self.take_fds():
            os.close(fd)


class AncillarySocket(socket.socket):
    """A Unix datagram socket for asyncio_dgram.from_socket and its like."""

    def __init__(self, fileno: int | None = None) -> None:
        """A new non-blocking socket, or one that was inherited."""
        super().__init__(socket.AF_UNIX, socket.SOCK_DGRAM, 0, fileno)
        self.setblocking(False)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.replies_dropped = 0

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        """One datagram and its Peer, whatever size is asked for."""
        data, control, got, address = self.recvmsg(
            MAX_DATAGRAM, _CONTROL_SIZE, flags | socket.MSG_CMSG_CLOEXEC
        )
        peer = Peer(address or None)
        for level, kind, payload in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                peer.fds.extend(_descriptors(payload))
            elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                peer.pid, peer.uid, peer.gid = _UCRED.unpack(payload[: _UCRED.size])
        peer.too_many_fds = bool(got & socket.MSG_CTRUNC)
        peer.too_long = bool(got & socket.MSG_TRUNC)
        return data, peer

    def sendto(self, data: Any, address: Any) -> int:  # type: ignore[override]
        """Sends a reply to a Peer, or drops and counts it."""
        if address.address is None:
            self.replies_dropped += 1
            return len(data)
        try:
            return super().sendto(data, address.address)
        except OSError:
            # The peer is gone (ECONNREFUSED, ENOENT), does not read (EAGAIN), or can't take so
            # much (EMSGSIZE): its own affair, and `status` tells it later.
            self.replies_dropped += 1
            return len(data)


def _descriptors(payload: bytes) -> Iterator[int]:
    fds = array.array("i")
    fds.frombytes(payload[: len(payload) - len(payload) % _INT])
    return iter(fds)
