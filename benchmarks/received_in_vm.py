"""A receive queue of the kernel's simulator, in the virtual machine; a part of `make bench-moving`.

    python -m benchmarks.received_in_vm

vdpa_sim_net gives back what it is sent, and can be suspended and resumed. On that same device the
queue is passed through and relayed by the back end (received_on_device.py), and shadowed by QEMU 10
(svq/received.py), with a guest's driver that is the same in all three. The machine has one
processor, on which Python and QEMU are emulated.
"""

from __future__ import annotations

import subprocess

from benchmarks.backend_in_vm import told
from benchmarks.rates import RECEIVED, Rate, received_row
from benchmarks.tables import show
from tests.qemu.versions import TRIXIE
from tests.vm.machine import ROOT, machine, why_unavailable
from tests.vm.test_steps import NODES

ROUNDS = 7
SHADOWED = "QEMU 10's shadow virtqueue"


def measure() -> None:
    """All of it, in one machine."""
    if (reason := why_unavailable()) is not None:
        raise SystemExit(reason)
    subprocess.run([ROOT / ".ci/qemu", TRIXIE.name], check=True, stdout=subprocess.DEVNULL)
    with machine(device="queue_reset=off") as vm:
        found = told(vm, "received_on_device", NODES["sim0"], ROUNDS)
        shadow = told(vm, "svq.received", TRIXIE.program, NODES["sim0"], ROUNDS)
    found[SHADOWED] = shadow["rates"]
    rows = [received_row(state, [Rate(*each) for each in rates]) for state, rates in found.items()]
    print("a receive queue of 256 entries of vdpa_sim_net, in the virtual machine")
    show(RECEIVED, rows)
    print(f"of QEMU's, a write over qtest: {shadow['write_us']:.1f} µs of a processor")


if __name__ == "__main__":
    measure()
