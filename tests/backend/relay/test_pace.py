"""How long who relays sleeps: less where it was found that nobody calls."""

import pytest

from vdpad.backend.relay.pace import LEAST_TICK, LONGEST_TICK, MANY, SHORT_TICK, SHORT_TICKS, Pace


def slept(pace: Pace, times: int) -> list[float]:
    """Seconds of so many sleeps after rounds that have found nothing, each ended by its tick."""
    seconds = []
    for _ in range(times):
        seconds.append(pace.sleeps(0))
        pace.was_called = False
    return seconds


def test_the_less_there_is_the_longer_it_sleeps() -> None:
    pace = Pace()
    assert pace.sleeps(1) == 0
    ticks = slept(pace, 20)
    assert ticks == sorted(ticks)
    assert ticks[:2] == [LEAST_TICK, 2 * LEAST_TICK]
    assert ticks[-1] == LONGEST_TICK


def test_who_has_called_is_slept_after_as_before() -> None:
    pace = Pace()
    slept(pace, 20)
    pace.was_called = True
    assert pace.sleeps(1) == 0
    assert pace.sleeps(0) == LEAST_TICK


def test_where_a_tick_has_found_a_few_the_next_are_short() -> None:
    pace = Pace()
    slept(pace, 20)
    for _ in range(3):
        assert pace.sleeps(MANY - 1) == 0
        assert slept(pace, SHORT_TICKS) == [SHORT_TICK] * SHORT_TICKS
    assert slept(pace, 20)[-1] == LONGEST_TICK


@pytest.mark.parametrize("had_few", [False, True])
def test_where_it_has_found_many_they_are_not(had_few: bool) -> None:
    pace = Pace()
    slept(pace, 20)
    if had_few:
        pace.sleeps(1)
        assert pace.sleeps(0) == SHORT_TICK
    assert pace.sleeps(MANY) == 0
    assert slept(pace, 2) == [LEAST_TICK, 2 * LEAST_TICK]
