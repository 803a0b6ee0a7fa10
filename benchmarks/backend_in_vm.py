"""The back end on the kernel's devices, in the virtual machine; a part of `make bench-backend`.

    python -m benchmarks.backend_in_vm [--commands N] [--no-svq]

Each program of it runs in the machine, beside the device: shadow_on_device, first_packet,
mapping_on_device, svq/one_by_one. The machine has one processor, on which Python is emulated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.back_end_tables import (
    COMMANDS,
    MAPPINGS,
    PACKETS,
    STARTS_OF,
    command_row,
    spread,
)
from benchmarks.first_packet import FEW, MANY
from benchmarks.mapping_on_device import SIZES
from benchmarks.tables import show
from tests.qemu.versions import TRIXIE
from tests.vm.machine import ROOT, Machine, machine, why_unavailable
from tests.vm.test_steps import NODES

HUGE_PAGES = SIZES[-1] // 2
"""Of 2 MiB."""
# For those, and for as much of usual pages.
MEMORY = "4G"
TAKEN = {"vp0": (0, FEW, MANY), "sim0": (0, 1)}
"""How much guests have set, by device; the simulator takes an address."""


def told(vm: Machine, module: str, *arguments: object) -> Any:
    """What a program of ours in the machine prints."""
    return json.loads(vm.output(sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)))


def measure_commands(vm: Machine, commands: int, *, svq: bool) -> None:
    """Commands, and packets while the back end runs and is stopped."""
    rows, packets = [], []
    for device, node in NODES.items():
        seen = told(vm, "shadow_on_device", node, commands)
        rows.append(command_row(device, seen["event_idx"], seen["us"]))
        for state, rates in seen["packets"].items():
            packets.append([device, state, *spread(rates, 0)])
    if svq:
        seen = told(vm, "svq.one_by_one", TRIXIE.program, NODES["vp0"], commands, "--event-idx")
        rows.append(command_row("vp0, QEMU 10's shadow virtqueue", "yes", seen["us"]))
        rows.append(command_row("of it, a write over qtest", "", seen["doorbell_us"]))
    show(COMMANDS, rows)
    show(PACKETS, packets)


def measure_starts(vm: Machine) -> None:
    """From a guest's start to its first packet."""
    rows = []
    for device, node in NODES.items():
        for count in TAKEN[device]:
            rows.append([device, str(count), *spread(told(vm, "first_packet", node, count))])
    show(STARTS_OF, rows)


def measure_mappings(vm: Machine) -> None:
    """A guest's memory, by its size and its pages."""
    vm.ask("write", path="/proc/sys/vm/nr_hugepages", text=str(HUGE_PAGES))
    rows: list[list[str]] = []
    for device, node in NODES.items():
        rows += _mapping_rows(device, told(vm, "mapping_on_device", node))
    show(MAPPINGS, rows)


def _mapping_rows(device: str, found: list[dict[str, Any]]) -> Iterator[list[str]]:
    for huge in (False, True):
        for touched in (False, True):
            took = {
                each["mib"]: each["ms"]
                for each in found
                if (each["huge"], each["touched"]) == (huge, touched)
            }
            pages, there = "2 MiB" if huge else "4 KiB", "yes" if touched else "no"
            yield [device, pages, there, *(f"{took[mib] / 1000:.3f}" for mib in SIZES)]


def measure(commands: int, *, svq: bool = True) -> None:
    """All of it, in one machine."""
    if (reason := why_unavailable()) is not None:
        raise SystemExit(reason)
    if svq:
        subprocess.run([ROOT / ".ci/qemu", TRIXIE.name], check=True, stdout=subprocess.DEVNULL)
    with machine(device="queue_reset=off", memory=MEMORY) as vm:
        measure_commands(vm, commands, svq=svq)
        measure_starts(vm)
        measure_mappings(vm)


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=500)
    parser.add_argument("--no-svq", action="store_true", help="leave QEMU 10 out")
    asked = parser.parse_args()
    measure(asked.commands, svq=not asked.no_svq)


if __name__ == "__main__":
    main()
