"""Mutated sessions; `python -m tests.vhost_user.fuzz` holds more of them."""

import pytest

from tests.vhost_user.fuzz.fuzzer import Fuzzer

_SESSIONS = 3000
_AT_ONCE = 500
_SEED = 14


@pytest.mark.parametrize("first", range(0, _SESSIONS, _AT_ONCE))
async def test_mutated_sessions(first: int) -> None:
    fuzzer = await Fuzzer.record(_SEED)
    for number in range(first, first + _AT_ONCE):
        await fuzzer.hold(number)
