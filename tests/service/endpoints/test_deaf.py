"""Clients that were found deaf: each for a while, and so many."""

from vdpad.service.endpoints import deaf
from vdpad.service.endpoints.deaf import Deaf


def test_each_is_known_for_a_while() -> None:
    now = 1000.0
    known = Deaf(lambda: now)
    assert "one" not in known
    known.add("one")
    now += deaf._KNOWN * 0.9
    known.add("another")
    assert "one" in known
    now += deaf._KNOWN * 0.9
    assert "one" not in known
    assert "another" in known


def test_one_that_is_found_again_is_known_anew() -> None:
    now = 1000.0
    known = Deaf(lambda: now)
    known.add("one")
    now += deaf._KNOWN * 0.9
    known.add("one")
    now += deaf._KNOWN * 0.9
    assert "one" in known
    known.discard("one")
    assert "one" not in known


def test_of_so_many_the_latest_are_known() -> None:
    known = Deaf(lambda: 1000.0)
    for number in range(deaf._MAX):
        known.add(number)
    known.add(0)
    known.add("another")
    assert 1 not in known
    assert all(each in known for each in (0, 2, deaf._MAX - 1, "another"))
