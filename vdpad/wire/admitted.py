"""The tokens that were let in, in memory that outlives the process, so that none is let in twice.

The memory is words of 64 bits, written by stores into it and by nothing else:

    a mark │ began, ns since boot │ floor, s since 1970 │ a stretch that is shut: first and last s │
    places: (sealed at, bits of the HMAC) × n

It holds every token that was let in since it began, but for those that were sealed before the
floor, or in the stretch. These are forgotten, so nothing of then may be let in. A token is
forgotten only when its place is needed and its time is over, the oldest first: so the floor rises
with what is let in and not with the clock, and a clock that is ahead for a moment shuts nobody out.

Where there is none whose time is over, those go whose time has not come: a clock that was far ahead
let them in, and their time would be over only when it is there again. They make the stretch, which
is met, and over, when the clock comes to where it was.

The process may be killed at any store, and each leaves what holds. A place counts where its second
is not below the floor. So the floor rises, or the stretch grows, before a place is used anew, and
of a place the second is stored last; only then is the request carried out. A stretch whose last
second is below its first shuts nothing.

Of what was let in before the memory began it knows nothing. When that was is told in time since
boot, which nobody sets: what a wall clock says of it is right whenever that clock is.
"""

import heapq
import time
from array import array

from vdpad.errors import VdpadError

MAX_ADMITTED = 1 << 17
"""Tokens that are remembered: 3000 a second at a TTL of 30 s. They take 2 MiB, and up to 14 MiB in
the process to find them in. Stops who has a key from filling memory."""

_MARK = int.from_bytes(b"vdpad-in", "little")
_MARK_AT, _BEGAN, _FLOOR, _SHUT_FIRST, _SHUT_LAST, _PLACES = range(6)
_WORD = 8

# Zeros are places that were never used, so a token sealed in 1970's first second is not let in.
_LOWEST_FLOOR = 1


class BadMemory(VdpadError):
    """Memory that does not hold what it should."""


class NoRoom(VdpadError):
    """Every place is taken by a token whose time is not over."""


def since_boot() -> int:
    """How long this host has been up, in ns, with the time for which it was suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def size_of(places: int) -> int:
    """How many bytes it takes to remember so many tokens."""
    return _WORD * (_PLACES + 2 * places)


def begin(memory: memoryview, since_boot: int) -> "Admitted":
    """Begins anew in any memory.

    Args:
        memory: of a size_of, whatever is in it.
        since_boot: now, in ns.
    """
    words = memory.cast("Q")
    words[_MARK_AT] = 0
    memory[:] = bytes(len(memory))
    words[_FLOOR] = _LOWEST_FLOOR
    words[_SHUT_FIRST] = _LOWEST_FLOOR
    words[_BEGAN] = since_boot
    words[_MARK_AT] = _MARK
    return Admitted(memory, since_boot)


def recall(memory: memoryview, since_boot: int) -> "Admitted":
    """Goes on with the memory of an earlier process; begins where there was none.

    Raises:
        BadMemory: it holds something else, or what no process of ours leaves.
    """
    if not any(memory.cast("Q")[:_PLACES]):
        return begin(memory, since_boot)
    return Admitted(memory, since_boot)


class Admitted:
    """Which tokens were let in."""

    def __init__(self, memory: memoryview, since_boot: int) -> None:
        """
        Args:
            memory: that `begin` has begun; released by `close`.
            since_boot: now, in ns.

        Raises:
            BadMemory: as recall does.
        """
        self._memory = memory
        self._words = memory.cast("Q")
        self.began: int = self._words[_BEGAN]
        """When the memory began, in ns since boot. It knows nothing of what came before."""
        if self._words[_MARK_AT] != _MARK or self.began > since_boot:
            raise BadMemory("expected requests that were let in since this boot, got other bytes")
        self._known: set[int] = set()
        self._by_second: list[int] = []
        """A heap of the places that are taken: the second that a token was sealed in, and where."""
        self._free = array("I")
        self._look_through()

    @property
    def floor(self) -> int:
        """What was sealed before, in seconds since 1970, may have been let in, and be forgotten."""
        return int(self._words[_FLOOR])

    def __contains__(self, mac: int) -> bool:
        """Whether a token is remembered."""
        return mac in self._known

    def is_shut(self, sealed_at: int) -> bool:
        """Whether what was sealed in this second may have been let in, and be forgotten."""
        return (
            sealed_at < self._words[_FLOOR]
            or self._words[_SHUT_FIRST] <= sealed_at <= self._words[_SHUT_LAST]
        )

    def add(self, sealed_at: int, mac: int, over: int, early: int) -> None:
        """Remembers a token, which may be let in from then on.

        Args:
            sealed_at: in seconds since 1970, not shut, from `over` to `early`.
            mac: 64 bits of its HMAC.
            over: what was sealed before has had its time.
            early: the time of what was sealed after it is still to come.

        Raises:
            NoRoom: there is none, and nothing is changed.
        """
        if not self._free:
            self._make_room(over, early)
        place = self._free.pop()
        self._words[place + 1] = mac
        self._words[place] = sealed_at
        self._known.add(mac)
        heapq.heappush(self._by_second, sealed_at << 32 | place)

    def close(self) -> None:
        """Lets go of the memory, for the next process. May be called again."""
        self._words.release()
        self._memory.release()

    def _make_room(self, over: int, early: int) -> None:
        if self._by_second[0] >> 32 < over:
            self._forget_oldest()
        elif not self._forget_early(over, early):
            raise NoRoom(f"expected at most {len(self._known)} requests within the TTL, got more")

    def _forget_oldest(self) -> None:
        """Frees one place. Others of the same second stay until theirs are needed."""
        sealed_at, place = divmod(heapq.heappop(self._by_second), 1 << 32)
        self._words[_FLOOR] = max(self.floor, sealed_at + 1)
        self._known.discard(self._words[place + 1])
        self._free.append(place)

    def _forget_early(self, over: int, early: int) -> bool:
        """Frees all places whose time is still to come; whether there are any that may go."""
        first_early = (early + 1) << 32
        going = sorted(each for each in self._by_second if each >= first_early)
        if not going or not self._shut(going[0] >> 32, going[-1] >> 32, over, early):
            return False
        self._by_second = [each for each in self._by_second if each < first_early]
        heapq.heapify(self._by_second)
        for each in going:
            place = each & 0xFFFFFFFF
            self._known.discard(self._words[place + 1])
            self._free.append(place)
        return True

    def _shut(self, first: int, last: int, over: int, early: int) -> bool:
        """Has the stretch have these seconds too; not while the clock is in it."""
        words = self._words
        if words[_SHUT_LAST] < max(words[_SHUT_FIRST], over):
            # There is none, or it is past: the floor goes on with it.
            words[_FLOOR] = max(self.floor, min(words[_SHUT_LAST] + 1, over))
            words[_SHUT_FIRST] = first
            words[_SHUT_LAST] = last
        elif words[_SHUT_FIRST] > early:
            words[_SHUT_FIRST] = min(words[_SHUT_FIRST], first)
            words[_SHUT_LAST] = max(words[_SHUT_LAST], last)
        else:
            return False
        return True

    def _look_through(self) -> None:
        floor = self.floor
        seconds, macs = self._words[_PLACES::2], self._words[_PLACES + 1 :: 2]
        for place, (second, mac) in enumerate(zip(seconds, macs, strict=True)):
            if second < floor:
                self._free.append(_PLACES + 2 * place)
            else:
                self._known.add(mac)
                self._by_second.append(second << 32 | _PLACES + 2 * place)
        heapq.heapify(self._by_second)
        # The floor is one above what was forgotten last; in its place stands that, or a later one,
        # or one from before the stretch.
        latest = max(max(seconds), self._words[_SHUT_LAST])
        if not _LOWEST_FLOOR <= floor <= max(latest + 1, _LOWEST_FLOOR):
            raise BadMemory(f"expected a floor of time below what was let in, got {floor}")
        if len(self._known) < len(self._by_second):
            raise BadMemory("expected each request to have been let in once")
