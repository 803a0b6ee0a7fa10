"""What is told of a request that was refused, beside its reply.

Only of requests that would have done something: nobody needs an entry for each `status` of a
migration that has not come yet. What a sender made up is not repeated: a name is told where it is
one that the API takes, and of parameters that are not in order nothing is.
"""

import re
from typing import Any

from vdpad.daemon.api.params import NAME
from vdpad.daemon.events.requests import NotAllowed, RequestRefused
from vdpad.daemon.targets.target_params import KINDS
from vdpad.service.events.event import Event
from vdpad.service.refusal import Kind, Refusal


class SenderNotAllowed(Refusal):
    """Whoever sent the request may not have it done."""

    def __init__(self, message: str) -> None:
        super().__init__(Kind.NOT_ALLOWED, message)


_METHODS = ("prepare", "commit", "restore", "cancel", "release")

# Those of devices and their nodes are of the same letters as a migration's.
_NAME = re.compile(NAME)

_NOT_IN_ORDER = "its parameters are not in order; the caller was told where"


def refused_event(message: dict[str, Any], error: Refusal) -> Event | None:
    """The event for a request that was answered with an error, if there is to be one.

    Args:
        message: the JSON object that came; of its parameters nothing has been checked.
        error: the answer.
    """
    method = message.get("method")
    params = _object(message.get("params"))
    migration = _name(params.get("migration"))
    if isinstance(error, SenderNotAllowed):
        return NotAllowed(str(method), str(error), migration)
    # The end of a commit was told when it came, and is repeated to whoever asks again.
    if method not in _METHODS or "report" in error.data:
        return None
    invalid = error.kind is Kind.INVALID_PARAMS
    problems = () if invalid else error.data.get("problems", ())
    target = _object(params.get("target"))
    return RequestRefused(
        method=method,
        error=error.kind.value,
        reason=_NOT_IN_ORDER if invalid else str(error),
        problem=tuple(f"{each['path']}: {each['message']}" for each in problems),
        migration=migration,
        target=target["kind"] if target.get("kind") in KINDS else "",
        device=_device(params, target),
    )


def _device(params: dict[str, Any], target: dict[str, Any]) -> str:
    given = (params.get("device"), target.get("name"), target.get("device"), target.get("path"))
    return next(filter(None, map(_name, given)), "")


def _name(value: object) -> str:
    return value if isinstance(value, str) and _NAME.fullmatch(value) else ""


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
