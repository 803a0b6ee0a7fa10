"""A request, whichever way it came, and what the ways know of who answers it.

    datagram ──▶ JsonRpc (jsonrpc.py)          ──┐
                                                 ├─Request──▶ Served ──▶ result, or Refusal
    stream   ──▶ Conversation (varlink/)       ──┘

Neither way knows the other, nor what is asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vdpad.service.refusal import Kind, Refusal
from vdpad.wire.datagrams import Peer


def _nothing() -> None:
    """What is to be done once parameters were read, where nobody waits for it."""


@dataclass(slots=True)
class Request:
    """What is asked for, and by whom."""

    method: str
    """By the name in docs/api.md."""
    params: Mapping[str, Any]
    """As plain JSON values; nothing of them has been checked."""
    document: bytes | None
    """The JSON object that has them as `params`; None where it has none."""
    peer: Peer
    """Who asks, and the descriptors that came with it."""
    began_ns: int
    """perf_counter_ns when it came."""
    was_read: Callable[[], None] = _nothing
    """To be called when the parameters are typed: what they took while they were not is free."""

    def take_document(self) -> bytes | None:
        """The JSON, which is not kept: a request may be under way for long, and be large."""
        document, self.document = self.document, None
        self.params = {}
        return document


class Served(Protocol):
    """What does what it is asked for."""

    async def call(self, request: Request) -> Any:
        """The result, as plain JSON values.

        Cancellation leaves running what was begun and must not be cut short.

        Raises:
            Refusal: whatever went wrong; those whom it concerns beside the caller were told.
        """

    def refused(self, refusal: Refusal, method: object = None) -> None:
        """Counts what was refused before it was a request.

        Args:
            refusal: as the caller is told it.
            method: what was given as the method's name, where anything was.
        """


def reply_too_long(size: int, peer: Peer) -> Refusal:
    """What is said instead of a reply that its way does not take.

    Not overloaded, as trying later would not help; what was asked for has been done.
    """
    elsewhere = ", or over the Unix socket" if peer.sealed else ""
    return Refusal(
        Kind.INTERNAL,
        f"the request was carried out, but its reply has {size} bytes, and {peer.limit} can be "
        f"sent; ask for less{elsewhere}",
    )
