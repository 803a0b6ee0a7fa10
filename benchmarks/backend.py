"""A guest's commands through the back end's shadow: `make bench-backend`.

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
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar
from unittest import mock

from tabulate import tabulate

from benchmarks.shadow_guest import Times, send_one_by_one, vlan_commands
from tests.backend.inline import InlineQueue
from tests.backend.vmm import PLAIN, Vmm, back_end, vmm
from tests.vm.host import Json
from tests.vm.machine import machine, why_unavailable
from tests.vm.test_steps import NODES
from vdpad.backend import running
from vdpad.backend.shadow import Shadow
from vdpad.queues.control_queue import ControlQueue
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.virtio.features import Feature, FeatureSet

CPUS = sorted(os.sched_getaffinity(0))
GUESTS_CPU, BACK_ENDS_CPU = CPUS[:1], CPUS[1:2] or CPUS
WARM_UP = 200

HEADERS = ("device", "EVENT_IDX", "commands", "median µs", "p99 µs")
PARTS = ("woken", "taken", "carried out", "told", "returned", "seen", "interrupted")


class AtOnce(LoopDevice):
    """A device that carries out commands within its doorbell: what is left is the back end's."""

    def control_queue(self) -> ControlQueue:
        queue = InlineQueue(lambda readable: bytes((self.net.command(readable),)), size=64)
        self.control_geometry = queue.geometry
        return queue


DEVICES: dict[str, Callable[[], ShadowedDevice]] = {"software": LoopDevice, "at once": AtOnce}


# --- what happens in between ---


class Clocked(Shadow):
    """A shadow that takes down when it has done what, in a row for each command."""

    rows: ClassVar[list[list[int]]] = []
    """Of the one that runs."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        ring, forwarder = self._ring, self._forwarder
        take, forward, told, put = ring.take, forwarder.forward, self._acknowledged, ring.put
        clock = time.perf_counter_ns

        def taken() -> Any:
            began = clock()
            if chains := take():
                self.rows.append([began, clock()])
            return chains

        async def forwarded(command: bytes, room: int) -> bytes:
            answer = await forward(command, room)
            self.rows[-1].append(clock())
            return answer

        def heard(command: bytes, answer: bytes) -> None:
            told(command, answer)
            self.rows[-1].append(clock())

        def returned(head: int, length: int) -> None:
            put(head, length)
            self.rows[-1].append(clock())

        self._acknowledged = heard
        for of, name, call in (
            (ring, "take", taken),
            (forwarder, "forward", forwarded),
            (ring, "put", returned),
        ):
            setattr(of, name, call)

    def set_call(self, call: int | None) -> None:
        super().set_call(call)
        interrupt = self._call

        def called() -> None:
            assert interrupt is not None
            interrupt()
            self.rows[-1].append(time.perf_counter_ns())

        self._call = called  # type: ignore[assignment]


def parts_of(times: Times, rows: list[list[int]]) -> list[float]:
    """Medians of each of PARTS, in microseconds.

    The last two begin at once: a guest that looks at its ring sees the command before it is
    interrupted.
    """
    steps = []
    for began, row, ended in zip(times.began, rows, times.ended, strict=True):
        if len(row) < len(PARTS) - 1:
            continue  # the guest had seen it, and wanted no interrupt any more
        *until_put, called = [began, *row]
        inside = [after - before for before, after in pairwise(until_put)]
        put = until_put[-1]
        steps.append([*inside, ended - put, called - put])
    return [statistics.median(each) / 1000 for each in zip(*steps, strict=True)]


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


def us(value: float) -> str:
    """A figure of the tables."""
    return f"{value:.1f}"


def row_of(device: str, event_idx: str, sorted_us: list[float]) -> list[str]:
    """A line of the first table."""
    at = len(sorted_us)
    median, p99 = sorted_us[at // 2], sorted_us[at * 99 // 100]
    return [device, event_idx, str(at), us(median), us(p99)]


def show(headers: tuple[str, ...], rows: list[list[str]]) -> None:
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True), end="\n\n")


def measure_software(commands: int) -> None:
    """Both software devices, with RING_EVENT_IDX and without; then where the time goes."""
    os.sched_setaffinity(0, BACK_ENDS_CPU)
    rows, parts = [], []
    for name, make in DEVICES.items():
        for event_idx, features in (("yes", PLAIN), ("no", PLAIN - {Feature.RING_EVENT_IDX})):
            times = asyncio.run(timed(make(), features, commands))
            rows.append(row_of(name, event_idx, times.us()))
        Clocked.rows.clear()
        with mock.patch.object(running, "Shadow", Clocked):
            times = asyncio.run(timed(make(), PLAIN, commands))
        parts.append([name, *map(us, parts_of(times, Clocked.rows[-commands:]))])
    show(HEADERS, rows)
    show(("device", *(f"{part} µs" for part in PARTS)), parts)


# --- on the kernel's devices ---


def measure_kernel(commands: int) -> None:
    """In the virtual machine: commands, and packets while the back end runs and is stopped."""
    if (reason := why_unavailable()) is not None:
        raise SystemExit(reason)
    rows, packets = [], []
    with machine() as vm:
        for device, node in NODES.items():
            argv = ("benchmarks.shadow_on_device", node, str(commands))
            told: Json = json.loads(vm.output(sys.executable, "-m", *argv))
            rows.append(row_of(device, told["event_idx"], told["us"]))
            for state, rates in told["packets"].items():
                median = statistics.median(rates)
                spread = f"{min(rates):.0f}…{max(rates):.0f}"
                packets.append([device, state, f"{median:.0f}", spread, str(len(rates))])
    show(HEADERS, rows)
    show(("device", "back end", "packets/s", "min…max", "rounds"), packets)


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=5000)
    parser.add_argument("--no-kernel", action="store_true", help="leave the virtual machine out")
    asked = parser.parse_args()
    measure_software(asked.commands)
    if not asked.no_kernel:
        measure_kernel(asked.commands // 10)


if __name__ == "__main__":
    main()
