"""Packets through QEMU 10's shadow virtqueues on a device that loops; as root, beside the device.

    python -m benchmarks.svq.received QEMU NODE ROUNDS

As benchmarks/received_on_device.py, with QEMU in the back end's place: its card has the device as
vhost-vdpa with x-svq=on, and this process drives both data queues as one_by_one.py drives the CVQ.
A doorbell is a message over qtest here, one for each queue and batch: QEMU's part in that many is
measured too, as messages that do nothing. What is printed is JSON.

What it needs of the device, load_svq.py says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.fixed_ring import RING, FixedRing, Pair, looping_pair
from benchmarks.rates import processor_seconds, rate_of
from benchmarks.received_on_device import BATCH, SECONDS
from benchmarks.svq.one_by_one import Doorbell, timed_writes
from tests.qemu.device import Common, Feature
from tests.qemu.guest_driver import GuestDriver, guest_memory
from tests.qemu.layout import BUFFERS, MIB, data_ring
from tests.qemu.options import Options
from tests.qemu.process import device_properties
from tests.qemu.vhost_user import Machine, driven

RECEIVE, TRANSMIT, CONTROL = range(3)
_WRITES = 300


def _ring(doorbell: Doorbell, address: int, queue: int) -> None:
    doorbell.write(address, queue)
    doorbell.answered()


@asynccontextmanager
async def going_round(qemu: Machine, doorbell: Doorbell) -> AsyncIterator[Pair]:
    """The card's data queues, once it runs."""
    offered = await qemu.device.acknowledge()
    features = offered - {Feature.RING_PACKED, Feature.IN_ORDER, Feature.RING_EVENT_IDX}
    await qemu.device.negotiate(features, offered)
    rings = []
    async with AsyncExitStack() as stack:
        for queue in (RECEIVE, TRANSMIT):
            memory = await stack.enter_async_context(guest_memory(qemu, BUFFERS + queue * MIB))
            guest = GuestDriver(qemu, memory, queue, size=RING, event_idx=False)
            await guest.set_up()
            kick = partial(_ring, doorbell, guest.doorbell, queue)
            receives = queue == RECEIVE
            rings.append(FixedRing(guest.driver, kick, receives=receives, event_idx=False))
        await qemu.device.set_up_queue(CONTROL, data_ring(CONTROL))
        await qemu.device.start()
        with looping_pair(*rings) as pair:
            yield pair


async def measured(asked: argparse.Namespace, folder: Path) -> dict[str, object]:
    """All of it."""
    card = (
        *("-netdev", f"vhost-vdpa,id=net,vhostdev={asked.node},x-svq=on"),
        *("-device", device_properties(Options(queue_pairs=1))),
    )
    async with driven(str(asked.qemu), card, folder / "firmware") as qemu:
        doorbell = Doorbell(qemu.process.qtest.dup())
        pid = qemu.process.pid
        async with going_round(qemu, doorbell) as pair:
            rates = [rate_of(pair, pid, BATCH, SECONDS) for _ in range(asked.rounds)]
        before = processor_seconds(pid)
        timed_writes(doorbell, qemu.blocks.common + Common.QUEUE_SELECT, _WRITES)
        write = (processor_seconds(pid) - before) / _WRITES
    return {"rates": [(each.packets, each.busy) for each in rates], "write_us": write * 1e6}


def main() -> None:
    """Measures and prints the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("qemu", "node"):
        parser.add_argument(name, type=Path)
    parser.add_argument("rounds", type=int)
    asked = parser.parse_args()
    # The machine's memory is pinned, and that counts as locked, for root too.
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    with TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measured(asked, Path(folder)))))


if __name__ == "__main__":
    main()
