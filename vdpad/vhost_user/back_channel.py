"""The back end's own channel: what we ask of the front end, on a socket that it sent us.

How it works. There is one thing to say: the config space is not what it was. It is said by a task
of its own, so that no message of the front end waits for it: a front end that is told reads the
config space first and answers then. What changes while an answer is due is told once, afterwards,
so a front end that never answers is told no more and nothing piles up.

Source: QEMU's docs/interop/vhost-user.rst, "Back-end communication".
"""

import asyncio
import contextlib
import socket

from vdpad.vhost_user import messages
from vdpad.vhost_user.channel import Channel
from vdpad.vhost_user.faults import BadConnection, VhostUserError
from vdpad.vhost_user.messages import BackEndRequest, Header
from vdpad.wire.descriptors import CLOSER


class BackChannel:
    """Tells the front end that the config space has changed."""

    def __init__(self, fd: int, uid: int, *, reply_ack: bool) -> None:
        """Takes over a descriptor, also where it raises.

        Args:
            fd: what SET_BACKEND_REQ_FD brought.
            uid: of whoever sent it.
            reply_ack: REPLY_ACK was acknowledged, so that answers can be asked for.

        Raises:
            BadConnection: it is no connected stream socket of AF_UNIX.
        """
        self._channel = Channel(_socket(fd, uid))
        self._reply_ack = reply_ack
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._tell())

    def config_changed(self) -> None:
        """Has the front end told, once it has answered what it was told before."""
        self._changed.set()

    def take_back(self) -> bool:
        """Has it not told what it was not told yet; whether there was anything."""
        due = self._changed.is_set()
        self._changed.clear()
        return due

    async def close(self) -> None:
        """Ends it; what was not told yet never will be. Once it returns nothing is sent.

        On cancellation too it is ended.
        """
        self._task.cancel()
        try:
            await asyncio.wait([self._task])
        finally:
            self._channel.close()

    async def _tell(self) -> None:
        flags = messages.VERSION | (messages.NEED_REPLY if self._reply_ack else 0)
        # Whoever breaks this channel is told nothing more; its own channel says what becomes of it.
        with contextlib.suppress(VhostUserError):
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._channel.send(Header(BackEndRequest.CONFIG_CHANGE_MSG, flags, 0), b"")
                if self._reply_ack:
                    await self._channel.receive_reply()


def _socket(fd: int, uid: int) -> socket.socket:
    try:
        return socket.socket(fileno=fd)
    except OSError as error:
        CLOSER.close(uid, [fd])
        raise BadConnection(f"expected a socket for our requests, got {error.strerror}") from error
