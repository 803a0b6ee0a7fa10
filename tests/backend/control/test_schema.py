"""What is published of the control socket's API for machines is what its models say."""

import json
import re
from pathlib import Path

from tests.support.pages import quoted, table
from vdpad.api.describing import openrpc_document, varlink_description
from vdpad.backend.control import schema
from vdpad.backend.control.methods import METHODS, WATCH
from vdpad.backend.control.results import DATA
from vdpad.backend.control.varlink import INTERFACE, description
from vdpad.service.varlink.interface import error_name

DOCS = Path(__file__).parents[3] / "docs"
DOCUMENT = json.loads(openrpc_document(schema.API))


def test_what_is_published_is_up_to_date() -> None:
    published = (DOCS / "backend.openrpc.json").read_text()
    assert published == openrpc_document(schema.API), "run `make schema`"
    assert description() == varlink_description(schema.API), "run `make schema`"


def test_every_method_and_error_is_described() -> None:
    assert [each["name"] for each in DOCUMENT["methods"]] == list(METHODS)
    assert f"\ninterface {INTERFACE}\n" in description()
    told = set(re.findall(r"^method (\w+)", description(), re.M))
    assert told == {each.capitalize() for each in (*METHODS, WATCH)}
    errors = set(re.findall(r"^error (\w+)", description(), re.M))
    assert errors | {"InvalidParams", "MethodNotFound"} == set(map(error_name, DATA))


def test_types_have_the_names_of_the_page() -> None:
    for name in ("Report", "Problem", "Line", "NetState"):
        assert name in DOCUMENT["components"]["schemas"]
        assert f"\ntype {name} (" in description()


def test_the_page_of_the_api_tells_every_method() -> None:
    rows = table((DOCS / "api.md").read_text(), "method of a back end", "parameters", "result")
    assert [quoted(name)[0] for name, *_ in rows] == [*METHODS, WATCH]
