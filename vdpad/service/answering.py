"""Answering: what every API does around the method that was asked for.

A request is told of and counted as it ended, whatever raised. Where the system gives no more of
what it takes (descriptors, memory, threads) that is said. Any other exception that is no refusal is
our own fault: it is answered as internal, with its traceback in the journal and nothing of it in
the reply.
"""

import errno
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from vdpad.errors import why
from vdpad.service.events.announcing import Announce
from vdpad.service.events.event import CALLER, Event
from vdpad.service.events.kinds import InternalError
from vdpad.service.refusal import Kind, Refusal
from vdpad.service.request import Request
from vdpad.wire.datagrams import Peer
from vdpad.wire.user_threads import NoThread

RefusalOf = Callable[[BaseException], Refusal | None]
"""The refusal that an error means to a caller; None for what is a fault of ours."""


class SenderNotAllowed(Refusal):
    """Whoever sent the request may not have it done."""

    def __init__(self, message: str) -> None:
        super().__init__(Kind.NOT_ALLOWED, message)


def refuse_unknown_uid(allowed: Collection[int] | None, peer: Peer, by: str) -> None:
    """Returns where a sender is one of those who may speak at all.

    Args:
        allowed: uids; None for all.
        peer: by the kernel's word; between hosts there are no uids, whoever has a key may speak.
        by: what says who may, for people: an option or a setting.

    Raises:
        SenderNotAllowed: he is not.
    """
    if allowed is not None and not peer.sealed and peer.uid not in allowed:
        raise SenderNotAllowed(f"uid {peer.uid} may not speak here ({by})")


class Answering:
    """Counts requests, and makes refusals of what they raise."""

    def __init__(self, methods: Collection[str], refusal_of: RefusalOf, announce: Announce) -> None:
        """
        Args:
            methods: those there are.
            refusal_of: says what lower rooms' errors mean to a caller.
            announce: told of faults of ours, and of what `refusing` is given.
        """
        self._methods = frozenset(methods)
        self._refusal_of = refusal_of
        self._announce = announce
        self.counts: Counter[tuple[str, str]] = Counter()
        """Requests by method and how they were answered: "ok", or the error's kind."""

    @contextmanager
    def refusing(
        self, request: Request, event_of: Callable[[Refusal], Event | None]
    ) -> Iterator[None]:
        """What is raised in the context is counted and told, and becomes a Refusal.

        Args:
            request: what is told meanwhile is told as of its sender.
            event_of: the event for a refusal, if there is to be one.

        Raises:
            Refusal: of whatever Exception is raised within.
        """
        method, peer = request.method, request.peer
        CALLER.set(peer.uid if peer.uid >= 0 else None)
        try:
            yield
        except Exception as error:
            raise self._refusal(error, method, peer, event_of) from None

    def done(self, method: str) -> None:
        """Counts a request that was answered with its result."""
        self._count(method, "ok")

    def refused(self, refusal: Refusal, method: object = None) -> None:
        """Counts what was refused before it was a request."""
        self._count(method, refusal.kind.value)

    def _refusal(
        self,
        error: Exception,
        method: str,
        peer: Peer,
        event_of: Callable[[Refusal], Event | None],
    ) -> Refusal:
        refusal = self._refusal_of(error) or _of_what_ran_out(error)
        if refusal is None:
            self._announce(InternalError(peer.pid, error))
            refusal = Refusal(Kind.INTERNAL, "the daemon failed; its journal says how")
        elif (event := event_of(refusal)) is not None:
            self._announce(event)
        self.refused(refusal, method)
        return refusal

    def _count(self, method: object, result: str) -> None:
        known = isinstance(method, str) and method in self._methods
        self.counts[str(method) if known else "unknown", result] += 1


# Of what a process or the host may have no more.
_RAN_OUT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))


def _of_what_ran_out(error: Exception) -> Refusal | None:
    """The refusal where the system has given no more; None for any other error."""
    if isinstance(error, NoThread):
        return Refusal(Kind.OVERLOADED, str(error))
    if isinstance(error, MemoryError) or getattr(error, "errno", None) in _RAN_OUT:
        said = "no memory" if isinstance(error, MemoryError) else why(error)
        return Refusal(
            Kind.OVERLOADED,
            f"expected the system to give what this takes, got {said}; raise the limit that this "
            "names (LimitNOFILE= of a unit for files), or try later",
        )
    return None
