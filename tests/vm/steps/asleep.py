"""A story of a back end in a process of its own, so that it can be seen asleep, and be stopped.

    python -m tests.vm.steps.asleep NODE DESCRIPTOR

is that process: it serves one front end, on the socket that it inherits.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from tests.backend.vmm import OTHER_MAC, Vmm, back_end
from tests.support.guest import Guest
from tests.support.waiting import until
from tests.vhost_user.front_end import GET_FEATURES, FrontEnd
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.queues.vhost_vdpa.shadowed_node import ShadowedNode
from vdpad.virtio.bits import bits_of
from vdpad.virtio.commands import MacAddrSet
from vdpad.virtio.features import Feature

from .back_end import QUEUES, acks, packet, taken, transmit
from .telling import Json

PACKETS = 50
READY = b"ready\n"
EPOLL_WAIT = (232, 281)
"""With its other name, epoll_pwait, on x86-64."""
FUTEX = 202
"""In which a thread waits for something to do."""


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[tuple[Vmm, int]]:
    """A guest before its start, and the process of its back end, which ends well with it."""
    ours, its = socket.socketpair()
    argv = [sys.executable, "-m", "tests.vm.steps.asleep", str(path), str(its.fileno())]
    child = await asyncio.create_subprocess_exec(
        *argv, pass_fds=[its.fileno()], stdout=asyncio.subprocess.PIPE
    )
    its.close()
    try:
        assert child.stdout is not None
        assert await child.stdout.readline() == READY
        async with FrontEnd(ours) as front_end:
            features = taken(bits_of(await front_end.number(GET_FEATURES)))
            guest = Guest(QUEUES, event_idx=Feature.RING_EVENT_IDX in features)
            yield Vmm(guest, front_end, features), child.pid
        assert await child.wait() == 0
    finally:
        if child.returncode is None:
            child.kill()


def asleep(path: Path, folder: Path) -> Json:
    """Packets go while the back end sleeps, and while it is stopped."""
    return asyncio.run(_asleep(path))


async def _asleep(path: Path) -> Json:
    seen: Json = {}
    async with served(path) as (machine, pid):
        await machine.start()
        seen["acks"] = await acks(machine, [MacAddrSet(OTHER_MAC)])
        # The simulator, which has no filter, gives back what is sent to its own address.
        loops = Feature.CTRL_RX not in machine.features
        go = partial(machine.loop, packet("round")) if loops else partial(transmit, machine)
        await go()
        await until(lambda: _sleeps_in_epoll(pid))
        before = _switches(pid)
        for _ in range(PACKETS):
            await go()
        seen["sleeps"] = _sleeps_in_epoll(pid)
        seen["switches"] = _switches(pid) == before
        os.kill(pid, signal.SIGSTOP)
        for _ in range(PACKETS):
            await go()
        os.kill(pid, signal.SIGCONT)
        seen["acks again"] = await acks(machine, [MacAddrSet(OTHER_MAC)])
        seen["bases"] = await machine.stop()
    return seen


def _sleeps_in_epoll(pid: int) -> bool:
    """Whether its loop waits there, and the thread of its device's steps for the next one."""
    try:
        tasks = Path(f"/proc/{pid}/task").glob("*/syscall")
        calls = {each.parent.name: each.read_text().split()[0] for each in tasks}
    except FileNotFoundError:
        return False  # a thread that has ended meanwhile
    loop = calls.pop(str(pid))
    waits = loop.isdecimal() and int(loop) in EPOLL_WAIT
    return waits and list(calls.values()) == [str(FUTEX)]


def _switches(pid: int) -> list[str]:
    """How often each of its threads was given a processor and gave it up."""
    found = []
    for each in sorted(Path(f"/proc/{pid}/task").glob("*/status")):
        found += [line for line in each.read_text().splitlines() if "ctxt_switches" in line]
    return found


async def _serve(path: Path, descriptor: int) -> None:
    # Not on a thread, which would stay.
    device = ShadowedNode(Node(path))
    async with back_end(device, shared_address_space=True, in_order=True) as on:
        os.write(1, READY)
        await on.front_ends.serve(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    node, inherited = sys.argv[1:]
    asyncio.run(_serve(Path(node), int(inherited)))
