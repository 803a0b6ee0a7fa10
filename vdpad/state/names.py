"""How many names a JSON object has, before its model looks at them.

Each that the model does not know is a problem of its own.
"""

from collections.abc import Mapping
from typing import Any

from vdpad.errors import VdpadError

# A state has 36, and a request 31 more. Stops names that are not known from being thousands of
# problems, of which 64 are shown.
_MAX_NAMES = 1024

HAS_FEW = 4 * _MAX_NAMES
"""Bytes of JSON that cannot have more: a member takes two quotes, a colon and a value."""


class TooManyNames(VdpadError, ValueError):
    """An object that has more names than any state, or any request with one."""


def refuse_many_names(whole: Mapping[str, Any], state: object) -> None:
    """Returns where there are few.

    Those in lists are not counted, and of all queues' only the most that one has: of a list, and of
    the queues, the first that is wrong is the only problem.

    Args:
        whole: the object.
        state: the state in it, or it itself; it need be none.

    Raises:
        TooManyNames: there are more than any state and request have.
    """
    queues = _member(_member(state, "coalescing"), "queues")
    names = 0
    left: list[Mapping[str, Any]] = [whole]
    while left:
        each = left.pop()
        below = [value for value in each.values() if isinstance(value, dict)]
        if each is queues:
            names += max(map(len, below), default=0)
        else:
            names += len(each)
            left += below
    if names > _MAX_NAMES:
        raise TooManyNames(
            f"expected at most {_MAX_NAMES} names, got a JSON object with {names} names in it"
        )


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None
