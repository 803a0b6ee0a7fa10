"""JSON-RPC over datagrams: one request each, and its reply, for whatever is served.

What comes in is checked in this order, and the first thing that is wrong is answered: size, UTF-8
and JSON (no duplicate keys), the envelope; then what is served looks at it. Instead of a reply that
is longer than its way takes, one goes out that says so.
"""

import time
from typing import Any

from vdpad.service.envelope import (
    encode_refusal,
    encode_result,
    is_reply,
    json_object,
    request_id_of,
    request_of,
)
from vdpad.service.refusal import Refusal
from vdpad.service.request import Request, Served, reply_too_long
from vdpad.wire.datagrams import NoRequest, Peer


class JsonRpc:
    """Answers datagrams."""

    def __init__(self, served: Served) -> None:
        self._served = served

    async def answer(self, data: bytes, peer: Peer) -> bytes | None:
        """The reply to a datagram; None where none is wanted.

        Cancellation is as what is served has it. The peer's descriptors stay the caller's to close.

        Raises:
            NoRequest: it is a reply, to which nothing is said.
        """
        began_ns = time.perf_counter_ns()
        request_id: str | int | None = None
        message: dict[str, Any] = {}
        try:
            message = json_object(data, peer)
            if is_reply(message):
                raise NoRequest("a JSON-RPC reply came, where requests are expected")
            request_id = request_id_of(message)
            envelope = request_of(message)
        except Refusal as refusal:
            self._served.refused(refusal, message.get("method"))
            return encode_refusal(request_id, refusal)
        request = Request(
            method=envelope.method,
            params=message.get("params", {}),
            document=data if envelope.has_params else None,
            peer=peer,
            began_ns=began_ns,
        )
        del data, message  # they may be large, and the answer far off
        reply = await self._answer(request, request_id)
        return reply if envelope.wants_reply else None

    async def _answer(self, request: Request, request_id: str | int | None) -> bytes:
        try:
            reply = encode_result(request_id, await self._served.call(request))
            if len(reply) > request.peer.limit:
                raise reply_too_long(len(reply), request.peer)
        except Refusal as refusal:
            reply = encode_refusal(request_id, refusal)
        return reply
