"""JSON Schema 2020-12, as much of it as the published documents use, and strict about the rest.

A keyword that it does not know is an error, and so is a format: a schema never fits by being read
too little of.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from pydantic import TypeAdapter
from pydantic.types import AwareDatetime

Json = Mapping[str, Any]

# What says nothing of values. "discriminator" is OpenAPI's hint, beside a "oneOf".
_REMARKS = {"title", "description", "default", "examples", "discriminator"}

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "null": lambda value: value is None,
}
_FORMATS: Mapping[str, Callable[[str], object]] = {
    "date-time": TypeAdapter(AwareDatetime).validate_python,
}


def faults(value: Any, schema: Json, document: Json, at: str = "$") -> list[str]:
    """What of a value a schema does not take, by path; empty where it takes all of it.

    Args:
        value: as json.loads gives it.
        schema: which it is held against.
        document: the one that `$ref` points into.
        at: the value's path.
    """
    return [
        fault
        for keyword, wanted in schema.items()
        if keyword not in _REMARKS
        for fault in _KEYWORDS[keyword](value, wanted, schema, document, at)
    ]


def _told(is_so: bool, at: str, what: str) -> list[str]:
    return [] if is_so else [f"{at}: {what}"]


def _ref(value: Any, wanted: str, _: Json, document: Json, at: str) -> list[str]:
    meant: Any = document
    for each in wanted.removeprefix("#/").split("/"):
        meant = meant[each]
    return faults(value, meant, document, at)


def _type(value: Any, wanted: str, _: Json, __: Json, at: str) -> list[str]:
    return _told(_TYPES[wanted](value), at, f"expected {wanted}, got {value!r}")


def _const(value: Any, wanted: Any, _: Json, __: Json, at: str) -> list[str]:
    same = value == wanted and type(value) is type(wanted)
    return _told(same, at, f"expected {wanted!r}, got {value!r}")


def _enum(value: Any, wanted: list[Any], _: Json, __: Json, at: str) -> list[str]:
    return _told(value in wanted, at, f"expected one of {wanted}, got {value!r}")


def _any_of(value: Any, wanted: list[Json], _: Json, document: Json, at: str) -> list[str]:
    each = [faults(value, one, document, at) for one in wanted]
    return [] if [] in each else list(chain(*each))


def _one_of(value: Any, wanted: list[Json], _: Json, document: Json, at: str) -> list[str]:
    each = [faults(value, one, document, at) for one in wanted]
    fitting = each.count([])
    return [] if fitting == 1 else [f"{at}: fits {fitting} of oneOf", *chain(*each)]


def _required(value: Any, wanted: list[str], _: Json, __: Json, at: str) -> list[str]:
    missing = set(wanted) - set(value) if isinstance(value, dict) else set()
    return [f"{at}: has no {each}" for each in sorted(missing)]


def _properties(value: Any, wanted: Json, _: Json, document: Json, at: str) -> list[str]:
    return _all(
        (value[name], each, document, f"{at}.{name}")
        for name, each in wanted.items()
        if isinstance(value, dict) and name in value
    )


def _all(parts: Iterator[tuple[Any, Json, Json, str]]) -> list[str]:
    return [fault for each in parts for fault in faults(*each)]


def _pattern_properties(value: Any, wanted: Json, _: Json, document: Json, at: str) -> list[str]:
    return _all(
        (value[name], each, document, f"{at}.{name}")
        for pattern, each in wanted.items()
        for name in (value if isinstance(value, dict) else ())
        if re.search(pattern, name)
    )


def _additional(
    value: Any, wanted: bool | Json, schema: Json, document: Json, at: str
) -> list[str]:
    if not isinstance(value, dict) or wanted is True:
        return []
    rest = [
        name
        for name in value
        if name not in schema.get("properties", {})
        and not any(re.search(each, name) for each in schema.get("patternProperties", {}))
    ]
    if wanted is False:
        return [f"{at}.{name}: is not known" for name in rest]
    return _all((value[name], wanted, document, f"{at}.{name}") for name in rest)


def _items(value: Any, wanted: Json, _: Json, document: Json, at: str) -> list[str]:
    there = value if isinstance(value, list) else []
    return _all((each, wanted, document, f"{at}.{index}") for index, each in enumerate(there))


def _format(value: Any, wanted: str, _: Json, __: Json, at: str) -> list[str]:
    if isinstance(value, str):
        _FORMATS[wanted](value)
    return []


def _bound(of: type, fits: Callable[[Any, int], bool]) -> Callable[..., list[str]]:
    def check(value: Any, wanted: int, _: Json, __: Json, at: str) -> list[str]:
        concerned = isinstance(value, of) and not isinstance(value, bool)
        return _told(not concerned or fits(value, wanted), at, f"expected {wanted}, got {value!r}")

    return check


_KEYWORDS: Mapping[str, Callable[..., list[str]]] = {
    "$ref": _ref,
    "type": _type,
    "const": _const,
    "enum": _enum,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "required": _required,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional,
    "items": _items,
    "format": _format,
    "minimum": _bound(int, lambda value, least: value >= least),
    "maximum": _bound(int, lambda value, most: value <= most),
    "exclusiveMaximum": _bound(int, lambda value, past: value < past),
    "minItems": _bound(list, lambda value, least: len(value) >= least),
    "maxItems": _bound(list, lambda value, most: len(value) <= most),
    "uniqueItems": lambda value, _, __, ___, at: _told(
        not isinstance(value, list) or all(value.count(each) == 1 for each in value), at, "twice"
    ),
    "minLength": _bound(str, lambda value, least: len(value) >= least),
    "maxLength": _bound(str, lambda value, most: len(value) <= most),
    "pattern": lambda value, wanted, _, __, at: _told(
        not isinstance(value, str) or bool(re.search(wanted, value)), at, f"{value!r}: no {wanted}"
    ),
}
