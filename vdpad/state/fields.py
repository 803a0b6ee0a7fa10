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
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError

from vdpad.errors import VdpadError
from vdpad.state.problems import InvalidPart, first_of, invalid
from vdpad.virtio.bits import BitNames, UnknownName
from vdpad.virtio.config import GUEST_OFFLOADS, HASH_TYPES, TUNNEL_TYPES
from vdpad.virtio.features import FEATURES
from vdpad.virtio.mac import MAC_PATTERN, format_mac, parse_mac

_HEX = re.compile(r"([0-9a-fA-F]{2})*")
_MULTICAST_BIT = 1
_MAX_VID = 4095
# virtio 1.4, "Receive-side scaling": the key's length is one byte.
_MAX_KEY = 255
# The same: the table's entries are le16, and its length travels as a 16-bit mask.
_MAX_QUEUE = 0xFFFF
_MAX_TABLE = 65536


T = TypeVar("T")


class WrongEntry(VdpadError, ValueError):
    """An entry of a list that is none, and the code for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


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


def _mac(value: Any) -> bytes:
    if isinstance(value, bytes) and len(value) == 6:
        return value
    mac = parse_mac(value) if isinstance(value, str) else None
    if mac is None:
        raise WrongEntry("mac", 'expected a MAC address such as "52:54:00:12:34:56"')
    return mac


def _parse_mac(value: Any) -> bytes:
    try:
        return _mac(value)
    except WrongEntry as error:
        raise PydanticCustomError("mac", "{text}", {"text": str(error)}) from None


def _parse_macs(value: Any, info: ValidationInfo) -> tuple[bytes, ...]:
    return tuple(_entries(_listed(value, info), _mac, "MAC addresses"))


def _parse_table(value: Any, info: ValidationInfo) -> tuple[int, ...]:
    listed = _listed(value, info)
    if isinstance(listed, list):
        if not 1 <= len(listed) <= _MAX_TABLE:
            code = "too_long" if listed else "too_short"
            message = f"expected 1 … {_MAX_TABLE} entries, got {len(listed)}"
            raise PydanticCustomError(code, "{text}", {"text": message})
        # A call for each of so many is slow.
        if {*map(type, listed)} == {int} and min(listed) >= 0 and max(listed) <= _MAX_QUEUE:
            return tuple(listed)
    return tuple(_entries(listed, _queue, "receive queues"))


def _queue(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_QUEUE:
        raise WrongEntry("queue", f"expected a receive queue 0 … {_MAX_QUEUE}")
    return value


def _entries(value: Any, parse: Callable[[Any], T], what: str) -> list[T]:
    """What each entry of a list is.

    Raises:
        PydanticCustomError: it is no list.
        ValidationError: the first entries that are none.
    """
    if not isinstance(value, list):
        raise PydanticCustomError("list", "expected a list of {what}", {"what": what})
    entries: list[T] = []

    def wrong() -> Iterator[InvalidPart]:
        for at, entry in enumerate(value):
            try:
                entries.append(parse(entry))
            except WrongEntry as error:
                yield (at,), error.code, str(error)

    if first := first_of(wrong()):
        raise invalid(*first)
    return entries


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
        known: set[int] = set()
        return frozenset(
            _entries(value, partial(_new_bit, names, known), f"names of {names.kind}s")
        )

    schema = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    return (
        PlainValidator(parse),
        PlainSerializer(names.names, return_type=list[str]),
        WithJsonSchema({**schema, "description": f"Names of {names.kind}s, or bit_N."}),
    )


def _new_bit(names: BitNames, known: set[int], name: Any) -> int:
    if not isinstance(name, str):
        raise WrongEntry("string", f"expected the name of a {names.kind}")
    try:
        bit = names.bit(name)
    except UnknownName as error:
        raise WrongEntry("unknown-name", str(error)) from None
    if bit in known:
        raise WrongEntry("duplicate", f"{names.name(bit)} is there twice")
    known.add(bit)
    return bit


def _vlan_span(entry: Any) -> range:
    if type(entry) is int and 0 <= entry <= _MAX_VID:
        return range(entry, entry + 1)
    if isinstance(entry, list) and len(entry) == 2 and all(type(end) is int for end in entry):
        first, last = entry
        if 0 <= first <= last <= _MAX_VID:
            return range(first, last + 1)
    raise WrongEntry(
        "vlan", f"expected a VLAN id 0 … {_MAX_VID}, or an ascending range [first, last]"
    )


def _new_vlans(known: set[int], entry: Any) -> range:
    span = _vlan_span(entry)
    for vid in span:
        if vid in known:
            raise WrongEntry("duplicate", f"VLAN {vid} is there twice")
    known.update(span)
    return span


def _parse_vlans(value: Any, info: ValidationInfo) -> tuple[int, ...]:
    listed = _listed(value, info)
    # A call for each of some thousands is slow.
    if isinstance(listed, list) and {*map(type, listed)} == {int}:
        alone = {*listed}
        if len(alone) == len(listed) and min(alone) >= 0 and max(alone) <= _MAX_VID:
            return tuple(sorted(alone))
    known: set[int] = set()
    _entries(listed, partial(_new_vlans, known), "VLAN ids and ranges of them")
    return tuple(sorted(known))


def _listed(value: Any, info: ValidationInfo) -> Any:
    """A tuple as a list, where it is Python's: in memory it is the form of a table."""
    return list(value) if info.mode == "python" and isinstance(value, tuple) else value


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


_MAC_SCHEMA = {"type": "string", "pattern": f"^{MAC_PATTERN}$"}
_VID_SCHEMA = {"type": "integer", "minimum": 0, "maximum": _MAX_VID}

MacAddress = Annotated[
    bytes,
    PlainValidator(_parse_mac),
    PlainSerializer(format_mac, return_type=str),
    WithJsonSchema(_MAC_SCHEMA),
]
MacAddresses = Annotated[
    tuple[bytes, ...],
    PlainValidator(_parse_macs),
    PlainSerializer(lambda macs: [format_mac(mac) for mac in macs], return_type=list[str]),
    WithJsonSchema({"type": "array", "items": _MAC_SCHEMA}),
]
IndirectionTable = Annotated[
    tuple[int, ...],
    PlainValidator(_parse_table),
    PlainSerializer(list, return_type=list[int]),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": _MAX_QUEUE},
            "minItems": 1,
            "maxItems": _MAX_TABLE,
        }
    ),
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
TunnelTypeNames = Annotated[frozenset[int], *_bits(TUNNEL_TYPES)]
OffloadNames = Annotated[frozenset[int], *_bits(GUEST_OFFLOADS)]

U16 = Annotated[int, Field(ge=0, le=0xFFFF)]
U32 = Annotated[int, Field(ge=0, le=0xFFFFFFFF)]
