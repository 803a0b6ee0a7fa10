"""The JSON Schemas of a state and of a device state, for those who make or read one elsewhere.

`python -m vdpad.state.schema netstate` and `… devicestate` print them.
"""

import json
import sys
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from pydantic_core import core_schema

from vdpad.state.formats.device_state import DeviceState
from vdpad.state.model import NetState
from vdpad.state.strict_model import StrictModel


class StrictSchema(GenerateJsonSchema):
    """pydantic's generator, as strict as the model itself."""

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        """Says nothing of a default that is no JSON: a part without a value is absent."""
        if kind != "non-serializable-default":
            super().emit_warning(kind, detail)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        """Without `default: null`: a part that is absent is not null."""
        made = super().default_schema(schema)
        if "default" in made and made["default"] is None:
            del made["default"]
        return made

    def dict_schema(self, schema: core_schema.DictSchema) -> dict[str, Any]:
        """With no keys but those of the pattern, where there is one."""
        made = super().dict_schema(schema)
        return made | {"additionalProperties": False} if "patternProperties" in made else made


def netstate() -> str:
    """A state's schema as text; docs/netstate.schema.json holds it."""
    return _schema(NetState, "netstate")


def devicestate() -> str:
    """A device state's; docs/devicestate.schema.json holds it."""
    return _schema(DeviceState, "devicestate")


def _schema(model: type[StrictModel], name: str) -> str:
    made = {
        "$schema": StrictSchema.schema_dialect,
        "$id": f"urn:vdpad:{name}:1",
        **model.model_json_schema(schema_generator=StrictSchema),
    }
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print({"netstate": netstate, "devicestate": devicestate}[sys.argv[1]](), end="")
