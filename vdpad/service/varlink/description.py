"""An interface in Varlink's definition language (varlink.org, "Interface Definition"), from models.

Their JSON Schemas say what the parameters and replies are. What the language has no words for is
told as what a Varlink client can make and read: values of several types are an `object`, which is
any JSON there; of several objects all fields are told, those that not each of them has as optional;
names that are no Varlink names are strings.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

Schema = Mapping[str, Any]
_Input = tuple[str, JsonSchemaMode, TypeAdapter[Any]]

_NAME = re.compile(r"[A-Za-z](_?[A-Za-z0-9])*")
_REFERENCE = "#/$defs/"
_SCALARS = {"string": "string", "boolean": "bool", "integer": "int", "number": "float"}


@dataclass(frozen=True, slots=True)
class MethodShape:
    """A method as an interface describes it."""

    name: str
    does: str
    """A sentence, or lines of them."""
    parameters: Any
    """A type that pydantic has a schema for: an object's."""
    reply: Any
    """Likewise."""


def describe(
    interface: str,
    says: str,
    methods: Sequence[MethodShape],
    errors: Mapping[str, Any],
    generator: type[GenerateJsonSchema] = GenerateJsonSchema,
) -> str:
    """The description of an interface.

    Args:
        interface: its name.
        says: a sentence about it, or lines of them.
        methods: in their order.
        errors: what goes with each, beside its `message`.
        generator: makes the schemas.
    """
    inputs: list[_Input] = [
        *((each.name, "validation", TypeAdapter(each.parameters)) for each in methods),
        *((each.name, "serialization", TypeAdapter(each.reply)) for each in methods),
        *((f"error {name}", "serialization", TypeAdapter(data)) for name, data in errors.items()),
    ]
    schemas, whole = TypeAdapter.json_schemas(inputs, schema_generator=generator)
    types = _Types(whole.get("$defs", {}))
    called = [
        f"{_comment(each.does)}method {each.name}"
        f"{types.struct(schemas[each.name, 'validation'])} -> "
        f"{types.struct(schemas[each.name, 'serialization'])}"
        for each in methods
    ]
    raised = [
        f"error {name} {types.struct(schemas[f'error {name}', 'serialization'], 'message: string')}"
        for name in errors
    ]
    head = f"{_comment(says)}interface {interface}"
    return "\n\n".join([head, *types.definitions(), *called, *raised]) + "\n"


class _Types:
    """The types that methods and errors name, as they turn up."""

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = schemas
        self._defined: dict[str, str] = {}

    def definitions(self) -> Iterator[str]:
        """Each of them, by name."""
        return (self._defined[name] for name in sorted(self._defined))

    def struct(self, schema: Schema, *first: str) -> str:
        """The fields of an object, in brackets.

        Args:
            schema: the object's, a union of objects', or a reference to such.
            first: fields before all others.
        """
        fields = [*first]
        for name, (field, required) in self._fields(schema).items():
            type_ = self._type(field)
            optional = "" if required or type_.startswith("?") else "?"
            fields.append(f"{name}: {optional}{type_}")
        return f"(\n{_indented(fields)}\n)" if fields else "()"

    def _fields(self, schema: Schema) -> dict[str, tuple[Schema, bool]]:
        """Each field's schema, and whether it is always there."""
        schema = self._resolved(schema)
        if (options := _options(schema)) is None:
            required = schema.get("required", ())
            return {
                name: (field, name in required)
                for name, field in schema.get("properties", {}).items()
            }
        each = [self._fields(option) for option in options]
        merged: dict[str, tuple[Schema, bool]] = {}
        for fields in each:
            for name, (field, _) in fields.items():
                always = all(name in others and others[name][1] for others in each)
                merged.setdefault(name, (field, always))
        return merged

    def _type(self, schema: Schema) -> str:
        reference = schema.get("$ref")
        if reference is not None:
            return self._named(reference.removeprefix(_REFERENCE))
        options = _options(schema)
        if options is not None:
            return self._of_options(options)
        if "enum" in schema:
            return _enumeration(schema["enum"])
        if "const" in schema:
            return "string"
        kind = schema.get("type")
        if kind == "array":
            return f"[]{self._type(schema.get('items', {}))}"
        if kind == "object":
            return self._of_object(schema)
        return _SCALARS.get(str(kind), "object")

    def _named(self, name: str) -> str:
        """A type by its name, defined where it is one that can be."""
        schema = self._schemas[name]
        if "enum" in schema and (members := _enumeration(schema["enum"])) != "string":
            self._defined[name] = f"{_comment(schema.get('description', ''))}type {name} {members}"
        elif self._is_struct(schema):
            if name not in self._defined:
                struct = self.struct(schema)
                comment = _comment(schema.get("description", ""))
                self._defined[name] = f"{comment}type {name} {struct}"
        else:
            return self._type(schema)
        return name

    def _of_options(self, options: Sequence[Schema]) -> str:
        rest = [each for each in options if each.get("type") != "null"]
        nullable = "?" if len(rest) < len(options) else ""
        if len(rest) == 1:
            return f"{nullable}{self._type(rest[0])}"
        return f"{nullable}object"

    def _of_object(self, schema: Schema) -> str:
        values = [*schema.get("patternProperties", {}).values()]
        if isinstance(schema.get("additionalProperties"), Mapping):
            values.append(schema["additionalProperties"])
        if "properties" in schema or len(values) != 1:
            return self.struct(schema) if "properties" in schema else "object"
        return f"[string]{self._type(values[0])}"

    def _is_struct(self, schema: Schema) -> bool:
        options = _options(schema)
        if options is None:
            return "properties" in schema
        return all(self._is_struct(self._resolved(each)) for each in options)

    def _resolved(self, schema: Schema) -> Schema:
        reference = schema.get("$ref")
        return schema if reference is None else self._schemas[reference.removeprefix(_REFERENCE)]


def _options(schema: Schema) -> Sequence[Schema] | None:
    options: Sequence[Schema] | None = schema.get("anyOf", schema.get("oneOf"))
    return options


def _enumeration(values: Sequence[object]) -> str:
    if all(isinstance(each, str) and _NAME.fullmatch(each) for each in values):
        return f"({', '.join(map(str, values))})"
    return "string"


def _indented(fields: Sequence[str]) -> str:
    return ",\n".join(f"  {field}".replace("\n", "\n  ") for field in fields)


def _comment(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())
