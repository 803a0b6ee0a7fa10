"""Floods are told of now and then."""

import time

import pytest

from vdpad.service.events.tally import Tally

Told = tuple[int, tuple[str, ...], str]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which goes on when it is told to."""
    times = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: times[0])
    return times


def test_the_first_is_told_at_once_and_then_what_came_in_ten_seconds(now: list[float]) -> None:
    told: list[Told] = []
    tally = Tally[str](lambda *each: told.append(each))
    tally.note("gone", "first")
    assert told == [(1, ("gone 1",), "first")]
    for at in range(500):
        now[0] += 0.019
        tally.note("gone" if at % 2 else "silent", f"number {at}")
    assert len(told) == 1
    now[0] += 1
    tally.note("gone", "last")
    assert told[1:] == [(501, ("gone 251", "silent 250"), "last")]
    assert tally.counts == {"gone": 252, "silent": 250}


def test_what_nobody_was_told_of_is_told_at_the_end_and_nothing_twice(now: list[float]) -> None:
    told: list[Told] = []
    tally = Tally[str](lambda *each: told.append(each))
    tally.flush()
    assert told == []
    for each in "abc":
        tally.note("gone", each)
    tally.flush()
    tally.flush()
    assert told == [(1, ("gone 1",), "a"), (2, ("gone 2",), "c")]
