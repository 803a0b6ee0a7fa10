"""A guest's commands and packets on a vhost-vdpa device behind the back end; as root, beside it.

    python -m benchmarks.shadow_on_device NODE COMMANDS

The back end has a process of its own, that of tests/vm/steps/asleep.py. Packets are sent in batches
by this process, which is the guest: for some rounds while the back end runs, and in turns with
these while SIGSTOP has stopped it. On vp_vdpa they go out; vdpa_sim_net gives them back. What is
printed is JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.shadow_guest import send_one_by_one
from tests.backend.vmm import BUFFER, HEADER, OTHER_MAC, Vmm
from tests.support.split_driver import Way
from tests.vm.steps.asleep import served
from tests.vm.steps.back_end import RECEIVE, TRANSMIT, packet
from tests.vm.steps.telling import Json
from vdpad.virtio.commands import MacAddrSet
from vdpad.virtio.features import Feature

BATCH = 8
ROUNDS = 7
SECONDS = 1.0


def packets_a_second(guest: Vmm, *, loops: bool) -> float:
    """How many go, for a while."""
    receive, transmit = guest.guest.queues[RECEIVE], guest.guest.queues[TRANSMIT]
    queues = (receive, transmit) if loops else (transmit,)
    done, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < SECONDS:
        for _ in range(BATCH):
            if loops:
                receive.driver.submit([], [BUFFER], Way.DIRECT)
            transmit.driver.submit([HEADER + packet("round").ljust(64, b"\0")], [], Way.DIRECT)
        for queue in queues:
            queue.publish()
        while any(queue.returned < BATCH for queue in queues):
            pass
        for queue in queues:
            queue.collect()
        done += BATCH
    return done / took


async def measured(node: Path, count: int) -> Json:
    """All of it."""
    async with served(node) as (guest, pid):
        await guest.start()
        mac = [MacAddrSet(OTHER_MAC).encode()]
        send_one_by_one(guest.control, mac * 20, yields=True)
        times = send_one_by_one(guest.control, mac * count, yields=True)
        loops = Feature.CTRL_RX not in guest.features
        packets: dict[str, list[float]] = {"runs": [], "stopped": []}
        packets_a_second(guest, loops=loops)
        for _ in range(ROUNDS):
            packets["runs"].append(packets_a_second(guest, loops=loops))
            os.kill(pid, signal.SIGSTOP)
            packets["stopped"].append(packets_a_second(guest, loops=loops))
            os.kill(pid, signal.SIGCONT)
        await guest.stop()
    event_idx = "yes" if Feature.RING_EVENT_IDX in guest.features else "no"
    return {"us": times.us(), "event_idx": event_idx, "packets": packets}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measured(Path(sys.argv[1]), int(sys.argv[2])))))
