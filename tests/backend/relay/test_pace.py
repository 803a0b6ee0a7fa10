"""How long who relays sleeps: less where it was found that nobody calls."""

from vdpad.backend.relay.pace import LONGEST_TICK, SHORT_TICKS, SHORTEST_TICK, Pace


def slept(pace: Pace, times: int) -> list[float]:
    """Seconds of so many sleeps after rounds that have found nothing, each ended by its tick."""
    seconds = []
    for _ in range(times):
        seconds.append(pace.sleeps(busy=False))
        pace.was_called = False
    return seconds


def test_the_less_there_is_the_longer_it_sleeps() -> None:
    pace = Pace()
    assert pace.sleeps(busy=True) == 0
    ticks = slept(pace, 20)
    assert ticks == sorted(ticks)
    assert ticks[0] == 2 * SHORTEST_TICK
    assert ticks[0] < LONGEST_TICK
    assert ticks[-1] == LONGEST_TICK


def test_who_has_called_is_slept_after_as_before() -> None:
    pace = Pace()
    slept(pace, 20)
    pace.was_called = True
    assert pace.sleeps(busy=True) == 0
    assert pace.sleeps(busy=False) == 2 * SHORTEST_TICK


def test_where_a_tick_has_found_something_the_next_are_short() -> None:
    pace = Pace()
    slept(pace, 20)
    for _ in range(3):
        assert pace.sleeps(busy=True) == 0
        assert slept(pace, SHORT_TICKS) == [SHORTEST_TICK] * SHORT_TICKS
    assert slept(pace, 20)[-1] == LONGEST_TICK
