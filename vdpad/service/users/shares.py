"""Shares: how much of something one user may take, so that there is always some for another.

A limit says what one user may have who is alone. Half as much again is there beside it, and nobody
may have more than twice what he leaves free. So one takes up to the limit, a second one finds a
third of it, a third one a ninth; and whoever has nothing may have a piece for as long as there is
any.

Models: dynamic thresholds for shared memory switches (Choudhury and Hahne, 1998); dbus-broker
charges all that a user is owed to his uid.
"""


def permits(limit: int, mine: int, others: int, wanted: int = 1) -> bool:
    """Whether a user may take more.

    Args:
        limit: what one who is alone may have.
        mine: what the user has.
        others: what all the others have together.
        wanted: how much more.
    """
    if wanted > limit:
        return False
    is_present = 2 * (mine + others + wanted) <= 3 * limit
    # At most twice what is left free: mine <= 2 (3/2 limit - others - mine).
    is_fair = 3 * (mine + wanted) <= 3 * limit - 2 * others
    return is_present and (is_fair or not mine)


class Shares:
    """What each user has of something that is counted."""

    def __init__(self, limit: int) -> None:
        """
        Args:
            limit: what one user may have who is alone.
        """
        self._limit = limit
        self._by_user: dict[int, int] = {}
        self._all = 0

    def take(self, user: int, wanted: int = 1) -> bool:
        """Takes so much where the user may have it; whether he may."""
        mine = self._by_user.get(user, 0)
        if not permits(self._limit, mine, self._all - mine, wanted):
            return False
        self._by_user[user] = mine + wanted
        self._all += wanted
        return True

    def give_back(self, user: int, amount: int = 1) -> None:
        """So much of what was taken is free again."""
        left = self._by_user[user] - amount
        self._all -= amount
        if left:
            self._by_user[user] = left
        else:
            del self._by_user[user]
