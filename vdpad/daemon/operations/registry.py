"""The registry: all operations that are known, by their migrations, and how many there may be.

What has not ended is never forgotten, so there is no room for more once the limits are reached. Of
what has ended the oldest goes first, with its record.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

from vdpad.daemon.operations.operation import Operation
from vdpad.daemon.operations.transitions import State
from vdpad.daemon.settings import Limits
from vdpad.service.refusal import Kind, Refusal


class Registry:
    """All operations of this daemon, oldest first."""

    def __init__(
        self, limits: Limits, forget: Callable[[str], None], tell: Callable[[Operation], None]
    ) -> None:
        """
        Args:
            limits: how many there may be.
            forget: told of each migration that is known no more.
            tell: told of each operation as it comes, and whenever it changes.
        """
        self.limits = limits
        """May be set anew; what there is more by then goes when room is needed."""
        self._forget = forget
        self._tell = tell
        self._all: dict[str, Operation] = {}
        self._unended: list[Operation] = []
        """Those that had not ended when they were last looked at: few of all."""

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._all.values())

    def find(self, migration: str) -> Operation | None:
        """The operation of a migration, where there is one."""
        return self._all.get(migration)

    def newest_first(self) -> list[Operation]:
        """All of them."""
        return list(reversed(self._all.values()))

    def by_state(self) -> dict[str, int]:
        """How many there are in each state."""
        found = Counter(each.state for each in self)
        return {state.value: found[state] for state in State}

    def add(self, operation: Operation) -> None:
        """The newest, in the place of one that it renews."""
        self._all.pop(operation.migration, None)
        self._all[operation.migration] = operation
        self._unended.append(operation)
        operation.tell = self._tell
        self._tell(operation)

    def make_room(self, preparing: int) -> None:
        """Forgets the oldest that have ended, where there are as many as may be.

        Args:
            preparing: how many are on their way here beside the one that room is made for.

        Raises:
            Refusal: overloaded.
        """
        unended = self._unended = [each for each in self._unended if not each.has_ended]
        active = len(unended) + preparing
        if active >= self.limits.operations_at_once:
            raise _has_too_much(
                f"{active} operations are prepared or committing", "operations_at_once", unended
            )
        memory = sum(each.memory for each in unended) >> 20
        if memory >= self.limits.memory_mib:
            raise _has_too_much(
                f"what is prepared or committing takes {memory} MiB", "memory_mib", unended
            )
        if not self.forget_ended(preparing + 1):
            raise Refusal(
                Kind.OVERLOADED,
                "all records are of operations that have not ended yet (limits.operations_kept)",
            )

    def forget_ended(self, coming: int = 0) -> bool:
        """Forgets the oldest that have ended, until so many more may come; whether they may."""
        too_many = max(0, len(self._all) + coming - self.limits.operations_kept)
        ended = (each.migration for each in self if each.has_ended)
        forgotten = list(islice(ended, too_many))
        for migration in forgotten:
            del self._all[migration]
            self._forget(migration)
        return len(forgotten) == too_many


def _has_too_much(what: str, limit: str, unended: list[Operation]) -> Refusal:
    """By the oldest of the prepared ones, as a list that is cut shows the newest only."""
    oldest = next((each.migration for each in unended if each.state is State.PREPARED), None)
    told = (
        f"{what}, which is the limit (limits.{limit}). `status` lists them, and `cancel` gives up "
        "what is prepared"
    )
    if oldest is None:
        return Refusal(Kind.OVERLOADED, told)
    return Refusal(Kind.OVERLOADED, f"{told}; {oldest} was prepared first", migration=oldest)
