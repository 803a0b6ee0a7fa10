"""What is published of the API for machines is what the daemon's models say."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from vdpad.api.describing import openrpc_document, varlink_description
from vdpad.daemon.api import schema
from vdpad.daemon.api.methods import METHODS
from vdpad.daemon.api.results import DATA
from vdpad.daemon.api.varlink import INTERFACE, description
from vdpad.daemon.settings import Method
from vdpad.service.envelope import CODES
from vdpad.service.refusal import Kind
from vdpad.service.varlink.interface import error_name

DOCS = Path(__file__).parents[3] / "docs"
DOCUMENT = json.loads(openrpc_document(schema.API))


def test_what_is_published_is_up_to_date() -> None:
    assert (DOCS / "openrpc.json").read_text() == openrpc_document(schema.API), "run `make schema`"
    assert description() == varlink_description(schema.API), "run `make schema`"


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.schema.json")), ids=lambda each: each.name)
def test_every_schema_says_what_it_is_and_which(path: Path) -> None:
    published = json.loads(path.read_text())
    assert published["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert published["$id"].startswith("urn:vdpad:")


def test_every_method_is_described() -> None:
    assert tuple(METHODS) == get_args(Method)
    assert [each["name"] for each in DOCUMENT["methods"]] == list(METHODS)
    told = re.findall(r"^method (\w+)", description(), re.M)
    assert [each for each in told if each != "Watch"] == [each.capitalize() for each in METHODS]


def test_every_error_is_described() -> None:
    assert DATA.keys() == set(Kind)
    errors = DOCUMENT["components"]["errors"]
    assert {name: each["code"] for name, each in errors.items()} == {
        kind.value: code for kind, code in CODES.items()
    }
    assert all(each["data"]["properties"]["kind"] for each in errors.values())
    told = set(re.findall(r"^error (\w+)", description(), re.M))
    # Varlink has these two of its own.
    assert told == set(map(error_name, Kind)) - {"InvalidParams", "MethodNotFound"}


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for below in part:
            yield from references(below)


def test_whatever_is_referred_to_is_there_and_nothing_else() -> None:
    there = {
        f"#/components/{kind}/{name}"
        for kind, parts in DOCUMENT["components"].items()
        for name in parts
    }
    assert set(references(DOCUMENT)) == there


@pytest.mark.parametrize("name", ["Operation", "Report", "Problem", "Line", "Target", "NetState"])
def test_types_have_the_names_of_the_page(name: str) -> None:
    assert name in DOCUMENT["components"]["schemas"]
    assert f"\ntype {name} (" in description()


def test_the_interface_is_the_one_that_is_served() -> None:
    assert f"\ninterface {INTERFACE}\n" in description()


def closed_objects(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if part.get("additionalProperties") is False:
            yield part
        part = list(part.values())
    if isinstance(part, list):
        for below in part:
            yield from closed_objects(below)


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.json")), ids=lambda each: each.name)
def test_no_object_is_published_that_may_only_be_empty(path: Path) -> None:
    """But for those that say so by their model's name: nothing is in them."""
    bare = [
        each["title"]
        for each in closed_objects(json.loads(path.read_text()))
        if not each.get("properties") and not each.get("patternProperties")
    ]
    assert set(bare) <= {"Released", "ReleasedResult"}
