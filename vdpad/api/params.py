"""Parameters, and how they come out of a request; which there are is each API's to say."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from vdpad.service.refusal import Kind, Refusal
from vdpad.service.request import Request
from vdpad.state.names import HAS_FEW, TooManyNames, refuse_many_names
from vdpad.state.problems import Problem, problems_of, summary
from vdpad.state.strict_model import StrictModel


class Params(StrictModel):
    """Parameters: frozen, strict, no unknown keys."""


class NoParams(Params):
    """Those of a method that takes none."""


P = TypeVar("P", bound=Params)


class _Envelope(BaseModel, Generic[P]):
    """What a request came in, again, its parameters typed; the rest has been checked by then."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)
    params: P


Envelopes = Mapping[type[Params], type[_Envelope[Any]]]


def envelopes(*models: type[Params]) -> Envelopes:
    """Made beforehand: pydantic takes milliseconds for each, which a request would wait for."""
    return {each: _Envelope[each] for each in models}  # type: ignore[valid-type]


def typed_params(made: Envelopes, model: type[P], request: Request) -> P:
    """The typed parameters of a request, which keeps nothing of what they were made of.

    Args:
        made: with one for the model.
        model: what the method takes.
        request: its parameters have not been read yet.

    Raises:
        Refusal: invalid-params, with all problems.
    """
    params, document = request.params, request.take_document()
    try:
        if document is None:
            return model.model_validate_json(b"{}")
        if len(document) > HAS_FEW:
            refuse_many_names(params, params.get("state"))
        return cast("P", made[model].model_validate_json(document).params)
    except TooManyNames as error:
        raise _invalid_params([Problem("", "too-many-names", str(error))]) from error
    except ValidationError as error:
        raise _invalid_params(problems_of(error, below=0 if document is None else 1)) from error
    finally:
        request.was_read()


def _invalid_params(problems: list[Problem]) -> Refusal:
    told = [asdict(each) for each in problems]
    return Refusal(Kind.INVALID_PARAMS, summary(problems), problems=told)
