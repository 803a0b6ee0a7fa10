"""JSON as its standard has it: Python's reader takes more, and keeps the last of equal keys.

Whoever reads a key twice may not read the same one twice, so an object with duplicates means
nothing.
"""

import json
from typing import Any, NoReturn

from vdpad.errors import VdpadError

# The reader's own words may repeat what it was given.
_MAX_REASON = 100


class NotJson(VdpadError, ValueError):
    """Bytes that are not UTF-8 JSON: why."""


def loads(data: bytes) -> Any:
    """The value that UTF-8 JSON stands for; how long it may be is for the caller to say.

    Raises:
        NotJson: it is none, an object has a key twice, or there is a NaN or an Infinity in it.
    """
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise NotJson(f"expected UTF-8 JSON: {str(error)[:_MAX_REASON]}") from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise NotJson("a key is there twice in one object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise NotJson(f"{name} is not JSON")
