"""No token is let in twice, and who is honest is let in, whatever clocks and daemons do.

Time passes, the host's clock is set, daemons end and others begin, senders are ahead and behind;
and somebody who has seen all that was ever sent plays it back whenever that may help. The memory
is small, so that places are used anew, or has room for all.

Two things are documented otherwise (docs/operating.md, "Clocks"): where the memory is lost, what is
sealed up to MAX_SKEW after that is refused; and what was let in before can be let in again only
where the clock is then behind what it was.
"""

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    precondition,
    rule,
)

from tests.wire.gates import TTL, Clock, fresh_memory, gate_of, memory_of_long_ago, sealed
from vdpad.wire.sealing import MAX_SKEW, NotOpened, Reason

_ROOM_FOR_ALL = 1000
_MANY = _ROOM_FOR_ALL // 50

_TO_A_REPLAY = {Reason.REPLAYED, Reason.EXPIRED, Reason.EARLY}

# Fractions that no addition rounds.
_SECONDS = st.integers(0, 100 * 64).map(lambda parts: parts / 64)
_STEPS = st.sampled_from([-(10**7), -3600.5, -61, -20, -0.5, 0.25, 12, 61, 3600.5, 10**7])
# Of what is in time, with the ends.
_AGES = st.integers(-MAX_SKEW, TTL)
_ODD_AGES = st.sampled_from([-(10**6), -MAX_SKEW - 1, TTL + 1, 10**6])


class Host(RuleBasedStateMachine):
    """A host that is asked from others, with what was let in there."""

    tokens = Bundle("tokens")
    """Tokens that were let in, with their second."""

    @initialize(places=st.sampled_from([1, 2, 5, _ROOM_FOR_ALL]), fresh=st.booleans())
    def begin(self, places: int, fresh: bool) -> None:
        self.clock = Clock()
        self.places = places
        self.memory = fresh_memory(places) if fresh else memory_of_long_ago(self.clock, places)
        self.let_in: set[bytes] = set()
        self.seconds: list[int] = []
        """Those of all that was let in, for the memory's sake."""
        self.was_ahead: set[int] = set()
        """Those of them that were out of time, since the clock was set back."""
        self.furthest = self.clock.now
        """The latest that the clock ever was."""
        self.most_ahead = self.lowest_ahead = -math.inf
        """The clock, where something was let in; and how far it may be set back at the most."""
        self.known_since = self.clock.since_boot() if fresh else -math.inf
        self.restart()

    # --- what clocks and daemons do ---

    @rule(seconds=_SECONDS)
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.furthest = max(self.furthest, self.clock.now)

    @rule(seconds=_STEPS)
    def set_the_clock(self, seconds: float) -> None:
        self.clock.step(max(seconds, self.lowest_ahead - self.clock.ahead))
        self.was_ahead.update(each for each in self.seconds if each > self.latest)
        self.furthest = max(self.furthest, self.clock.now)

    @rule()
    def put_the_clock_right(self) -> None:
        self.set_the_clock(-self.clock.ahead)

    @rule()
    def restart(self) -> None:
        self.gate = gate_of(self.clock, self.memory)

    @rule()
    def lose_the_memory(self) -> None:
        """A reboot; or its directory was removed. By a clock that is not behind what it was."""
        self.set_the_clock(max(0, self.most_ahead - self.clock.ahead))
        self.lowest_ahead = self.most_ahead
        self.memory = fresh_memory(self.places)
        self.seconds = []
        self.known_since = self.clock.since_boot()
        self.restart()

    # --- what comes ---

    @rule(target=tokens, age=_AGES, count=st.sampled_from([1, 1, 1, 4, _MANY]))
    def ask(self, age: int, count: int) -> object:
        """Tokens that no daemon has seen, and that are in time: they are let in, or it is told."""
        at = int(self.clock.now) - age
        sent = [(at, sealed(at=at)) for _ in range(count)]
        return multiple(*(each for each in sent if self.asked(*each)))

    def asked(self, at: int, token: bytes) -> bool:
        if reason := self.refused(token):
            assert self.is_documented(reason, at), reason
            return False
        self.let_in.add(token)
        self.most_ahead = max(self.most_ahead, self.clock.ahead)
        self.seconds.append(at)
        return True

    def is_documented(self, reason: Reason, at: int) -> bool:
        """Whether a token that is in time, of this second, may be refused for this reason."""
        earliest = int(self.clock.now) - TTL
        in_time = sum(earliest <= second <= self.latest for second in self.seconds)
        if reason is Reason.FULL:
            return in_time >= self.places or self.is_where_it_was
        began = self.clock.now - (self.clock.since_boot() - self.known_since) / 1e9
        was_over = at < int(self.furthest) - TTL and len(self.seconds) >= self.places
        was_here = self.is_where_it_was and min(self.was_ahead) <= at <= max(self.was_ahead)
        return reason is Reason.EXPIRED and (at <= began + MAX_SKEW + 1 or was_over or was_here)

    @property
    def is_where_it_was(self) -> bool:
        """Whether the clock is where it had been, and was set back from."""
        earliest = int(self.clock.now) - TTL
        return (
            bool(self.was_ahead)
            and min(self.was_ahead) <= self.latest
            and max(self.was_ahead) >= earliest
        )

    @property
    def latest(self) -> int:
        """The last second that is in time."""
        return int(self.clock.now) + MAX_SKEW

    @rule(age=_ODD_AGES)
    def ask_at_another_time(self, age: int) -> None:
        token = sealed(at=max(int(self.clock.now) - age, 0))
        assert self.refused(token) is (Reason.EARLY if age < 0 else Reason.EXPIRED)

    @rule(seen=tokens)
    def play_back(self, seen: tuple[int, bytes]) -> None:
        assert self.refused(seen[1]) in _TO_A_REPLAY

    @rule(seen=tokens, age=_AGES)
    def play_back_when_it_is_in_time_again(self, seen: tuple[int, bytes], age: int) -> None:
        at, token = seen
        self.set_the_clock(at + age - self.clock.now)
        assert self.refused(token) in _TO_A_REPLAY

    @rule(seen=consumes(tokens), age=_AGES)
    def play_back_to_the_next_daemon(self, seen: tuple[int, bytes], age: int) -> None:
        self.restart()
        self.play_back_when_it_is_in_time_again(seen, age)

    @precondition(lambda self: self.let_in)
    @rule()
    def play_everything_back(self) -> None:
        for token in self.let_in:
            assert self.refused(token) in _TO_A_REPLAY

    def refused(self, token: bytes) -> Reason | None:
        """Why a token is not let in; None where it is."""
        try:
            self.gate.admit(token)
        except NotOpened as error:
            return error.reason
        return None


TestHost = Host.TestCase
TestHost.settings = settings(max_examples=3 * settings().max_examples // 2, stateful_step_count=40)
