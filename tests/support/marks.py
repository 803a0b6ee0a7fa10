"""What several rooms' tests are run with, one way and the other."""

import pytest

with_and_without_event_idx = pytest.mark.parametrize(
    "event_idx", [False, True], ids=["flags", "event_idx"]
)
