"""JSON-RPC's envelope: bytes to a request's id and method, and a result or error to bytes.

The first thing that is wrong is told: size, UTF-8 and JSON (no duplicate keys), then the envelope.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from vdpad.daemon.faults import ApiError, Kind
from vdpad.wire import strict_json
from vdpad.wire.datagrams import MAX_DATAGRAM, Peer

# JSON-RPC sets no bound. Stops a reply from being as long as its request's id.
_MAX_ID = 256
_MAX_ID_NUMBER = 1 << 63

_ENVELOPE_KEYS = {"jsonrpc", "id", "method", "params"}


@dataclass(frozen=True, slots=True)
class Request:
    """An envelope that is in order."""

    wants_reply: bool
    method: str
    has_params: bool


def encode_reply(request_id: str | int | None, reply: Mapping[str, object]) -> bytes:
    """A JSON-RPC reply as a datagram."""
    whole = {"jsonrpc": "2.0", "id": request_id, **reply}
    return json.dumps(whole, separators=(",", ":")).encode()


def json_object(data: bytes, peer: Peer) -> dict[str, Any]:
    """What a datagram holds.

    Raises:
        ApiError: parse-error, invalid-request.
    """
    if peer.too_long:
        raise ApiError(
            Kind.INVALID_REQUEST, f"expected at most {MAX_DATAGRAM} bytes, got a longer datagram"
        )
    try:
        message = strict_json.loads(data)
    except strict_json.NotJson as error:
        raise ApiError(Kind.PARSE_ERROR, str(error)) from error
    if not isinstance(message, dict):
        raise ApiError(Kind.INVALID_REQUEST, "expected a single JSON-RPC object")
    return message


def request_id_of(message: dict[str, Any]) -> str | int | None:
    """The id that a reply will carry.

    Raises:
        ApiError: invalid-request.
    """
    request_id = message.get("id")
    if not _is_id(request_id):
        raise ApiError(
            Kind.INVALID_REQUEST,
            f"id: expected a string of at most {_MAX_ID} characters, an integer or null",
        )
    return cast("str | int | None", request_id)


def request_of(message: dict[str, Any]) -> Request:
    """The envelope.

    Raises:
        ApiError: invalid-request.
    """
    method = message.get("method")
    if message.get("jsonrpc") != "2.0":
        raise ApiError(Kind.INVALID_REQUEST, 'jsonrpc: expected "2.0"')
    if not isinstance(method, str):
        raise ApiError(Kind.INVALID_REQUEST, "method: expected a string")
    if not isinstance(message.get("params", {}), dict):
        raise ApiError(Kind.INVALID_REQUEST, "params: expected an object, as they go by name")
    if message.keys() - _ENVELOPE_KEYS:
        there = ", ".join(sorted(_ENVELOPE_KEYS))
        raise ApiError(Kind.INVALID_REQUEST, f"expected no keys but {there}")
    return Request("id" in message, method, "params" in message)


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_ID
    if type(value) is int:
        return abs(value) < _MAX_ID_NUMBER
    return value is None
