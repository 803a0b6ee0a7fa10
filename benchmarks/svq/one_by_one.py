"""A guest's commands through QEMU 10's shadow virtqueue, one by one; as root, beside the device.

    python -m benchmarks.svq.one_by_one QEMU NODE COMMANDS [--event-idx]

QEMU has the device as vhost-vdpa with x-svq=on. Its machine runs a firmware of HLT, and this
process is its guest's driver: it writes the ring in the machine's memory, which it has mapped, and
rings the doorbell over qtest. A command is timed as benchmarks/shadow_guest.py does. A write over
qtest to a register that does nothing is timed too: a guest's own doorbell costs no such message,
so that much of each command is the harness's. What is printed is JSON, in microseconds.

What it needs of the device, load_svq.py says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import select
import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.shadow_guest import Times
from tests.backend.vmm import OTHER_MAC
from tests.qemu.device import Common, Feature
from tests.qemu.guest_driver import GuestDriver, guest_memory
from tests.qemu.options import Options
from tests.qemu.process import device_properties
from tests.qemu.vhost_user import Machine, driven
from tests.support.split_driver import Way
from vdpad.virtio.commands import MacAddrSet

CONTROL = 2
WARM_UP = 20


class Doorbell:
    """Writes over qtest that wait for their answer, while nobody else speaks on the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, address: int, value: int) -> None:
        """A register of 16 bits."""
        self._connection.send(f"writew {address:#x} {value:#x}\n".encode())

    def answered(self) -> None:
        """Waits for the answer to one write."""
        select.select([self._connection], [], [])
        answer = self._connection.recv(64)
        assert answer == b"OK\n", answer


def send_one_by_one(guest: GuestDriver, doorbell: Doorbell, commands: list[bytes]) -> Times:
    """Sends each as soon as the one before was seen back; the answer to its doorbell comes after.

    Raises:
        SystemExit: one was not acked OK.
    """
    driver, times = guest.driver, Times([], [])
    for command in commands:
        driver.submit([command], [1], Way.DIRECT)
        driver.ask_for_interrupt(1)
        times.began.append(time.perf_counter_ns())
        rings = driver.publish()
        if rings:
            doorbell.write(guest.doorbell, CONTROL)
        while not driver.returned:
            os.sched_yield()
        times.ended.append(time.perf_counter_ns())
        if rings:
            doorbell.answered()
        ((_, _, answer),) = driver.collect()
        if answer != b"\0":
            raise SystemExit(f"expected {command.hex()} to be acked OK, got {answer.hex()}")
    return times


def timed_writes(doorbell: Doorbell, register: int, count: int) -> Times:
    """Writes that do nothing, each with its answer."""
    times = Times([], [])
    for _ in range(count):
        times.began.append(time.perf_counter_ns())
        doorbell.write(register, CONTROL)
        doorbell.answered()
        times.ended.append(time.perf_counter_ns())
    return times


async def measured(asked: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """All of it."""
    event_idx = "on" if asked.event_idx else "off"
    card = (
        *("-netdev", f"vhost-vdpa,id=net,vhostdev={asked.node},x-svq=on"),
        *("-device", f"{device_properties(Options(queue_pairs=1))},event_idx={event_idx}"),
    )
    async with driven(str(asked.qemu), card, folder / "firmware") as qemu, guest_memory(qemu) as at:
        return await _on(
            qemu, GuestDriver(qemu, at, CONTROL, size=64, event_idx=asked.event_idx), asked.commands
        )


async def _on(qemu: Machine, guest: GuestDriver, count: int) -> dict[str, list[float]]:
    offered = await qemu.device.acknowledge()
    await qemu.device.negotiate(offered - {Feature.RING_PACKED, Feature.IN_ORDER}, offered)
    await qemu.device.set_up_data_queues(CONTROL)
    await guest.set_up()
    await qemu.device.start()
    doorbell = Doorbell(qemu.process.qtest.dup())
    mac = [MacAddrSet(OTHER_MAC).encode()]
    send_one_by_one(guest, doorbell, mac * WARM_UP)
    times = send_one_by_one(guest, doorbell, mac * count)
    select_queue = qemu.blocks.common + Common.QUEUE_SELECT
    writes = timed_writes(doorbell, select_queue, count)
    return {"us": times.us(), "doorbell_us": writes.us()}


def main() -> None:
    """Measures and prints the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("qemu", "node"):
        parser.add_argument(name, type=Path)
    parser.add_argument("commands", type=int)
    parser.add_argument("--event-idx", action="store_true")
    asked = parser.parse_args()
    # The machine's memory is pinned, and that counts as locked, for root too.
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    with TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measured(asked, Path(folder)))))


if __name__ == "__main__":
    main()
