"""The parameters of each method: docs/api.md, "The back end's control socket"."""

from typing import TypeVar

from vdpad.api.params import NoParams, Params, envelopes, typed_params
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


_ENVELOPES = envelopes(NoParams, CheckStateParams, LoadParams)

P = TypeVar("P", bound=Params)


def read_params(model: type[P], request: Request) -> P:
    """The typed parameters of a request.

    Raises:
        Refusal: invalid-params, with all problems.
    """
    return typed_params(_ENVELOPES, model, request)
