"""A front end that takes away memory which its device runs with ends its own back end."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from tests.backend.vmm import PLAIN, USER, Vmm
from tests.support.guest import Guest
from tests.support.waiting import GUARD
from tests.vhost_user.front_end import REM_MEM_REG, FrontEnd, single


async def test_memory_that_shrinks_ends_the_process_and_the_next_one_serves(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "front-end"))
        listener.listen()
        listener.setblocking(False)
        code = await _shrink(listener)
        assert code == -signal.SIGBUS
        assert await _shrink(listener, told=True) == 0


async def _shrink(listener: socket.socket, *, told: bool = False) -> int:
    """What becomes of a back end whose guest's transmit buffers go, after it was told or not."""
    guest = Guest(9, event_idx=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.backend.back_end_process", listener.getsockname()),
        stderr=PIPE,
    )
    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    async with FrontEnd(connection) as front_end:
        machine = Vmm(guest, front_end, PLAIN)
        await machine.start()
        assert await machine.loop(b"packet") == b"packet"
        _, transmit = guest.queues[:2]
        if told:
            await machine.stop()
        for region in transmit.regions:
            if told:
                gone = single(region.start, region.size, USER + region.start, 0)
                await front_end.done(REM_MEM_REG, gone)
            os.ftruncate(region.fd, 0)
        os.eventfd_write(transmit.kick, 1)
        if not told:
            assert await front_end.ended() == b""
    async with asyncio.timeout(GUARD):
        await process.communicate()
    guest.close()
    assert process.returncode is not None
    return process.returncode
