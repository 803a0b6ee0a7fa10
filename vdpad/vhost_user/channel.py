"""A connection of vhost-user: whole messages in and out of a stream socket.

How it works. A message is read in two parts: the header, whose size is checked before a byte of the
payload is taken, and the payload, whose size and descriptors are checked before anybody looks at
it. Descriptors ride on the first byte of a message and nowhere else, so there are never more than
one sendmsg(2) carries. They come with room for all, since the kernel closes those that find none
within our recvmsg(2). Each is either taken by who keeps it, or closed on a thread.

The front end chooses when its bytes come and whether it reads ours. So every call is made with
MSG_DONTWAIT, whatever the flags of the descriptor, which an inherited one shares with whoever made
it; and each message gives the event loop a turn, however many stand in the socket.
"""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass

from vdpad.vhost_user import messages, payloads
from vdpad.vhost_user.faults import BadConnection, BadMessage, FrontEndGone
from vdpad.vhost_user.messages import Header
from vdpad.vhost_user.shapes import check_header, check_message
from vdpad.wire.descriptors import CLOSER, RIGHTS_SIZE, received
from vdpad.wire.readiness import has_hung_up, hung_up, readable, writable

_UCRED = struct.Struct("=iII")

# Who sent a descriptor that is no connection cannot be asked.
_NOBODY = -1


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """Who is at the other end, by the kernel's word."""

    pid: int
    uid: int


class Attached:
    """The descriptors of one message. What nobody takes is closed."""

    def __init__(self, uid: int, fds: list[int]) -> None:
        self._uid = uid
        self._fds = fds

    def __len__(self) -> int:
        return len(self._fds)

    def add(self, fds: list[int]) -> None:
        """Takes over more."""
        self._fds += fds

    @property
    def fds(self) -> tuple[int, ...]:
        """Those that are left. They stay with the message."""
        return tuple(self._fds)

    @property
    def first(self) -> int | None:
        """The first of those that are left, if any. It stays with the message."""
        return self._fds[0] if self._fds else None

    def take(self) -> int:
        """The first of those that are left. It is the caller's to close."""
        return self._fds.pop(0)

    def take_if_any(self) -> int | None:
        """The same, or None where none is left."""
        return self.take() if self._fds else None

    def close(self) -> None:
        """Has all that are left closed, some time after this."""
        fds, self._fds = self._fds, []
        CLOSER.close(self._uid, fds)


@dataclass(frozen=True, slots=True)
class FrontEndMessage:
    """A message whose form was checked."""

    request: int
    """A FrontEndRequest where it is a known one."""
    needs_reply: bool
    """NEED_REPLY is set."""
    payload: bytes
    attached: Attached
    """The receiver's to take or close."""


class Channel:
    """One end of a connection. Not for two readers or two writers at once."""

    def __init__(self, connection: socket.socket) -> None:
        """Takes over a connection, also where it raises.

        Raises:
            BadConnection: it is no connected stream socket of AF_UNIX.
        """
        self._socket = connection
        try:
            self.front_end = _front_end(connection)
            """Who is there."""
        except BaseException:
            # Of what kind it is only its sender knows, and what its closing does.
            CLOSER.close(_NOBODY, [connection.detach()])
            raise

    def close(self) -> None:
        """Ends the connection: at once for the other side, some time after for us."""
        hang_up(self._socket, self.front_end.uid)

    async def gone(self) -> None:
        """Returns once the other side has closed its end, whatever of it was not read yet."""
        await hung_up(self._socket)

    @property
    def has_gone(self) -> bool:
        """Whether the other side has closed its end, whatever of it was not read yet."""
        return has_hung_up(self._socket)

    async def receive(self) -> FrontEndMessage | None:
        """The next message; None where the other side ended the connection between two.

        On cancellation what was read of a message is lost, and with it the connection's use.

        Raises:
            BadMessage: what comes is none.
        """
        # A socket that always has another message would keep the loop from everybody else.
        await asyncio.sleep(0)
        attached = Attached(self.front_end.uid, [])
        try:
            return await self._message(attached)
        except BaseException:
            attached.close()
            raise

    async def send(self, header: Header, payload: bytes) -> None:
        """Sends a message. On cancellation part of it may be sent.

        Raises:
            FrontEndGone: nobody reads it any more.
        """
        data = memoryview(messages.push_header(header) + payload)
        while data:
            try:
                sent = self._socket.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                await writable(self._socket)
            except OSError as error:
                raise FrontEndGone(f"the front end is gone: {error.strerror}") from error
            else:
                data = data[sent:]

    async def receive_reply(self) -> tuple[Header, bytes]:
        """The next message of who was asked something.

        Raises:
            BadMessage: it is not what a number in reply looks like, or the connection ended.
        """
        attached = Attached(self.front_end.uid, [])
        try:
            header = messages.pull_header(await self._exactly(messages.HEADER_SIZE, attached))
            if header.size != payloads.U64_SIZE or not header.flags & messages.REPLY:
                raise BadMessage(f"expected a reply of {payloads.U64_SIZE} bytes, got {header}")
            return header, await self._exactly(header.size, None)
        finally:
            attached.close()

    # --- reading ---

    async def _message(self, attached: Attached) -> FrontEndMessage | None:
        first = await self._some(1, attached)
        if not first:
            return None
        rest = await self._exactly(messages.HEADER_SIZE - len(first), None)
        header = messages.pull_header(first + rest)
        check_header(header)
        payload = await self._exactly(header.size, None)
        check_message(header.request, payload, len(attached))
        needs_reply = bool(header.flags & messages.NEED_REPLY)
        return FrontEndMessage(header.request, needs_reply, payload, attached)

    async def _exactly(self, size: int, attached: Attached | None) -> bytes:
        """So many bytes; `attached` takes the descriptors on the first of them."""
        data = b""
        while len(data) < size:
            some = await self._some(size - len(data), None if data else attached)
            if not some:
                raise BadMessage(
                    f"expected {size} more bytes of a message, got the connection's end after "
                    f"{len(data)}"
                )
            data += some
        return data

    async def _some(self, size: int, attached: Attached | None) -> bytes:
        """At most so many bytes, at least one; none at the connection's end."""
        while True:
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    size, RIGHTS_SIZE, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                await readable(self._socket)
                continue
            except ConnectionError:
                # Also where it went without having read all that we sent.
                return b""
            self._keep(received(ancillary), attached, flags)
            return data

    def _keep(self, fds: list[int], attached: Attached | None, flags: int) -> None:
        if attached is not None:
            attached.add(fds)
        else:
            CLOSER.close(self.front_end.uid, fds)
            if fds:
                raise BadMessage(
                    "expected descriptors on a message's first byte, got some behind it"
                )
        if flags & socket.MSG_CTRUNC:
            raise BadMessage(
                "expected room for a message's descriptors, got more than this process may have "
                "open (RLIMIT_NOFILE)"
            )
        if fds and CLOSER.are_too_many_of(self.front_end.uid):
            raise BadMessage(
                "expected descriptors that can be closed, got too many whose closing sleeps"
            )


def hang_up(connection: socket.socket, uid: int) -> None:
    """Ends a connection: at once for the other side, some time after for us.

    Descriptors that it sent and nobody received are closed with it, on the thread as all are.
    """
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    CLOSER.close(uid, [connection.detach()])


def _front_end(connection: socket.socket) -> FrontEnd:
    # Both are asked of the socket itself, which does not sleep.
    kind = (connection.family, connection.type)
    if kind != (socket.AF_UNIX, socket.SOCK_STREAM):
        raise BadConnection(f"expected a stream socket of AF_UNIX, got {kind[0]!r}, {kind[1]!r}")
    try:
        connection.getpeername()
        return who_connected(connection)
    except OSError as error:
        raise BadConnection(f"expected a connected socket, got {error.strerror}") from error


def who_connected(connection: socket.socket) -> FrontEnd:
    """Who is at the other end of a stream socket of AF_UNIX.

    Raises:
        OSError: the system does not tell.
    """
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(found)
    return FrontEnd(pid, uid)
