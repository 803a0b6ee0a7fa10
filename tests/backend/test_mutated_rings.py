"""Guests whose rings make no sense; `python -m tests.backend.fuzz` holds more of their sessions."""

import asyncio
import contextlib
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from random import Random

import pytest

from tests.backend.fuzz.fuzzer import RingFuzzer, play
from tests.backend.fuzz.guest import LOG_SIZE, features_of, guest_of
from tests.backend.vmm import Vmm
from tests.support.marks import in_bulk
from tests.support.waiting import GUARD
from tests.vhost_user.front_end import FrontEnd
from tests.vhost_user.log_file import log_file
from vdpad.virtio.features import Feature

_SESSIONS = 3000
_FEW, _AT_ONCE = 75, 500
_PROCESSES = 24
_SEED = 14


@pytest.mark.parametrize(
    "numbers",
    [range(_FEW), *in_bulk(range(at, at + _AT_ONCE) for at in range(0, _SESSIONS, _AT_ONCE))],
    ids=str,
)
async def test_mutated_rings(numbers: range) -> None:
    async with RingFuzzer.begin(_SEED) as fuzzer:
        for number in numbers:
            await fuzzer.hold(number)
        # Else the sessions have tried nothing.
        assert fuzzer.broken > len(numbers) // 4
        assert fuzzer.marked > len(numbers) // 50
        assert fuzzer.relayed > len(numbers) // 25


@pytest.mark.parametrize(
    "first",
    [0, *in_bulk(range(4, _PROCESSES, 4))],
)
async def test_memory_that_shrinks_under_mutated_rings(tmp_path: Path, first: int) -> None:
    """It ends the process, as in test_shrinking_memory.py, or is not touched; and nothing else."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "front-end"))
        listener.listen()
        listener.setblocking(False)
        for number in range(first, first + 4):
            await _shrink(listener, Random(f"{_SEED} {number}"))


async def _shrink(listener: socket.socket, random: Random) -> None:
    features = features_of(random) - {Feature.MQ}
    guest = guest_of(random, features)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.backend.back_end_process", listener.getsockname()),
        stderr=PIPE,
    )
    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    async with asyncio.timeout(GUARD), FrontEnd(connection) as front_end:
        # The back end has had enough, or is no more.
        with contextlib.suppress(ConnectionError), log_file(LOG_SIZE) as log:
            hostile = await play(Vmm(guest, front_end, features), random, log)
            await hostile.shrink()
    async with asyncio.timeout(GUARD):
        _, said = await process.communicate()
    guest.close()
    # 1: it says what it has refused.
    assert process.returncode in (0, 1, -signal.SIGBUS), said
    assert b"Traceback" not in said, said
