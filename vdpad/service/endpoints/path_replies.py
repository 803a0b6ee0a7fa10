"""Replies to sockets that lie at paths, which may sleep: each user's on his own thread.

So many of a user's may wait for it; what is more is lost. Nobody waits for a thread that does not
come back, but what it holds stays taken until it does.
"""

import asyncio
from functools import partial

from vdpad.errors import why
from vdpad.service.users.shares import Shares
from vdpad.wire.datagrams import AncillarySocket, Loss, NoteLoss, Peer, loss_of
from vdpad.wire.descriptors import call_soon
from vdpad.wire.reply_address import NotItsOwn, found
from vdpad.wire.user_threads import NoThread, UserThreads

# Replies of one user that wait for his thread. Each may have 200 KiB.
_MAX_WAITING = 16

_Failure = tuple[Loss, str] | None


class PathReplies:
    """Sends them from one socket. Methods are the loop's."""

    def __init__(self, endpoint: AncillarySocket, lost: NoteLoss) -> None:
        """
        Args:
            endpoint: that they are sent from.
            lost: told of each that could not be sent.
        """
        self._socket = endpoint
        self._lost = lost
        self._waiting = Shares(_MAX_WAITING)
        self._threads = UserThreads("reply")

    def send(self, reply: bytes, peer: Peer, path: str) -> "asyncio.Future[None]":
        """Has a reply sent to the socket at an absolute path, if it is the peer's user's.

        Returns:
            What ends when it was sent, or lost. Once that is cancelled nobody is told of a loss.
        """
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        if not self._waiting.take(peer.user):
            self._lost(Loss.NOT_READING, peer, f"{_MAX_WAITING} others of its user wait")
            over.set_result(None)
            return over

        def settle(failure: _Failure) -> None:
            self._waiting.give_back(peer.user)
            if over.done():
                return
            if failure is not None:
                loss, words = failure
                self._lost(loss, peer, words)
            over.set_result(None)

        def work() -> None:
            failure = self._failure_to_send(reply, path, peer.uid)
            call_soon(loop, partial(settle, failure))

        try:
            self._threads.do(peer.user, work)
        except NoThread as error:
            settle((Loss.STUCK, str(error)))
        return over

    def _failure_to_send(self, reply: bytes, path: str, uid: int) -> _Failure:
        """Sends it, on a thread; what went wrong, if anything did."""
        try:
            with found(path, uid) as name:
                self._socket.send_to(reply, name)
        except NotItsOwn as error:
            return Loss.NOT_ITS_OWN, str(error)
        except OSError as error:
            return loss_of(error), why(error)
        return None
