"""How many names an object has that can each be a problem."""

from typing import Any

import pytest

from vdpad.state.names import TooManyNames, refuse_many_names


def _named(count: int) -> dict[str, Any]:
    return {f"n{number}": 0 for number in range(count)}


def _queues(queues: dict[str, Any]) -> dict[str, Any]:
    """With these queues it has two names of its own, and those of one queue."""
    return {"coalescing": {"queues": queues}}


@pytest.mark.parametrize(
    "state",
    [
        _named(1024),
        {"x": [_named(5000)]},
        _queues({str(queue): _named(1022) for queue in range(9)}),
        _queues(_named(60_000)),
    ],
)
def test_as_many_as_any_state_has_are_taken(state: dict[str, Any]) -> None:
    refuse_many_names(state, state)


@pytest.mark.parametrize(
    "state",
    [
        _named(1025),
        {"rx": _named(1024)},
        {"rss": _named(600), "rx": _named(600)},
        _queues({"0": {}, "1": _named(1023)}),
        {"queues": {str(queue): _named(3) for queue in range(500)}},
    ],
)
def test_more_are_refused(state: dict[str, Any]) -> None:
    with pytest.raises(TooManyNames, match="expected at most 1024 names"):
        refuse_many_names(state, state)


def test_those_beside_a_state_count_too() -> None:
    refuse_many_names({"state": _named(900), "target": _named(100)}, _named(900))
    with pytest.raises(TooManyNames):
        refuse_many_names({"state": _named(900), "target": _named(200)}, _named(900))


def test_a_state_of_any_shape_is_looked_at() -> None:
    states: list[object] = [None, 1, [], {"coalescing": 1}, {"coalescing": {"queues": [1]}}]
    for state in states:
        refuse_many_names({"state": state}, state)
