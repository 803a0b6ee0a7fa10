"""The JSON Schema of a state, for those who make one elsewhere: `python -m vdpad.state.schema`."""

import json

from vdpad.state.model import NetState


def schema() -> str:
    """The schema as text; docs/netstate.schema.json holds it."""
    return json.dumps(NetState.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
