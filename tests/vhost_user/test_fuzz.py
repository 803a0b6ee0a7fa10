"""Mutated sessions; `python -m tests.vhost_user.fuzz` holds more of them."""

import pytest

from tests.support.marks import in_bulk
from tests.vhost_user.fuzz.fuzzer import Fuzzer

_SESSIONS = 3000
_AT_ONCE = 50
_SEED = 14


@pytest.mark.parametrize("first", [0, *in_bulk(range(_AT_ONCE, _SESSIONS, _AT_ONCE))])
async def test_mutated_sessions(first: int) -> None:
    fuzzer = await Fuzzer.record(_SEED)
    for number in range(first, first + _AT_ONCE):
        await fuzzer.hold(number)
