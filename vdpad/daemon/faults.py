"""The errors that the API answers with: docs/api.md, "Errors"."""

from enum import StrEnum
from typing import Any

from vdpad.errors import VdpadError


class Kind(StrEnum):
    """What went wrong, by the name that `error.data.kind` gives."""

    PARSE_ERROR = "parse-error"
    INVALID_REQUEST = "invalid-request"
    METHOD_NOT_FOUND = "method-not-found"
    INVALID_PARAMS = "invalid-params"
    INTERNAL = "internal"
    INCOMPATIBLE = "incompatible"
    CONFLICT = "conflict"
    BUSY = "busy"
    NO_SUCH_DEVICE = "no-such-device"
    REJECTED = "rejected"
    TIMEOUT = "timeout"
    DEVICE_BROKEN = "device-broken"
    NOT_ALLOWED = "not-allowed"
    NO_SUCH_MIGRATION = "no-such-migration"
    BAD_LEND = "bad-lend"
    OVERLOADED = "overloaded"


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


class ApiError(VdpadError):
    """An error as a caller gets it."""

    def __init__(self, kind: Kind, message: str, **data: Any) -> None:
        """
        Args:
            kind: names it for programs, and gives the code.
            message: a sentence for people.
            data: plain JSON values that go with this kind.
        """
        super().__init__(message)
        self.kind = kind
        self.data = data

    def to_json(self) -> dict[str, Any]:
        """The error object of a JSON-RPC reply."""
        return {
            "code": CODES[self.kind],
            "message": str(self),
            "data": {"kind": self.kind.value, **self.data},
        }


class SenderNotAllowed(ApiError):
    """Whoever sent the request may not have it done."""

    def __init__(self, message: str) -> None:
        super().__init__(Kind.NOT_ALLOWED, message)
