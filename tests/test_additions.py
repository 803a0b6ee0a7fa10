"""What is new is in every list that it belongs to: docs/architecture.md, "Where a new one goes"."""

import argparse
import re
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

import pytest

from tests.support.package import PATHS
from tests.support.pages import quoted, table
from tests.support.states import SAMPLE
from tests.test_man import methods as commands_of
from vdpad.api.params import NoParams, Params
from vdpad.cli import show_state, states
from vdpad.cli.commands import command_line
from vdpad.daemon.api import params
from vdpad.daemon.api.api import Api
from vdpad.daemon.settings import Method, Settings
from vdpad.daemon.targets.target_params import KINDS, AnyTarget
from vdpad.methods import Methods
from vdpad.service.envelope import CODES
from vdpad.service.refusal import Kind
from vdpad.state.formats import recognise
from vdpad.state.model import NetState
from vdpad.state.observed import _STATELESS, ADDS_TO, SETS
from vdpad.virtio.commands import COMMANDS
from vdpad.virtio.features import TRANSPORT

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGE = (DOCS / "architecture.md").read_text()
API = (DOCS / "api.md").read_text()
FORMATS = (DOCS / "formats.md").read_text()

METHODS: tuple[str, ...] = get_args(Method)
PARTS = NetState.model_fields.keys() - {"version"}


# --- the page itself ---

_NAMED = set(quoted(PAGE))


@pytest.mark.parametrize("path", sorted(each for each in _NAMED if re.search(r"/|\.py$", each)))
def test_what_the_page_names_is_there(path: str) -> None:
    assert (ROOT / "vdpad" / path).exists() or (ROOT / path).exists()


@cache
def _words_of_the_code() -> set[str]:
    return {word for path in PATHS.values() for word in re.findall(r"\w+", path.read_text())}


@pytest.mark.parametrize(
    "name", sorted(each for each in _NAMED if re.fullmatch(r"(\w+\.)?\w+", each))
)
def test_the_code_has_the_names_that_the_page_has(name: str) -> None:
    assert name.rpartition(".")[2] in _words_of_the_code()


# --- a command ---


def test_every_command_is_said_to_tell_something_of_a_state_or_nothing() -> None:
    told = [*SETS, *ADDS_TO, *(COMMANDS[code] for code in _STATELESS)]
    assert sorted(map(repr, told)) == sorted(map(repr, COMMANDS.values()))


def test_no_feature_of_a_command_is_the_transport_s() -> None:
    assert [each.NAME for each in COMMANDS.values() if each.FEATURE in TRANSPORT] == []


# --- a target ---


def test_every_kind_of_target_is_among_those_that_schemas_tell() -> None:
    told = AnyTarget.model_json_schema()["discriminator"]["mapping"]
    assert told.keys() == set(KINDS)


# --- a method ---


def test_the_api_has_every_method_that_access_can_be_given_to() -> None:
    nothing = cast("Any", None)
    assert Api(Settings(), nothing, nothing, nothing, nothing)._methods.keys() == set(METHODS)


def test_the_page_of_the_api_tells_every_method() -> None:
    told = [quoted(name)[0] for name, *_ in table(API, "method", "params", "result")]
    assert sorted(told) == sorted(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_client_has_every_method(method: str) -> None:
    assert callable(getattr(Methods, method, None))


def test_vdpactl_has_every_method() -> None:
    parser: argparse.ArgumentParser = command_line()
    assert set(METHODS) <= set(commands_of(parser))


def test_the_parameters_of_every_method_have_an_envelope() -> None:
    models = {
        each
        for each in vars(params).values()
        if isinstance(each, type)
        and issubclass(each, Params)
        and each.__module__ in (params.__name__, NoParams.__module__)
        and each is not Params
        and not each.__subclasses__()
    }
    assert params._ENVELOPES.keys() == models


def test_every_kind_of_refusal_has_a_code_and_both_are_told() -> None:
    assert CODES.keys() == set(Kind)
    told = {
        kind: int(code)
        for codes, kinds, _ in table(API, "code", "kind", "data")
        for code, kind in zip(codes.split(", "), kinds.split(", "), strict=True)
    }
    assert told == {kind.value: code for kind, code in CODES.items()}


# --- a target, a format, a part of a state ---


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_target_is_told(kind: str) -> None:
    assert f'- `{{"kind": "{kind}", ' in API


def test_every_format_is_told_and_has_a_name_for_people() -> None:
    known = {getattr(recognise, name) for name in recognise.__all__ if name.isupper()}
    assert {name for name, *_ in table(FORMATS, "format", "what it is", "how it is known")} == known
    assert show_state._FORMATS.keys() == known
    assert states._ENCODERS.keys() <= known


def test_it_is_told_of_every_part_of_a_state_which_format_carries_it() -> None:
    columns = (
        "part of a state",
        "native",
        "QEMU's stream",
        "a running QEMU (QMP)",
        "device parts",
        "the recorder",
    )
    told = {name for first, *_ in table(FORMATS, *columns) for name in quoted(first)}
    assert told == PARTS


def test_the_tests_sample_has_every_part_of_a_state() -> None:
    # The two exclude each other.
    assert SAMPLE.keys() | {"hash_report"} == PARTS | {"version"}


@pytest.mark.parametrize("part", sorted(PARTS))
def test_the_page_of_the_api_shows_every_part_of_a_state(part: str) -> None:
    assert f'\n "{part}": ' in API
