"""64 clients and 256 software devices at once: `make bench-load`, or `python -m benchmarks.load`.

Prints how long answers took by method, and how the daemon stood: memory, descriptors, outcomes. The
clients share the processors with the daemon, so figures are of the two together.

    python -m benchmarks.load [--requests N]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.tables import show
from tests.support.load.crowd import Crowd, daemon, percentile
from tests.support.load.tally import Tally

HEADERS = ("method", "requests", "p50 ms", "p99 ms", "max ms")
PHASES = 10

# Records stay mapped for a second after a restore.
SETTLED = 2.0


def main(requests: int) -> None:
    """Measures and prints."""
    whole = Tally()
    resident, took, computed = [], 0.0, 0.0
    with (
        tempfile.TemporaryDirectory(prefix="vdpad-load-", dir="/dev/shm") as folder,
        daemon(Path(folder)) as running,
        Crowd(running.socket) as crowd,
    ):
        time.sleep(SETTLED)
        before = len(running.descriptors())
        for phase in range(PHASES):
            began, cpu = time.monotonic(), running.cpu_seconds()
            whole.add(crowd.ask(requests // PHASES))
            took += time.monotonic() - began
            computed += running.cpu_seconds() - cpu
            resident.append(running.resident_kib() / 1024)
            print(f"{(phase + 1) * 100 // PHASES} %", file=sys.stderr)
        time.sleep(SETTLED)
        after = len(running.descriptors())
    show(HEADERS, rows(whole))
    print()
    right = whole.outcomes.total()
    asked = sum(map(len, whole.latencies_us.values()))
    queued = Path("/proc/sys/net/unix/max_dgram_qlen").read_text().strip()
    us = [percentile(whole.commit_us, percent) for percent in (50, 99)]
    print(
        f"- {asked / took:.0f} requests a second; {computed / asked * 1e3:.2f} ms of processor each"
    )
    print(f"- as expected: {right} of {right + whole.wrong_total}, by {len(whole.outcomes)} names")
    print(f"- overloaded before they were looked at, and sent again: {whole.refused}")
    print(f"- commit_us of {len(whole.commit_us)} restores: p50 {us[0]:.0f}, p99 {us[1]:.0f}")
    print(f"- resident MiB: {', '.join(f'{each:.1f}' for each in resident)}, each 10 % of the run")
    print(f"- descriptors: {before} before, {after} after")
    print(f"- net.unix.max_dgram_qlen: {queued}")
    for line in whole.wrong:
        print(line, file=sys.stderr)


def rows(tally: Tally) -> list[list[str]]:
    """The table."""
    return [
        [
            method,
            str(len(us)),
            *(f"{percentile(us, percent) / 1000:.2f}" for percent in (50, 99)),
            f"{max(us) / 1000:.2f}",
        ]
        for method, us in sorted(tally.latencies_us.items())
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    main(parser.parse_args().requests)
