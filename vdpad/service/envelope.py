"""JSON-RPC's envelope: bytes to a request's id and method, and a result or error to bytes.

The first thing that is wrong is told: size, UTF-8 and JSON (no duplicate keys), then the envelope.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from vdpad.service.refusal import Kind, Refusal
from vdpad.wire import strict_json
from vdpad.wire.datagrams import MAX_DATAGRAM, MAX_IN_REQUEST, Peer

# JSON-RPC sets no bound. Stops a reply from being as long as its request's id.
_MAX_ID = 256
_MAX_ID_NUMBER = 1 << 63

CODES = {
    Kind.PARSE_ERROR: -32700,
    Kind.INVALID_REQUEST: -32600,
    Kind.METHOD_NOT_FOUND: -32601,
    Kind.INVALID_PARAMS: -32602,
    Kind.INTERNAL: -32603,
    Kind.INCOMPATIBLE: -32001,
    Kind.CONFLICT: -32002,
    Kind.BUSY: -32003,
    Kind.NO_SUCH_DEVICE: -32004,
    Kind.REJECTED: -32005,
    Kind.TIMEOUT: -32006,
    Kind.DEVICE_BROKEN: -32007,
    Kind.NOT_ALLOWED: -32008,
    Kind.NO_SUCH_MIGRATION: -32009,
    Kind.BAD_LEND: -32010,
    Kind.OVERLOADED: -32011,
}
"""JSON-RPC's own, and those of docs/api.md, "Errors"."""

_ENCODER = json.JSONEncoder(separators=(",", ":"))

_ENVELOPE_KEYS = {"jsonrpc", "id", "method", "params"}


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope that is in order."""

    wants_reply: bool
    method: str
    has_params: bool


def encode_result(request_id: str | int | None, result: object) -> bytes:
    """The reply to a request that was done."""
    return _encode(request_id, {"result": result})


def encode_refusal(request_id: str | int | None, refusal: Refusal) -> bytes:
    """The reply to one that was not."""
    return _encode(request_id, {"error": error_of(refusal)})


def error_of(refusal: Refusal) -> dict[str, Any]:
    """A refusal as JSON-RPC's error object: code, message, data."""
    return {
        "code": CODES[refusal.kind],
        "message": str(refusal),
        "data": {"kind": refusal.kind.value, **refusal.data},
    }


def _encode(request_id: str | int | None, reply: Mapping[str, object]) -> bytes:
    whole = {"jsonrpc": "2.0", "id": request_id, **reply}
    return _ENCODER.encode(whole).encode()


OVERLOADED = encode_refusal(
    None, Refusal(Kind.OVERLOADED, "too many datagrams are waiting; try later")
)
"""The reply to a request that nobody has looked at."""


def json_object(data: bytes, peer: Peer) -> dict[str, Any]:
    """What a datagram holds.

    Raises:
        Refusal: parse-error, invalid-request.
    """
    if peer.too_long:
        raise Refusal(
            Kind.INVALID_REQUEST, f"expected at most {MAX_DATAGRAM} bytes, got a longer datagram"
        )
    try:
        message = strict_json.loads(data, MAX_IN_REQUEST)
    except strict_json.NotJson as error:
        raise Refusal(Kind.PARSE_ERROR, str(error)) from error
    if not isinstance(message, dict):
        raise Refusal(Kind.INVALID_REQUEST, "expected a single JSON-RPC object")
    return message


def is_reply(message: Mapping[str, Any]) -> bool:
    """Whether it answers a request, and is none itself."""
    return "method" not in message and not message.keys().isdisjoint(("result", "error"))


def request_id_of(message: dict[str, Any]) -> str | int | None:
    """The id that a reply will carry.

    Raises:
        Refusal: invalid-request.
    """
    request_id = message.get("id")
    if not _is_id(request_id):
        raise Refusal(
            Kind.INVALID_REQUEST,
            f"id: expected a string of at most {_MAX_ID} characters, an integer or null",
        )
    return cast("str | int | None", request_id)


def request_of(message: dict[str, Any]) -> Envelope:
    """The envelope.

    Raises:
        Refusal: invalid-request.
    """
    method = message.get("method")
    if message.get("jsonrpc") != "2.0":
        raise Refusal(Kind.INVALID_REQUEST, 'jsonrpc: expected "2.0"')
    if not isinstance(method, str):
        raise Refusal(Kind.INVALID_REQUEST, "method: expected a string")
    if not isinstance(message.get("params", {}), dict):
        raise Refusal(Kind.INVALID_REQUEST, "params: expected an object, as they go by name")
    if message.keys() - _ENVELOPE_KEYS:
        there = ", ".join(sorted(_ENVELOPE_KEYS))
        raise Refusal(Kind.INVALID_REQUEST, f"expected no keys but {there}")
    return Envelope("id" in message, method, "params" in message)


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_ID
    if type(value) is int:
        return abs(value) < _MAX_ID_NUMBER
    return value is None
