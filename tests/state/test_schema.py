"""The published JSON Schemas are the models'."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vdpad.state.formats.device_state import DeviceState
from vdpad.state.model import NetState
from vdpad.state.schema import devicestate, netstate
from vdpad.state.strict_model import StrictModel

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS = {
    "netstate.schema.json": (netstate(), NetState),
    "devicestate.schema.json": (devicestate(), DeviceState),
}
each_schema = pytest.mark.parametrize(("schema", "model"), SCHEMAS.values(), ids=SCHEMAS.keys())


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schema_is_up_to_date(name: str) -> None:
    schema, _ = SCHEMAS[name]
    assert (DOCS / name).read_text(encoding="utf-8") == schema, "run `make schema` to renew it"


def objects(schema: object) -> Iterator[dict[str, Any]]:
    """Every object schema below this one."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for below in schema:
            yield from objects(below)


@each_schema
def test_the_schema_has_every_part_of_the_model(schema: str, model: type[StrictModel]) -> None:
    assert json.loads(schema)["properties"].keys() == model.model_fields.keys()


@each_schema
def test_the_schema_takes_no_null_and_no_unknown_key(schema: str, model: object) -> None:
    assert "null" not in schema
    closed = [each["additionalProperties"] for each in objects(json.loads(schema))]
    assert closed
    assert not any(closed)
