"""What operators are told of a request that was refused.

Only of requests that would have done something: nobody needs an entry for each `status` of a
migration that has not come yet. What a sender made up is not repeated: a name is told where it is
one that the API takes, and of parameters that are not in order nothing is.
"""

import re
from dataclasses import dataclass
from typing import Any

from vdpad.daemon.api.params import NAME
from vdpad.daemon.events.requests import RequestRefused
from vdpad.daemon.operations.requester import NotYours
from vdpad.daemon.targets.target_params import KINDS
from vdpad.service.answering import SenderNotAllowed
from vdpad.service.events.event import Event
from vdpad.service.events.kinds import NotAllowed
from vdpad.service.refusal import Kind, Refusal
from vdpad.service.request import Request

_METHODS = ("prepare", "commit", "restore", "cancel", "release")

# Those of devices and their nodes are of the same letters as a migration's.
_NAME = re.compile(NAME)

_NOT_IN_ORDER = "its parameters are not in order; the caller was told where"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request is about, by such of its parameters as say so, as they came."""

    method: str
    given_migration: object
    given_target: object
    given_device: object

    # As far as they may be repeated:

    @property
    def migration(self) -> str:
        """Its name; "" for none."""
        return _name(self.given_migration)

    @property
    def target(self) -> str:
        """Its kind; "" for none."""
        kind = _object(self.given_target).get("kind")
        return kind if kind in KINDS else ""

    @property
    def device(self) -> str:
        """Its name; "" for none."""
        target = _object(self.given_target)
        given = (self.given_device, target.get("name"), target.get("device"), target.get("path"))
        return next(filter(None, map(_name, given)), "")


def subject_of(request: Request) -> Subject:
    """What a request is about; of its parameters nothing has been checked."""
    given = request.params.get
    return Subject(request.method, given("migration"), given("target"), given("device"))


def refused_event(subject: Subject, error: Refusal) -> Event | None:
    """The event for a request that was answered with an error, if there is to be one."""
    if isinstance(error, SenderNotAllowed | NotYours):
        return NotAllowed(subject.method, str(error), subject.migration)
    # The end of a commit was told when it came, and is repeated to whoever asks again.
    if subject.method not in _METHODS or "report" in error.data:
        return None
    invalid = error.kind is Kind.INVALID_PARAMS
    problems = () if invalid else error.data.get("problems", ())
    return RequestRefused(
        method=subject.method,
        error=error.kind.value,
        reason=_NOT_IN_ORDER if invalid else str(error),
        problem=tuple(f"{each['path']}: {each['message']}" for each in problems),
        migration=subject.migration,
        target=subject.target,
        device=subject.device,
    )


def _name(value: object) -> str:
    return value if isinstance(value, str) and _NAME.fullmatch(value) else ""


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
