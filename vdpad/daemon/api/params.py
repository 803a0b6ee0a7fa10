"""The parameters of each method, and how they come out of a datagram: docs/api.md, "Methods"."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vdpad.daemon.settings import MAX_DEADLINE_MS
from vdpad.daemon.targets.target_params import DeviceName, Params, TargetParams
from vdpad.service.refusal import Kind, Refusal
from vdpad.state.fields import OrAbsent
from vdpad.state.model import NetState
from vdpad.state.problems import problems_of, summary

NAME = r"[A-Za-z0-9._:/-]{1,128}"
"""A migration's name, as a regular expression: docs/api.md."""

Migration = Annotated[str, Field(pattern=f"^{NAME}$", max_length=128)]
Deadline = Annotated[
    Annotated[int, Field(ge=1, le=MAX_DEADLINE_MS)] | None,
    OrAbsent(),
]


class NoParams(Params):
    """info."""


class CheckParams(Params):
    """check."""

    state: NetState
    target: TargetParams


class RestoreParams(CheckParams):
    """prepare and restore."""

    migration: Migration
    deadline_ms: Deadline = None


class CommitParams(Params):
    """commit."""

    migration: Migration
    deadline_ms: Deadline = None


class MigrationParams(Params):
    """cancel."""

    migration: Migration


class StatusParams(Params):
    """status."""

    migration: Annotated[Migration | None, OrAbsent()] = None


class ReleaseParams(Params):
    """release."""

    device: DeviceName


P = TypeVar("P", bound=Params)


class _Envelope(BaseModel, Generic[P]):
    """The whole datagram again, its parameters typed; the rest has been checked by then."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)
    params: P


# Made beforehand: pydantic takes milliseconds for each, which the first request would wait for.
_ENVELOPES: Mapping[type[Params], type[_Envelope[Any]]] = {
    NoParams: _Envelope[NoParams],
    CheckParams: _Envelope[CheckParams],
    RestoreParams: _Envelope[RestoreParams],
    CommitParams: _Envelope[CommitParams],
    MigrationParams: _Envelope[MigrationParams],
    StatusParams: _Envelope[StatusParams],
    ReleaseParams: _Envelope[ReleaseParams],
}


def parse_params(model: type[P], data: bytes, *, has_params: bool) -> P:
    """The typed parameters of a request whose envelope is in order.

    Args:
        model: what the method takes.
        data: the whole datagram.
        has_params: whether the request has any.

    Raises:
        Refusal: invalid-params, with all problems.
    """
    try:
        if not has_params:
            return model.model_validate_json(b"{}")
        return cast("P", _ENVELOPES[model].model_validate_json(data).params)
    except ValidationError as error:
        problems = problems_of(error, below=1 if has_params else 0)
        raise Refusal(
            Kind.INVALID_PARAMS, summary(problems), problems=[asdict(each) for each in problems]
        ) from error
