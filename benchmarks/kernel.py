"""On the kernel's vhost-vdpa devices, in a virtual machine: `make bench-kernel`.

Every way sends the same commands to the same device: Python one by one, vdpad's replay, a C program
one by one and pipelined, the daemon over its socket, and, where the device has what it needs, QEMU
10's shadow virtqueue. They take turns, block after block in random order; the first round of each
block warms up and does not count. What arrived is confirmed by the outer QEMU.

    python -m benchmarks.kernel [--blocks N] [--rounds N] [--cpus N] [--no-svq]
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.c_drivers import built, write_batch
from benchmarks.tables import show
from tests.qemu.versions import TRIXIE
from tests.vm.host import Caller, migration, start, vhost_vdpa
from tests.vm.machine import ROOT, Machine, machine, why_unavailable
from vdpad.restore.capabilities import Capabilities
from vdpad.restore.plan import Plan, plan
from vdpad.state.model import NetState
from vdpad.virtio.commands import Command, MacAddrSet
from vdpad.virtio.features import FEATURES

HEADERS = ("device", "EVENT_IDX", "way", "doorbells", "ms", "min…max", "of C", "rounds")
FEATURE_NAMES = (
    *("CSUM", "GUEST_CSUM", "CTRL_GUEST_OFFLOADS", "MAC", "GUEST_TSO4", "GUEST_TSO6", "STATUS"),
    *("CTRL_VQ", "CTRL_RX", "CTRL_VLAN", "CTRL_RX_EXTRA", "CTRL_MAC_ADDR"),
)
STATE: dict[str, Any] = {
    "version": 1,
    "features": list(FEATURE_NAMES),
    "mac": "52:54:00:12:34:56",
    "rx": {"promisc": False, "allmulti": True},
    "mac_table": {"unicast": ["52:54:00:00:01:01"], "multicast": ["01:00:5e:00:01:01"]},
    "vlans": [[1, 4094]],
    "guest_offloads": ["GUEST_CSUM", "GUEST_TSO4"],
}
VLANS = tuple(range(1, 4095))
BIOS_BYTES = 256 << 10
HLT = b"\xf4"

# vdpa_sim_net takes nothing else.
SIMULATORS = tuple(MacAddrSet(bytes((2, 0, 0, 0, at >> 8, at & 0xFF))) for at in range(4099))


@dataclass
class Series:
    """The figures of one way."""

    us: list[float] = field(default_factory=list)
    doorbells: list[int] = field(default_factory=list)


Round = dict[str, Any]
Way = Callable[[int], list[Round]]
"""Does so many rounds."""


@dataclass(frozen=True)
class Files:
    """What is made before the machine boots; the machine sees this host's files."""

    c_program: Path
    batches: dict[str, Path]
    qemu10: Path
    """The program; its machine halts at the first instruction."""
    streams: dict[bool, Path]
    """QEMU 10's, with RING_EVENT_IDX and without; none where it is left out."""


def commands_of(state: dict[str, Any]) -> tuple[Command, ...]:
    """The commands that the daemon would send."""
    parsed = NetState.model_validate_json(json.dumps(state))
    features = frozenset(FEATURES.bit(name) for name in FEATURE_NAMES)
    planned = plan(parsed, Capabilities(features=features, largest_command=1 << 17))
    assert isinstance(planned, Plan), planned
    return planned.commands


def make_files(folder: Path, *, svq: bool) -> Files:
    """The C program, the batches, and the streams."""
    program = built("cvq_replay", folder)
    batches = {"vp0": folder / "vp0.batch", "sim0": folder / "sim0.batch"}
    for name, commands in (("vp0", commands_of(STATE)), ("sim0", SIMULATORS)):
        write_batch(commands, batches[name])
    streams = {}
    qemu10 = halting(Path(TRIXIE.program), folder)
    if svq:
        subprocess.run([ROOT / ".ci/qemu", TRIXIE.name], check=True, stdout=subprocess.DEVNULL)
        for event_idx in (True, False):
            streams[event_idx] = folder / f"stream-{event_idx}"
            make = [sys.executable, "-m", "benchmarks.svq.make_stream"]
            flags = ["--event-idx"] if event_idx else []
            files = (qemu10, batches["vp0"], streams[event_idx])
            subprocess.run([*make, *map(str, files), *flags], check=True, cwd=ROOT)
    return Files(program, batches, qemu10, streams)


def halting(qemu: Path, folder: Path) -> Path:
    """A QEMU whose firmware is nothing but HLT.

    Loading a machine's devices is what is wanted; a guest that ran on would set them up anew.
    """
    firmware, program = folder / "halt.bin", folder / "qemu-halting"
    firmware.write_bytes(HLT * BIOS_BYTES)
    program.write_text(f'#!/bin/sh\nexec "{qemu}" -bios "{firmware}" "$@"\n')
    program.chmod(0o755)
    return program


# --- the ways ---


def program_way(vm: Machine, argv: Sequence[object], *flags: str) -> Way:
    """A program in the machine that takes NODE BATCH ROUNDS and prints a line for each round."""

    def rounds(count: int) -> list[Round]:
        done = vm.run(*map(str, argv), str(count), *flags)
        if done.code:
            raise SystemExit(f"{argv}: {done.err}")
        lines: list[Round] = [json.loads(line) for line in done.out.splitlines()]
        assert not any(line.get("rejected") for line in lines), lines
        return lines

    return rounds


def daemon_way(vm: Machine, daemon: Caller, *, event_idx: bool) -> Way:
    """prepare, commit, release; the report's commit_us. The outer QEMU confirms each."""
    features = [*FEATURE_NAMES, *(["RING_EVENT_IDX"] if event_idx else [])]

    def rounds(count: int) -> list[Round]:
        found = []
        for _ in range(count):
            name = migration()
            state = {**STATE, "features": features}
            daemon.result("prepare", migration=name, state=state, target=vhost_vdpa("vp0"))
            report = daemon.result("commit", migration=name)
            assert vm.rx_filter().vlan_table == VLANS
            daemon.result("release", device="vp0")
            found.append({"us": report["commit_us"], "doorbells": report["doorbells"]})
        return found

    return rounds


def ways_on(
    vm: Machine, daemon: Caller, files: Files, device: str, *, event_idx: bool
) -> dict[str, Way]:
    """All ways that a device allows."""
    node = f"/dev/vhost-vdpa-{('vp0', 'sim0').index(device)}"
    flags = ["--event-idx"] if event_idx else []
    ring = ["--ring", "64" if device == "vp0" else "256"]
    module = [*("env", f"PYTHONPATH={ROOT}", sys.executable, "-m")]
    python = [*module, "benchmarks.on_device", node, files.batches[device]]
    c = [files.c_program, node, files.batches[device]]
    ways = {
        "Python, one by one": program_way(vm, python, "--one-by-one"),
        "C, one by one": program_way(vm, c, "--one-by-one", *ring),
        "vdpad": program_way(vm, python, *flags),
        "C, pipelined": program_way(vm, c, *flags, *ring),
    }
    if device == "vp0":
        ways["vdpad, the daemon"] = daemon_way(vm, daemon, event_idx=event_idx)
        if event_idx in files.streams:
            svq = [*module, "benchmarks.svq.load_svq", files.qemu10, node, files.streams[event_idx]]
            ways["QEMU 10's shadow virtqueue"] = program_way(vm, svq, *flags)
            ways["the same, doorbells counted"] = program_way(vm, svq, *flags, "--doorbells")
    return ways


# --- measuring ---


def measure(ways: dict[str, Way], blocks: int, rounds: int) -> dict[str, Series]:
    """All ways in turns."""
    series = {name: Series() for name in ways}
    for block in range(blocks):
        for name in random.sample(list(ways), len(ways)):
            for each in ways[name](rounds + 1)[1:]:
                series[name].us.append(each["us"])
                if each["doorbells"] is not None:
                    series[name].doorbells.append(each["doorbells"])
        print(f"block {block + 1} of {blocks}", file=sys.stderr)
    return series


def rows_of(device: str, event_idx: bool, series: dict[str, Series]) -> Iterator[list[Any]]:
    """The lines of the table."""
    c = statistics.median(series["C, pipelined"].us)
    for way, its in series.items():
        median = statistics.median(its.us)
        bells = sorted(set(its.doorbells))
        yield [
            device,
            "yes" if event_idx else "no",
            way,
            "" if not bells else bells[0] if len(bells) == 1 else f"{bells[0]}-{bells[-1]}",
            f"{median / 1000:.2f}",
            f"{min(its.us) / 1000:.2f}…{max(its.us) / 1000:.2f}",
            f"{median / c:.2f}",
            len(its.us),
        ]


def main() -> None:
    """Measures everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="of each block")
    parser.add_argument("--cpus", type=int, default=1, help="of the machine")
    parser.add_argument("--no-svq", action="store_true", help="leave QEMU 10 out")
    asked = parser.parse_args()
    if (reason := why_unavailable()) is not None:
        raise SystemExit(reason)
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory(prefix="vdpad-bench-") as folder:
        files = make_files(Path(folder), svq=not asked.no_svq)
        with machine(cpus=asked.cpus, device="queue_reset=off", memory="2G") as vm:
            daemon = start(vm)
            for device, event_idx in (("vp0", True), ("vp0", False), ("sim0", False)):
                ways = ways_on(vm, daemon, files, device, event_idx=event_idx)
                series = measure(ways, asked.blocks, asked.rounds)
                rows += rows_of(device, event_idx, series)
            daemon.terminate()
    show(HEADERS, rows)


if __name__ == "__main__":
    main()
