"""The registry: all operations that are known, by their migrations, and how many there may be.

What has not ended is never forgotten, so there is no room for more once the limits are reached.
They are for one user who is alone, and each has a share (service/users/shares.py). Of what has
ended the oldest of the user who has most goes first, with its record.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from vdpad.daemon.operations.no_room import no_room
from vdpad.daemon.operations.operation import Operation
from vdpad.daemon.operations.transitions import State
from vdpad.daemon.settings import Limits
from vdpad.service.users.shares import permits


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
        self._of_user: Counter[int | None] = Counter()
        """How many each user has."""
        self._unended: list[Operation] = []
        """Those that had not ended when they were last looked at: few of all."""

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._all.values())

    def find(self, migration: str) -> Operation | None:
        """The operation of a migration, where there is one."""
        return self._all.get(migration)

    def newest_first(self) -> list[Operation]:
        """All operations; an operation that was renewed counts from then."""
        return list(reversed(self._all.values()))

    def by_state(self) -> dict[str, int]:
        """How many there are in each state."""
        found = Counter(each.state for each in self)
        return {state.value: found[state] for state in State}

    def add(self, operation: Operation) -> None:
        """The newest, in the place of one that it renews."""
        renewed = self._all.get(operation.migration)
        if renewed is not None:
            self._remove(renewed)
        self._all[operation.migration] = operation
        self._of_user[operation.user] += 1
        self._unended.append(operation)
        operation.tell = self._tell
        self._tell(operation)

    def make_room(self, user: int | None, preparing: Sequence[int | None]) -> None:
        """Forgets the oldest that have ended, where there are as many as may be.

        Args:
            user: whose the one is that room is made for.
            preparing: whose those are that are on their way here beside it.

        Raises:
            Refusal: overloaded: the user has his share.
        """
        unended = self._unended = [each for each in self._unended if not each.has_ended]
        mine = [each for each in unended if each.user == user]
        others = [each for each in unended if each.user != user]
        coming = preparing.count(user)
        self._check_number(mine, coming, len(others) + len(preparing) - coming)
        self._check_memory(mine, others)
        if not self.forget_ended(len(preparing) + 1):
            too_many = self._too_many(len(preparing) + 1)
            raise no_room(
                "all records are of operations that have not ended yet",
                "operations_kept",
                mine,
                len(others),
                lambda _: too_many == 1,
            )

    def _check_number(self, mine: list[Operation], coming: int, others: int) -> None:
        limit, taken = self.limits.operations_at_once, len(mine) + coming
        if not permits(limit, taken, others):
            are = "1 operation is" if taken == 1 else f"{taken} operations are"
            raise no_room(
                f"{are} prepared or committing{_beside(others)}",
                "operations_at_once",
                mine,
                others,
                lambda _: permits(limit, taken - 1, others),
            )

    def _check_memory(self, mine: list[Operation], of_others: list[Operation]) -> None:
        limit, taken = self.limits.memory_mib, sum(each.memory for each in mine)
        others = sum(each.memory for each in of_others) >> 20
        if not permits(limit, taken >> 20, others):
            raise no_room(
                f"what is prepared or committing takes {taken >> 20} MiB{_beside(others)}",
                "memory_mib",
                mine,
                others,
                lambda each: permits(limit, (taken - each.memory) >> 20, others),
            )

    def forget_ended(self, coming: int = 0) -> bool:
        """Forgets the oldest that have ended, until so many more may come; whether they may.

        First those of the user who has most.
        """
        while self._too_many(coming) > 0:
            oldest = self._oldest_of_the_most()
            if oldest is None:
                return False
            self._remove(oldest)
            self._forget(oldest.migration)
        return True

    def _too_many(self, coming: int) -> int:
        return len(self._all) + coming - self.limits.operations_kept

    def _oldest_of_the_most(self) -> Operation | None:
        for user, _ in self._of_user.most_common():
            for each in self:
                if each.user == user and each.has_ended:
                    return each
        return None

    def _remove(self, operation: Operation) -> None:
        del self._all[operation.migration]
        self._of_user[operation.user] -= 1
        if not self._of_user[operation.user]:
            del self._of_user[operation.user]


def _beside(others: int) -> str:
    return f", beside {others} of other users'" if others else ""
