"""An API for machines: as an OpenRPC document, and in Varlink's language."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

import vdpad
from vdpad.api.params import Params
from vdpad.service.envelope import CODES
from vdpad.service.refusal import Kind
from vdpad.service.varlink.description import MethodShape, describe
from vdpad.service.varlink.interface import called, error_name
from vdpad.state.schema import StrictSchema

_SCHEMAS = "#/components/schemas/"
_ERRORS = "#/components/errors/"

# Varlink has errors of its own for these.
_VARLINKS_OWN = (Kind.METHOD_NOT_FOUND, Kind.INVALID_PARAMS)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ApiMethod:
    """What a method takes and gives."""

    does: str
    """In a sentence."""
    params: type[Params]
    result: Any
    """A type that pydantic has a schema for."""


@dataclass(frozen=True, slots=True)
class MachineReadable:
    """An API, as far as it can be told to machines."""

    title: str
    does: str
    """In a sentence, or a few."""
    methods: Mapping[str, ApiMethod]
    data: Mapping[Kind, type[Any]]
    """What goes with each error, beside its kind."""
    interface: str
    """Its Varlink interface."""
    says: str
    """A few lines about that."""
    replies: Mapping[str, type[Any]] = field(default_factory=dict)
    """What a reply's parameters are in Varlink, where they are not the method's result."""
    series: Sequence[MethodShape] = ()
    """The methods that only Varlink has."""


def varlink_description(api: MachineReadable) -> str:
    """The Varlink interface's description."""
    methods = [
        MethodShape(called(name), each.does, each.params, api.replies.get(name, each.result))
        for name, each in api.methods.items()
    ]
    errors = {
        error_name(kind): data for kind, data in api.data.items() if kind not in _VARLINKS_OWN
    }
    return _as_on_the_page(
        describe(api.interface, api.says, [*methods, *api.series], errors, StrictSchema)
    )


def openrpc_document(api: MachineReadable) -> str:
    """The document (spec.open-rpc.org); the `data` of an error is a schema of its `error.data`."""
    schemas, whole = TypeAdapter.json_schemas(
        _inputs(api), schema_generator=StrictSchema, ref_template=f"{_SCHEMAS}{{model}}"
    )
    defined = whole["$defs"]
    inline = _inline(api)
    document = {
        "$schema": "https://meta.open-rpc.org/",
        "openrpc": "1.3.2",
        "info": {
            "title": api.title,
            "version": vdpad.__version__,
            "description": api.does,
            "license": {"name": "Apache-2.0"},
        },
        "methods": [
            _method(
                name,
                api,
                _taken(schemas[name, "validation"], defined),
                schemas[name, "serialization"],
            )
            for name in api.methods
        ],
        "components": {
            "schemas": {name: schema for name, schema in defined.items() if name not in inline},
            "errors": {
                kind.value: _error(kind, _taken(schemas[kind.value, "serialization"], defined))
                for kind in api.data
            },
        },
    }
    return _as_on_the_page(json.dumps(document, indent=2, ensure_ascii=False)) + "\n"


def _inputs(api: MachineReadable) -> list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]]:
    inputs: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = []
    for name, method in api.methods.items():
        inputs.append((name, "validation", TypeAdapter(method.params)))
        inputs.append((name, "serialization", TypeAdapter(method.result)))
    for kind, data in api.data.items():
        inputs.append((kind.value, "serialization", TypeAdapter(data)))
    return inputs


def _as_on_the_page(text: str) -> str:
    """With types by their names in docs/api.md, where there is an Operation and a Target."""
    return re.sub(r"\b(?:Any(Target|Ring)|([A-Z]\w+)(?:Result|Params))\b", r"\1\2", text)


def _taken(reference: Json, defined: Mapping[str, Json]) -> Json:
    """What a reference means."""
    return defined[reference["$ref"].removeprefix(_SCHEMAS)]


def _inline(api: MachineReadable) -> set[str]:
    """Parameters stand with their methods, and data with their errors; Params is no model."""
    return {
        "Params",
        *(each.params.__name__ for each in api.methods.values()),
        *(each.__name__ for each in api.data.values()),
    }


def _method(name: str, api: MachineReadable, params: Json, result: Json) -> Json:
    required = params.get("required", ())
    return {
        "name": name,
        "summary": api.methods[name].does,
        "paramStructure": "by-name",
        "params": [
            {"name": each, "required": each in required, "schema": schema}
            for each, schema in params.get("properties", {}).items()
        ],
        "result": {"name": "result", "schema": result},
        "errors": [{"$ref": f"{_ERRORS}{kind.value}"} for kind in api.data],
    }


def _error(kind: Kind, data: Json) -> Json:
    with_kind = {
        **data,
        "properties": {"kind": {"const": kind.value}, **data.get("properties", {})},
        "required": ["kind", *data.get("required", ())],
    }
    return {"code": CODES[kind], "message": kind.value, "data": with_kind}


DESCRIBED_AS: Mapping[str, Callable[[MachineReadable], str]] = {
    "openrpc": openrpc_document,
    "varlink": varlink_description,
}
"""By what a schema is called where it is asked for."""
