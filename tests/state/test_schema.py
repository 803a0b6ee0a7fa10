"""The published JSON Schema is the model's."""

import json
from pathlib import Path

from vdpad.state.model import NetState
from vdpad.state.schema import schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "netstate.schema.json"


def test_the_published_schema_is_up_to_date() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == schema(), "run `make schema` to renew it"


def test_the_schema_is_the_model_s() -> None:
    assert json.loads(schema()) == NetState.model_json_schema()
