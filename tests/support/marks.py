"""What several rooms' tests are run with, one way and the other."""

from collections.abc import Iterable
from typing import Any

import pytest

with_and_without_event_idx = pytest.mark.parametrize(
    "event_idx", [False, True], ids=["flags", "event_idx"]
)


def in_bulk(values: Iterable[Any]) -> list[Any]:
    """Parameters that `make check` leaves out, beside such as it has; a tuple is of several."""
    each_of = (each if isinstance(each, tuple) else (each,) for each in values)
    return [pytest.param(*each, marks=pytest.mark.bulk) for each in each_of]
