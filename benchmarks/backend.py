"""What the back end costs a guest: `make bench-backend`.

Its commands through the shadow, and the time from its start to its first packet, on the software
device; in the virtual machine too (backend_in_vm.py), with its packets, its memory's mapping, and
QEMU 10's own shadow virtqueue beside it.

The guest has a process and a processor of its own; the back end has another processor, which its
software device shares with it, as they are one process. A command is timed from just before its
chain is made available until its return is seen. Then the same with clocks at what happens in
between, which cost some time themselves.

    python -m benchmarks.backend [--commands N] [--no-kernel]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Callable
from unittest import mock

from benchmarks import backend_in_vm, first_packet
from benchmarks.back_end_tables import COMMANDS, STARTS_OF, command_row, spread, us
from benchmarks.clocked import PARTS, Clocked, parts_of
from benchmarks.shadow_guest import Times, send_one_by_one, vlan_commands
from benchmarks.tables import show
from tests.backend.inline import InlineQueue
from tests.backend.vmm import PLAIN, Vmm, back_end, vmm
from vdpad.backend import running
from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.virtio.features import Feature, FeatureSet

CPUS = sorted(os.sched_getaffinity(0))
GUESTS_CPU, BACK_ENDS_CPU = CPUS[:1], CPUS[1:2] or CPUS
WARM_UP = 200

STARTS = 15


class AtOnce(LoopDevice):
    """A device that carries out commands within its doorbell: what is left is the back end's."""

    def control_queue(self) -> ControlQueue:
        queue = InlineQueue(lambda readable: bytes((self.net.command(readable),)), size=64)
        self.control_geometry = queue.geometry
        return queue


DEVICES: dict[str, Callable[[], ShadowedDevice]] = {"software": LoopDevice, "at once": AtOnce}


# --- on the software device ---


async def timed(device: ShadowedDevice, features: FeatureSet, commands: int) -> Times:
    """A back end on this device, and a guest in a process of its own."""
    async with back_end(device) as on, vmm(on, features=features) as guest:
        await guest.start()
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            _be_the_guest(guest, commands, writer)
        os.close(writer)
        told = await asyncio.to_thread(_read, reader)
        await asyncio.to_thread(os.waitpid, child, 0)
    return Times(**json.loads(told))


def _be_the_guest(guest: Vmm, commands: int, writer: int) -> None:
    try:
        os.sched_setaffinity(0, GUESTS_CPU)
        send_one_by_one(guest.control, vlan_commands(WARM_UP))
        times = send_one_by_one(guest.control, vlan_commands(commands))
        with os.fdopen(writer, "w") as pipe:
            json.dump({"began": times.began, "ended": times.ended}, pipe)
    finally:
        os._exit(0)


def _read(reader: int) -> str:
    with os.fdopen(reader) as pipe:
        return pipe.read()


def measure_software(commands: int) -> None:
    """Both software devices, with RING_EVENT_IDX and without; then where the time goes."""
    os.sched_setaffinity(0, BACK_ENDS_CPU)
    rows, parts = [], []
    for name, make in DEVICES.items():
        for event_idx, features in (("yes", PLAIN), ("no", PLAIN - {Feature.RING_EVENT_IDX})):
            times = asyncio.run(timed(make(), features, commands))
            rows.append(command_row(name, event_idx, times.us()))
        Clocked.rows.clear()
        with mock.patch.object(running, "Shadow", Clocked):
            times = asyncio.run(timed(make(), PLAIN, commands))
        parts.append([name, *map(us, parts_of(times, Clocked.rows[-commands:]))])
    show(COMMANDS, rows)
    show(("device", *(f"{part} µs" for part in PARTS)), parts)


def measure_starts_on_software() -> None:
    """From a guest's start to its first packet, by how much it had set."""
    os.sched_setaffinity(0, CPUS)
    rows = []
    for count in (0, first_packet.FEW, first_packet.MANY):
        took = asyncio.run(first_packet.on_software(count, STARTS))
        rows.append(["software", str(count), *spread(took)])
    show(STARTS_OF, rows)


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=5000)
    parser.add_argument("--no-kernel", action="store_true", help="leave the virtual machine out")
    asked = parser.parse_args()
    measure_software(asked.commands)
    measure_starts_on_software()
    if not asked.no_kernel:
        backend_in_vm.measure(asked.commands // 10)


if __name__ == "__main__":
    main()
