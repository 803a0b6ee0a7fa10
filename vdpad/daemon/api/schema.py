"""The API for machines: as an OpenRPC document, and in Varlink's language.

`python -m vdpad.daemon.api.schema openrpc` and `… varlink` print them. docs/openrpc.json holds the
one, and io.vdpad.Daemon.varlink beside this file the other, which the daemon tells who asks it.
"""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

import vdpad
from vdpad.daemon.api.api import WATCH
from vdpad.daemon.api.methods import METHODS
from vdpad.daemon.api.params import WatchParams
from vdpad.daemon.api.results import DATA
from vdpad.daemon.api.varlink import INTERFACE, REPLIES, WatchReply, called
from vdpad.service.envelope import CODES
from vdpad.service.refusal import Kind
from vdpad.service.varlink.description import MethodShape, describe
from vdpad.service.varlink.interface import error_name
from vdpad.state.schema import StrictSchema

_SAYS = """\
Restores virtio-net control-virtqueue state on vDPA devices. docs/api.md is the contract.

A parameter that is optional may be left out, or null. Where parameters are not in order the error
is org.varlink.service.InvalidParameter, which has a `message` and all `problems` beside the first
parameter. Descriptors ride on the message (SCM_RIGHTS).\
"""

_SCHEMAS = "#/components/schemas/"
_ERRORS = "#/components/errors/"

# Varlink has errors of its own for these.
_VARLINKS_OWN = (Kind.METHOD_NOT_FOUND, Kind.INVALID_PARAMS)

Json = dict[str, Any]


def varlink() -> str:
    """The interface's description."""
    methods = [
        MethodShape(called(name), each.does, each.params, REPLIES.get(name, each.result))
        for name, each in METHODS.items()
    ]
    watch = "All in these states, oldest first, and then each that changes; only with `more`."
    methods.append(MethodShape(called(WATCH), watch, WatchParams, WatchReply))
    errors = {error_name(kind): data for kind, data in DATA.items() if kind not in _VARLINKS_OWN}
    return _as_on_the_page(describe(INTERFACE, _SAYS, methods, errors, StrictSchema))


def openrpc() -> str:
    """The document (spec.open-rpc.org); the `data` of an error is a schema of its `error.data`."""
    inputs: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = []
    for name, method in METHODS.items():
        inputs.append((name, "validation", TypeAdapter(method.params)))
        inputs.append((name, "serialization", TypeAdapter(method.result)))
    for kind, data in DATA.items():
        inputs.append((kind.value, "serialization", TypeAdapter(data)))
    schemas, whole = TypeAdapter.json_schemas(
        inputs, schema_generator=StrictSchema, ref_template=f"{_SCHEMAS}{{model}}"
    )
    defined = whole["$defs"]
    params = {name: _taken(schemas[name, "validation"], defined) for name in METHODS}
    errors = {kind.value: _taken(schemas[kind.value, "serialization"], defined) for kind in DATA}
    document = {
        "$schema": "https://meta.open-rpc.org/",
        "openrpc": "1.3.2",
        "info": {
            "title": "vdpad",
            "version": vdpad.__version__,
            "description": "Restores virtio-net control-virtqueue state on vDPA devices, over "
            "Unix datagrams. docs/api.md is the contract.",
            "license": {"name": "Apache-2.0"},
        },
        "methods": [
            _method(name, params[name], schemas[name, "serialization"]) for name in METHODS
        ],
        "components": {
            "schemas": {name: schema for name, schema in defined.items() if name not in _INLINE},
            "errors": {kind.value: _error(kind, errors[kind.value]) for kind in DATA},
        },
    }
    return _as_on_the_page(json.dumps(document, indent=2, ensure_ascii=False)) + "\n"


def _as_on_the_page(text: str) -> str:
    """With types by their names in docs/api.md, where there is an Operation and a Target."""
    return re.sub(r"\b(?:Any(Target)|([A-Z]\w+)(?:Result|Params))\b", r"\1\2", text)


def _taken(reference: Json, defined: Mapping[str, Json]) -> Json:
    """What a reference means."""
    return defined[reference["$ref"].removeprefix(_SCHEMAS)]


# Parameters stand with their methods, and data with their errors. Params is no model of its own.
_INLINE = {
    "Params",
    *(each.params.__name__ for each in METHODS.values()),
    *(each.__name__ for each in DATA.values()),
}


def _method(name: str, params: Json, result: Json) -> Json:
    required = params.get("required", ())
    return {
        "name": name,
        "summary": METHODS[name].does,
        "paramStructure": "by-name",
        "params": [
            {"name": each, "required": each in required, "schema": schema}
            for each, schema in params.get("properties", {}).items()
        ],
        "result": {"name": "result", "schema": result},
        "errors": [{"$ref": f"{_ERRORS}{kind.value}"} for kind in DATA],
    }


def _error(kind: Kind, data: Json) -> Json:
    with_kind = {
        **data,
        "properties": {"kind": {"const": kind.value}, **data.get("properties", {})},
        "required": ["kind", *data.get("required", ())],
    }
    return {"code": CODES[kind], "message": kind.value, "data": with_kind}


if __name__ == "__main__":
    print({"openrpc": openrpc, "varlink": varlink}[sys.argv[1]](), end="")
