"""The parameters of each method, and how they come out of a request: docs/api.md, "Methods"."""

from typing import Annotated, Self, TypeVar

from pydantic import Field, model_validator

from vdpad.api.params import NoParams, Params, envelopes, typed_params
from vdpad.api.targets import DeviceName
from vdpad.daemon.operations.transitions import State
from vdpad.daemon.settings import MAX_DEADLINE_MS, MAX_UID
from vdpad.daemon.targets.target_params import (
    IN_ORDER,
    DescriptorPlaces,
    TargetParams,
)
from vdpad.service.request import Request
from vdpad.state.fields import OrAbsent
from vdpad.state.model import NetState
from vdpad.state.problems import invalid

NAME = r"[A-Za-z0-9._:/-]{1,128}"
"""A migration's name, as a regular expression: docs/api.md."""

MAX_LISTED = 1000
"""Operations in one reply of `status`, at most."""

Migration = Annotated[str, Field(pattern=f"^{NAME}$", max_length=128)]
Deadline = Annotated[
    Annotated[int, Field(ge=1, le=MAX_DEADLINE_MS)] | None,
    OrAbsent(),
]


class CheckParams(Params):
    """What `check` takes."""

    state: NetState
    target: TargetParams


class StateAndTargetParams(Params):
    """What prepare and restore have both."""

    migration: Migration
    state: NetState
    target: TargetParams
    deadline_ms: Deadline = None


class PrepareParams(StateAndTargetParams):
    """What `prepare` takes."""

    committer: Annotated[Annotated[int, Field(ge=0, le=MAX_UID)] | None, OrAbsent()] = None


class RestoreParams(StateAndTargetParams):
    """What `restore` takes."""

    descriptors: DescriptorPlaces = IN_ORDER


class CommitParams(Params):
    """What `commit` takes."""

    migration: Migration
    deadline_ms: Deadline = None
    descriptors: DescriptorPlaces = IN_ORDER


class MigrationParams(Params):
    """What `cancel` takes."""

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
    """What `watch` takes."""

    states: States = None


class ReleaseParams(Params):
    """What `release` takes."""

    device: DeviceName


_ENVELOPES = envelopes(
    NoParams,
    CheckParams,
    PrepareParams,
    RestoreParams,
    CommitParams,
    MigrationParams,
    StatusParams,
    ReleaseParams,
    WatchParams,
)

P = TypeVar("P", bound=Params)


def read_params(model: type[P], request: Request) -> P:
    """The typed parameters of a request.

    Raises:
        Refusal: invalid-params, with all problems.
    """
    return typed_params(_ENVELOPES, model, request)
