"""From a guest's start to its first packet, behind the back end.

    python -m benchmarks.first_packet NODE SETTINGS

is for the virtual machine: on a vhost-vdpa device, as root, with as many settings as it is told.
`on_software` is the same on the software device, in the back end's own process.

The guest has put its packet into its ring before. It is timed from the front end's first
SET_VRING_ENABLE until the guest sees the packet out, or looped back where the device does that. A
guest that has set nothing begins; one that has set something goes on after a pause, and is given
it before the first packet goes. What is printed is JSON, in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.shadow_guest import send_one_by_one
from tests.backend.process import PROGRAM, running
from tests.backend.vmm import BUFFER, HEADER, OTHER_MAC, Vmm
from tests.support.split_driver import Way
from tests.vhost_user import front_end as protocol
from tests.vm.steps.asleep import served
from tests.vm.steps.back_end import RECEIVE, TRANSMIT, packet
from vdpad.virtio.commands import (
    Command,
    MacAddrSet,
    MacTableSet,
    RxAllMulti,
    RxPromisc,
    VlanAdd,
)
from vdpad.virtio.features import Feature

ROUNDS = 3
MAC_SIZE = 6
FEW, MANY = 6, 4100


def settings(count: int) -> list[Command]:
    """So many commands of a guest's that has a filter: 0, or from 4 to 4100."""
    if not count:
        return []
    table = MacTableSet((bytes.fromhex("520000000101"),), (bytes.fromhex("01005e000101"),))
    others = [MacAddrSet(OTHER_MAC), table, RxPromisc(on=False), RxAllMulti(on=True)]
    return [*others, *map(VlanAdd, range(count - len(others)))]


async def first_packet(guest: Vmm, commands: Sequence[Command], *, loops: bool) -> float:
    """A guest begins, or goes on with these settings; how long it waits for its packet, in ms."""
    await guest.set_up()
    bases = None
    if commands:
        await guest.enable_all()
        send_one_by_one(guest.control, [each.encode() for each in commands], yields=True)
        bases = await guest.stop()
        await guest.set_up_rings(bases)
    mac = await guest.front_end.ask(protocol.GET_CONFIG, protocol.config(0, bytes(MAC_SIZE)))
    to = OTHER_MAC if commands else mac[-MAC_SIZE:]
    receive, transmit = guest.guest.queues[RECEIVE], guest.guest.queues[TRANSMIT]
    receive.driver.submit([], [BUFFER], Way.DIRECT)
    transmit.driver.submit([HEADER + packet("first", to).ljust(64, b"\0")], [], Way.DIRECT)
    for each in (receive, transmit):
        each.publish()
    last = receive if loops else transmit
    began = time.perf_counter()
    await guest.enable_all()
    while not last.returned:
        os.sched_yield()
    return (time.perf_counter() - began) * 1000


async def on_software(count: int, rounds: int) -> list[float]:
    """Each round's."""
    with TemporaryDirectory(prefix="vdpad-bench-") as folder:
        async with running(Path(folder), "--stay", program=PROGRAM) as process:
            took = []
            for _ in range(rounds):
                async with process.vmm() as guest:
                    took.append(await first_packet(guest, settings(count), loops=True))
    return took


async def on_device(node: Path, count: int) -> list[float]:
    """Each round's, of which each has a back end of its own."""
    took = []
    for _ in range(ROUNDS):
        async with served(node) as (guest, _pid):
            loops = Feature.CTRL_RX not in guest.features
            commands = [each for each in settings(count) if each.lacks(guest.features) is None]
            took.append(await first_packet(guest, commands, loops=loops))
            await guest.stop()
    return took


if __name__ == "__main__":
    print(json.dumps(asyncio.run(on_device(Path(sys.argv[1]), int(sys.argv[2])))))
