"""A refusal: why a request is not done, as its caller shall know it.

Whoever knows the reason raises it, with its kind and what goes with that; how it looks on the wire
is the envelope's (envelope.py), and what lower rooms raise becomes one where a process of ours says
so (daemon/faults.py).
"""

from enum import StrEnum
from typing import Any

from vdpad.errors import VdpadError


class Kind(StrEnum):
    """What is wrong, by the name that docs/api.md, "Errors", gives it."""

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


class Refusal(VdpadError):
    """A request that is not done."""

    def __init__(self, kind: Kind, message: str, **data: Any) -> None:
        """
        Args:
            kind: names it for programs.
            message: a sentence for people.
            data: plain JSON values that go with this kind.
        """
        super().__init__(message)
        self.kind = kind
        self.data = data
