"""A state as the API takes it: JSON, docs/netstate.schema.json.

It is the only format that holds every part, so nothing is ever missing from it.
"""

import json
import textwrap
from typing import Any

from pydantic import ValidationError

from vdpad.state.found import FormatError, Found
from vdpad.state.model import NetState
from vdpad.state.names import TooManyNames, refuse_many_names
from vdpad.state.problems import problems_of
from vdpad.virtio.features import unmet_requirements
from vdpad.wire import strict_json
from vdpad.wire.strict_json import Most

__all__ = ["MAX_SIZE", "decode", "encode", "plain"]

MAX_SIZE = 4 * 1024 * 1024
"""In bytes. The longest RSS table there is takes 0.5 MiB, and a MAC table of 65536 addresses 1.4.
Stops a file or a pipe without an end from filling memory."""

# Two tables of 65536 entries, and all the rest; and coalescing for 10000 queues.
MOST = Most(values=(1 << 17) + (1 << 13), containers=1 << 14, names=1 << 15)

_WIDTH = 100
_INDENT = "  "
# A list whose JSON is longer stands on lines of its own.
_SHORT_LIST = 72


def decode(data: bytes) -> Found:
    """The state that JSON tells, or what is wrong with it.

    Raises:
        FormatError: it is no JSON object (with each key once), longer than MAX_SIZE, or holds more
            than any state.
    """
    if len(data) > MAX_SIZE:
        raise FormatError(f"expected a state of at most {MAX_SIZE} bytes, got more")
    _check_json(data)
    try:
        state = NetState.model_validate_json(data)
    except ValidationError as error:
        return Found("", None, tuple(problems_of(error)))
    return Found("", state, notes=unmet_requirements(state.features))


def _check_json(data: bytes) -> None:
    try:
        value = strict_json.loads(data, MOST)
    except strict_json.NotJson as error:
        raise FormatError(str(error)) from error
    if not isinstance(value, dict):
        raise FormatError(f"expected a JSON object, got {type(value).__name__}")
    try:
        refuse_many_names(value, value)
    except TooManyNames as error:
        raise FormatError(str(error)) from error


def plain(state: NetState) -> dict[str, Any]:
    """The state as plain values for JSON: equal states give equal ones, in the same order."""
    values = state.model_dump(mode="json", exclude_none=True)
    queues = values.get("coalescing", {}).get("queues")
    if queues is not None:
        values["coalescing"]["queues"] = {key: queues[key] for key in sorted(queues, key=int)}
    return values


def encode(state: NetState) -> bytes:
    """The state for people and programs: a line for each value, its lists wrapped."""
    return f"{layout(plain(state))}\n".encode()


def layout(value: Any, indent: str = "") -> str:
    """JSON as it stands in a state's file."""
    if isinstance(value, dict) and value:
        inner = indent + _INDENT
        members = (
            f"{inner}{json.dumps(key)}: {layout(each, inner)}" for key, each in value.items()
        )
        return "{\n" + ",\n".join(members) + f"\n{indent}}}"
    text = json.dumps(value)
    return text if len(text) <= _SHORT_LIST else _wrapped(value, indent + _INDENT)


def _wrapped(value: Any, inner: str) -> str:
    """A list over several lines, each as full as it may be; whatever else it is stays whole."""
    if not isinstance(value, list):
        return json.dumps(value)
    lines = textwrap.fill(
        json.dumps(value)[1:-1],
        _WIDTH,
        initial_indent=inner,
        subsequent_indent=inner,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"[\n{lines}\n{inner[len(_INDENT) :]}]"
