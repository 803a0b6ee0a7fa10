"""The JSON Schema of a selftest's result, for those who read one elsewhere.

`python -m vdpad.conformance.schema` prints it; docs/selftest.schema.json holds it.
"""

import json

from vdpad.conformance.self_test import SelfTest
from vdpad.state.schema import StrictSchema


def selftest_schema() -> str:
    """The schema as text."""
    made = {
        "$schema": StrictSchema.schema_dialect,
        "$id": "urn:vdpad:selftest:1",
        **SelfTest.model_json_schema(schema_generator=StrictSchema),
    }
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(selftest_schema(), end="")
