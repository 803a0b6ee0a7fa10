"""The parameters of each method: docs/api.md, "The back end's control socket"."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, TypeVar

from pydantic import Field, PlainValidator, RootModel

from vdpad.api.params import NoParams, Params, envelopes, typed_params
from vdpad.api.targets import SoftwareParams, VhostVdpaParams, target_of
from vdpad.service.request import Request
from vdpad.state.formats.device_state import MissingParts, RingBases
from vdpad.state.model import NetState


class CheckStateParams(Params):
    """check."""

    state: NetState


class LoadParams(Params):
    """load."""

    state: NetState
    missing: MissingParts = ()
    rings: RingBases = ()


_MODELS: Mapping[str, type[Params]] = {
    "software": SoftwareParams,
    "vhost-vdpa": VhostVdpaParams,
}


class OwnableTarget(RootModel[SoftwareParams | VhostVdpaParams]):
    """A device that a back end can own: one of these, by its kind."""

    root: Annotated[SoftwareParams | VhostVdpaParams, Field(discriminator="kind")]


class SwitchParams(Params):
    """switch."""

    target: Annotated[
        SoftwareParams | VhostVdpaParams,
        PlainValidator(partial(target_of, _MODELS), json_schema_input_type=OwnableTarget),
    ]


_ENVELOPES = envelopes(NoParams, CheckStateParams, LoadParams, SwitchParams)

P = TypeVar("P", bound=Params)


def read_params(model: type[P], request: Request) -> P:
    """The typed parameters of a request.

    Raises:
        Refusal: invalid-params, with all problems.
    """
    return typed_params(_ENVELOPES, model, request)
