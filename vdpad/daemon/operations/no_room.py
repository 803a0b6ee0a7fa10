"""Why there is no room for one more operation, and whose end would make some."""

from collections.abc import Callable, Sequence

from vdpad.daemon.operations.operation import Operation
from vdpad.daemon.operations.transitions import State
from vdpad.service.refusal import Kind, Refusal


def no_room(
    what: str,
    limit: str,
    mine: Sequence[Operation],
    others: int,
    makes_room: Callable[[Operation], bool],
) -> Refusal:
    """By the oldest of the asker's own that can be cancelled and whose end is enough.

    A list that is cut shows the newest only.

    Args:
        what: how much there is.
        limit: the setting that is reached.
        mine: the asker's that have not ended, oldest first.
        others: how much there is of other users'.
        makes_room: whether there is room once this one has ended.
    """
    told = f"{what}, which is the limit (limits.{limit})"
    prepared = [each for each in mine if each.state is State.PREPARED]
    if not prepared:
        return Refusal(Kind.OVERLOADED, f"{told}. {_wait(others)}")
    told += ". `status` lists them, and `cancel` gives up what is prepared"
    named = next(filter(makes_room, prepared), None)
    if named is None:
        return Refusal(Kind.OVERLOADED, f"{told}; one of yours is not enough")
    which = "was prepared first" if named is prepared[0] else "is the first that is large enough"
    return Refusal(Kind.OVERLOADED, f"{told}; {named.migration} {which}", migration=named.migration)


def _wait(others: int) -> str:
    hint = "None of yours can be cancelled: ask again when some have ended"
    return f"{hint}, or have an operator cancel what other users prepared" if others else hint
