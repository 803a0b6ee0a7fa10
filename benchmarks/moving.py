"""What it costs to log a guest's memory by a relay, and to switch its device: `make bench-moving`.

    python -m benchmarks.moving [--no-kernel]

Each part has a file of its own, which says what is measured: relay, received, quiet_relay, pauses
and marked on the software device, and received_in_vm in the virtual machine.
"""

from __future__ import annotations

import argparse

from benchmarks import marked, pauses, quiet_relay, received, received_in_vm, relay


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-kernel", action="store_true", help="leave the virtual machine out")
    asked = parser.parse_args()
    for part in (relay, received, quiet_relay, pauses, marked):
        part.main()
    if not asked.no_kernel:
        received_in_vm.measure()


if __name__ == "__main__":
    main()
