"""The field types of a state: how each stands in JSON, and what it is in memory.

| in JSON                       | in memory                       |
|-------------------------------|---------------------------------|
| "52:54:00:12:34:56"           | bytes (6)                       |
| ["MQ", "bit_77"]              | frozenset of bit numbers        |
| [1, 5, [100, 200]]            | ascending tuple of VLAN ids     |
| "6d5a…"                       | bytes                           |

Sets are kept in one canonical form, so that equal settings make equal states. In Python (not JSON)
the in-memory form is taken as well.
"""

import re
from collections.abc import Iterator, Sequence
from types import NoneType
from typing import Annotated, Any, get_args

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError

from vdpad.state.problems import invalid
from vdpad.virtio.bits import BitNames, UnknownName
from vdpad.virtio.commands import format_mac
from vdpad.virtio.config import GUEST_OFFLOADS, HASH_TYPES
from vdpad.virtio.features import FEATURES

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_HEX = re.compile(r"([0-9a-fA-F]{2})*")
_MULTICAST_BIT = 1
_MAX_VID = 4095
# virtio 1.4, "Receive-side scaling": the key's length is one byte.
_MAX_KEY = 255


def is_multicast(mac: bytes) -> bool:
    """Whether the first octet's lowest bit, the group bit, is set."""
    return bool(mac[0] & _MULTICAST_BIT)


class OrAbsent:
    """Marks a field `T | None` as one that may be left out, and is None then.

    A null in JSON is still refused: it is validated as T alone, which also keeps a union's branch
    names out of the paths of problems.
    """

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        (inner,) = (each for each in get_args(source) if each is not NoneType)
        return handler.generate_schema(inner)


def _parse_mac(value: Any) -> bytes:
    if isinstance(value, bytes) and len(value) == 6:
        return value
    if not isinstance(value, str) or not _MAC.fullmatch(value):
        raise PydanticCustomError("mac", 'expected a MAC address such as "52:54:00:12:34:56"')
    return bytes.fromhex(value.replace(":", ""))


def _parse_key(value: Any) -> bytes:
    if isinstance(value, bytes) and len(value) <= _MAX_KEY:
        return value
    if not isinstance(value, str) or len(value) > 2 * _MAX_KEY or not _HEX.fullmatch(value):
        raise PydanticCustomError("key", "expected at most 255 bytes in hexadecimal digits")
    return bytes.fromhex(value)


def _bits(names: BitNames) -> Any:
    """The pydantic parts of a field that is a list of names of bits."""

    def parse(value: Any) -> frozenset[int]:
        if isinstance(value, frozenset) and all(0 <= bit < names.width for bit in value):
            return value
        if not isinstance(value, list):
            raise PydanticCustomError(
                "list", "expected a list of names of {kind}s", {"kind": names.kind}
            )
        bits: set[int] = set()
        for at, name in enumerate(value):
            bits.add(_new_bit(names, bits, at, name))
        return frozenset(bits)

    schema = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    return (
        PlainValidator(parse),
        PlainSerializer(names.names, return_type=list[str]),
        WithJsonSchema({**schema, "description": f"Names of {names.kind}s, or bit_N."}),
    )


def _new_bit(names: BitNames, known: set[int], at: int, name: Any) -> int:
    if not isinstance(name, str):
        raise invalid(((at,), "string", f"expected the name of a {names.kind}"))
    try:
        bit = names.bit(name)
    except UnknownName as error:
        raise invalid(((at,), "unknown-name", str(error))) from None
    if bit in known:
        raise invalid(((at,), "duplicate", f"{names.name(bit)} is there twice"))
    return bit


def _vlan_span(at: int, entry: Any) -> range:
    if type(entry) is int and 0 <= entry <= _MAX_VID:
        return range(entry, entry + 1)
    if isinstance(entry, list) and len(entry) == 2 and all(type(end) is int for end in entry):
        first, last = entry
        if 0 <= first <= last <= _MAX_VID:
            return range(first, last + 1)
    raise invalid(
        ((at,), "vlan", f"expected a VLAN id 0 … {_MAX_VID}, or an ascending range [first, last]")
    )


def _parse_vlans(value: Any, info: ValidationInfo) -> tuple[int, ...]:
    if info.mode == "python" and isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, list):
        raise PydanticCustomError("list", "expected a list of VLAN ids and ranges of them")
    seen: set[int] = set()
    for at, entry in enumerate(value):
        for vid in _vlan_span(at, entry):
            if vid in seen:
                raise invalid(((at,), "duplicate", f"VLAN {vid} is there twice"))
            seen.add(vid)
    return tuple(sorted(seen))


def runs(numbers: Sequence[int]) -> Iterator[int | list[int]]:
    """Ascending numbers with each run of three or more as [first, last]."""
    start = 0
    for at in range(1, len(numbers) + 1):
        if at < len(numbers) and numbers[at] == numbers[at - 1] + 1:
            continue
        run = numbers[start:at]
        if len(run) > 2:
            yield [run[0], run[-1]]
        else:
            yield from run
        start = at


def _show_vlans(vids: tuple[int, ...]) -> list[int | list[int]]:
    return list(runs(vids))


_VID_SCHEMA = {"type": "integer", "minimum": 0, "maximum": _MAX_VID}

MacAddress = Annotated[
    bytes,
    PlainValidator(_parse_mac),
    PlainSerializer(format_mac, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_MAC.pattern}$"}),
]
Key = Annotated[
    bytes,
    PlainValidator(_parse_key),
    PlainSerializer(bytes.hex, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_HEX.pattern}$", "maxLength": 2 * _MAX_KEY}),
]
Vlans = Annotated[
    tuple[int, ...],
    PlainValidator(_parse_vlans),
    PlainSerializer(_show_vlans, return_type=list[int | list[int]]),
    WithJsonSchema(
        {
            "type": "array",
            "items": {
                "anyOf": [
                    _VID_SCHEMA,
                    {"type": "array", "items": _VID_SCHEMA, "minItems": 2, "maxItems": 2},
                ]
            },
        }
    ),
]
FeatureNames = Annotated[frozenset[int], *_bits(FEATURES)]
HashTypeNames = Annotated[frozenset[int], *_bits(HASH_TYPES)]
OffloadNames = Annotated[frozenset[int], *_bits(GUEST_OFFLOADS)]

U16 = Annotated[int, Field(ge=0, le=0xFFFF)]
U32 = Annotated[int, Field(ge=0, le=0xFFFFFFFF)]
