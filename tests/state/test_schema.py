"""The published JSON Schema is the model's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vdpad.state.model import NetState
from vdpad.state.schema import schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "netstate.schema.json"


def test_the_published_schema_is_up_to_date() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == schema(), "run `make schema` to renew it"


def objects(schema: object) -> Iterator[dict[str, Any]]:
    """Every object schema below this one."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for below in schema:
            yield from objects(below)


def test_the_schema_has_every_part_of_the_model() -> None:
    assert json.loads(schema())["properties"].keys() == NetState.model_fields.keys()


def test_the_schema_takes_no_null_and_no_unknown_key() -> None:
    assert "null" not in schema()
    closed = [each["additionalProperties"] for each in objects(json.loads(schema()))]
    assert closed
    assert not any(closed)
