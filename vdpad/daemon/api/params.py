"""The parameters of each method, and how they come out of a request: docs/api.md, "Methods"."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vdpad.daemon.settings import MAX_DEADLINE_MS
from vdpad.daemon.targets.target_params import DeviceName, Params, TargetParams
from vdpad.service.refusal import Kind, Refusal
from vdpad.service.request import Request
from vdpad.state.fields import OrAbsent
from vdpad.state.model import NetState
from vdpad.state.problems import problems_of, summary
from vdpad.wire.datagrams import MAX_DESCRIPTORS

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


class PrepareParams(Params):
    """prepare."""

    migration: Migration
    state: NetState
    target: TargetParams
    deadline_ms: Deadline = None


_Place = Annotated[int, Field(ge=0, lt=MAX_DESCRIPTORS)]


class DescriptorPlaces(Params):
    """Where among the descriptors that came with a request each of a lent ring's is, from 0."""

    memory: _Place
    kick: _Place
    call: _Place


IN_ORDER = DescriptorPlaces(memory=0, kick=1, call=2)


class RestoreParams(PrepareParams):
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


class StatusParams(Params):
    """status."""

    migration: Annotated[Migration | None, OrAbsent()] = None


class ReleaseParams(Params):
    """release."""

    device: DeviceName


P = TypeVar("P", bound=Params)


class _Document(BaseModel, Generic[P]):
    """What a request came in, again, its parameters typed; the rest has been checked by then."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)
    params: P


# Made beforehand: pydantic takes milliseconds for each, which the first request would wait for.
_DOCUMENTS: Mapping[type[Params], type[_Document[Any]]] = {
    NoParams: _Document[NoParams],
    CheckParams: _Document[CheckParams],
    PrepareParams: _Document[PrepareParams],
    RestoreParams: _Document[RestoreParams],
    CommitParams: _Document[CommitParams],
    MigrationParams: _Document[MigrationParams],
    StatusParams: _Document[StatusParams],
    ReleaseParams: _Document[ReleaseParams],
}


def read_params(model: type[P], request: Request) -> P:
    """The typed parameters of a request, which keeps nothing of what they were made of.

    Args:
        model: what the method takes.
        request: its parameters have not been read yet.

    Raises:
        Refusal: invalid-params, with all problems.
    """
    document = request.take_document()
    try:
        if document is None:
            return model.model_validate_json(b"{}")
        return cast("P", _DOCUMENTS[model].model_validate_json(document).params)
    except ValidationError as error:
        problems = problems_of(error, below=0 if document is None else 1)
        raise Refusal(
            Kind.INVALID_PARAMS, summary(problems), problems=[asdict(each) for each in problems]
        ) from error
    finally:
        request.was_read()
