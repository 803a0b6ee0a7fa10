"""What a receive queue passes on, by itself and relayed: testpmd's packets go round a device.

    make bench-moving

testpmd sends back what it receives, and the software device loops it. The device is this process's,
as the relay is, so they share an interpreter: what the relay costs a device of its own shows in the
processor's time for each packet, and not in packets a second.
"""

import asyncio
import mmap
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.rates import RECEIVED, Rate, received_row
from benchmarks.tables import show
from tests.dpdk.test_packets import Loop, looping
from tests.dpdk.testpmd import PROGRAM, run_testpmd
from vdpad.vhost_user.dirty_log import DirtyLog

_ROUNDS, _SECONDS = 7, 2.0
# Of 32 packets each, all on their way at once: nearly a ring of them.
_BURSTS = 7
# Of all addresses below 1 TiB, of which testpmd has some; one bit a page.
_LOG = 1 << 40 >> 12 >> 3


async def rates() -> dict[str, list[Rate]]:
    """In each state, which take turns."""
    found: dict[str, list[Rate]] = {"passed through": [], "relayed": []}
    with tempfile.TemporaryDirectory(prefix="vdpad-bench-") as folder:
        path = Path(folder) / "back-end"
        async with looping(path) as loop, run_testpmd(path) as running:
            await running.tell(f"start tx_first {_BURSTS}")
            for _ in range(_ROUNDS):
                found["passed through"].append(await _rate(loop))
                log = DirtyLog(mmap.mmap(-1, _LOG))
                await loop.on.device.log(log)
                found["relayed"].append(await _rate(loop))
                await loop.on.device.log(None)
                log.close()
    return found


async def _rate(loop: Loop) -> Rate:
    packets, began, busy = loop.device.packets, time.perf_counter(), time.process_time()
    await asyncio.sleep(_SECONDS)
    took = time.perf_counter() - began
    return Rate((loop.device.packets - packets) / took, (time.process_time() - busy) / took)


def main() -> None:
    """Prints it, where there is a testpmd."""
    if shutil.which(PROGRAM) is None:
        print(f"a receive queue: no {PROGRAM} (Debian: dpdk-dev)")
        return
    rows = [received_row(state, each) for state, each in asyncio.run(rates()).items()]
    print(f"a receive queue of 256 entries, testpmd's packets; the median of {_ROUNDS} rounds")
    show(RECEIVED, rows)


if __name__ == "__main__":
    main()
