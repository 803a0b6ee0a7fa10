"""JSON as its standard has it: Python's reader takes more, and keeps the last of equal keys.

Whoever reads a key twice may not read the same one twice, so an object with duplicates means
nothing.
"""

import json
from typing import Any, NamedTuple, NoReturn

from vdpad.errors import VdpadError

# The reader's own words may repeat what it was given.
_MAX_REASON = 100
_SPACE = b" \t\r\n"

# What an integer costs goes by the square of its digits, so they are counted where they are many.
_RUN = 64
_DIGITS_AS_ZEROS = bytes.maketrans(b"0123456789", b"0" * 10)

# Sixteen of the longest that Python reads.
_MAX_DIGITS = 1 << 16


class NotJson(VdpadError, ValueError):
    """Bytes that are not UTF-8 JSON, or hold more of it than is read: why."""


class Most(NamedTuple):
    """How much may stand in JSON. Stops some bytes from taking a hundred times as many in memory.

    It is counted in the bytes, before they are read. What looks alike in a string counts too.
    """

    values: int
    containers: int
    """Objects and arrays."""
    names: int
    """Of the members of objects."""
    digits: int = _MAX_DIGITS
    """That stand in runs of 64."""


def loads(data: bytes, most: Most | None = None) -> Any:
    """The value that UTF-8 JSON stands for; how long it may be is for the caller to say.

    Args:
        data: the whole of it.
        most: how much of it there may be; None for data that is short.

    Raises:
        NotJson: it is none, or more; an object has a key twice, or there is a NaN or an Infinity in
            it.
    """
    if most is not None:
        refuse_more(data, most)
    try:
        return _DECODER.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise NotJson(f"expected UTF-8 JSON: {str(error)[:_MAX_REASON]}") from error


def refuse_more(data: bytes, most: Most) -> None:
    """Returns where no more stands in JSON; it need be none.

    Raises:
        NotJson: more does.
    """
    if len(data) <= min(most):
        return
    containers = data.count(b"[") + data.count(b"{")
    # Each but the first of its container stands behind a comma.
    values = data.count(b",") + containers
    names = data.translate(None, _SPACE).count(b'":')
    digits = data.translate(_DIGITS_AS_ZEROS).count(b"0" * _RUN) * _RUN
    there = Most(values, containers, names, digits)
    for what, count, limit in zip(Most._fields, there, most, strict=True):
        if count > limit:
            raise NotJson(f"expected JSON of at most {limit} {what}, got {count}")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise NotJson("a key is there twice in one object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise NotJson(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
