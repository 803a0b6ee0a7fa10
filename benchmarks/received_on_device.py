"""Packets through a receive queue of a vhost-vdpa device that loops, passed through and relayed.

    python -m benchmarks.received_on_device NODE ROUNDS

As root, in the virtual machine. The back end has a process of its own; this one is the guest. What
is printed is JSON: packets a second and processors of the back end, by state.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from benchmarks.fixed_ring import Pair, new_guest, pair_of
from benchmarks.rates import rate_of
from tests.backend.vmm import Vmm
from tests.vhost_user.log_file import log_file
from tests.vm.steps.asleep import served
from tests.vm.steps.logged import LOG_SIZE
from vdpad.virtio.features import Feature

BATCH, SECONDS = 64, 2.0

Rates = dict[str, list[tuple[float, float]]]


async def measured(node: Path, rounds: int) -> Rates:
    """In each state, which take turns."""
    async with served(node) as (begun, pid):
        event_idx = Feature.RING_EVENT_IDX in begun.features
        begun.guest.close()
        guest = new_guest(event_idx=event_idx)
        machine = Vmm(guest, begun.front_end, begun.features)
        await machine.start()
        with pair_of(machine) as pair, log_file(LOG_SIZE) as log:
            found = await _in_turns(machine, pair, pid, log, rounds)
        await machine.stop()
        guest.close()
    return found


async def _in_turns(machine: Vmm, pair: Pair, pid: int, log: int, rounds: int) -> Rates:
    found: Rates = {"passed through": [], "relayed": []}
    for _ in range(rounds):
        for state, rates in found.items():
            if state == "relayed":
                await machine.log(log)
            rate = rate_of(pair, pid, BATCH, SECONDS)
            rates.append((rate.packets, rate.busy))
            if state == "relayed":
                await machine.log_no_more()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measured(Path(sys.argv[1]), int(sys.argv[2])))))
