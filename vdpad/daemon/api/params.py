"""The parameters of each method, and how they come out of a request: docs/api.md, "Methods"."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Generic, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vdpad.daemon.operations.transitions import State
from vdpad.daemon.settings import MAX_DEADLINE_MS
from vdpad.daemon.targets.target_params import (
    IN_ORDER,
    DescriptorPlaces,
    DeviceName,
    Params,
    TargetParams,
)
from vdpad.service.refusal import Kind, Refusal
from vdpad.service.request import Request
from vdpad.state.fields import OrAbsent
from vdpad.state.model import NetState
from vdpad.state.names import TooManyNames, refuse_many_names
from vdpad.state.problems import Problem, invalid, problems_of, summary

NAME = r"[A-Za-z0-9._:/-]{1,128}"
"""A migration's name, as a regular expression: docs/api.md."""

MAX_LISTED = 1000
"""Operations in one reply of `status`, at most."""

Migration = Annotated[str, Field(pattern=f"^{NAME}$", max_length=128)]
MAX_UID = (1 << 32) - 2
"""The highest that a user can have: Linux include/linux/uidgid.h, uid_valid."""

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


class WishParams(Params):
    """What prepare and restore have both."""

    migration: Migration
    state: NetState
    target: TargetParams
    deadline_ms: Deadline = None


class PrepareParams(WishParams):
    """prepare."""

    committer: Annotated[Annotated[int, Field(ge=0, le=MAX_UID)] | None, OrAbsent()] = None


class RestoreParams(WishParams):
    """restore."""

    descriptors: DescriptorPlaces = IN_ORDER


class CommitParams(Params):
    """commit."""

    migration: Migration
    deadline_ms: Deadline = None
    descriptors: DescriptorPlaces = IN_ORDER


class MigrationParams(Params):
    """cancel."""

    migration: Migration


States = Annotated[tuple[State, ...] | None, OrAbsent()]


class StatusParams(Params):
    """status: of one migration, or of those that match."""

    migration: Annotated[Migration | None, OrAbsent()] = None
    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)] = 100
    after: Annotated[Migration | None, OrAbsent()] = None
    states: States = None

    @model_validator(mode="after")
    def _refuse_a_list_of_one(self) -> Self:
        others = self.model_fields_set - {"migration"}
        if self.migration is not None and others:
            message = f"a migration has one state: leave out {', '.join(sorted(others))}"
            raise invalid((("migration",), "conflict", message))
        return self


class WatchParams(Params):
    """watch."""

    states: States = None


class ReleaseParams(Params):
    """release."""

    device: DeviceName


P = TypeVar("P", bound=Params)


class _Envelope(BaseModel, Generic[P]):
    """What a request came in, again, its parameters typed; the rest has been checked by then."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)
    params: P


# Made beforehand: pydantic takes milliseconds for each, which the first request would wait for.
_ENVELOPES: Mapping[type[Params], type[_Envelope[Any]]] = {
    NoParams: _Envelope[NoParams],
    CheckParams: _Envelope[CheckParams],
    PrepareParams: _Envelope[PrepareParams],
    RestoreParams: _Envelope[RestoreParams],
    CommitParams: _Envelope[CommitParams],
    MigrationParams: _Envelope[MigrationParams],
    StatusParams: _Envelope[StatusParams],
    ReleaseParams: _Envelope[ReleaseParams],
    WatchParams: _Envelope[WatchParams],
}


def read_params(model: type[P], request: Request) -> P:
    """The typed parameters of a request, which keeps nothing of what they were made of.

    Args:
        model: what the method takes.
        request: its parameters have not been read yet.

    Raises:
        Refusal: invalid-params, with all problems.
    """
    params, document = request.params, request.take_document()
    try:
        refuse_many_names(params, params.get("state"))
        if document is None:
            return model.model_validate_json(b"{}")
        return cast("P", _ENVELOPES[model].model_validate_json(document).params)
    except TooManyNames as error:
        raise _invalid_params([Problem("", "too-many-names", str(error))]) from error
    except ValidationError as error:
        raise _invalid_params(problems_of(error, below=0 if document is None else 1)) from error
    finally:
        request.was_read()


def _invalid_params(problems: list[Problem]) -> Refusal:
    told = [asdict(each) for each in problems]
    return Refusal(Kind.INVALID_PARAMS, summary(problems), problems=told)
