"""What a turn of the relay costs, by what it gives back.

    make bench-moving

A turn is timed without a device: elements are put into our used ring, and the turn gives them back
and marks their pages. From the turn's time follow packets a second, where a turn takes all of a
ring.
"""

import mmap
import statistics
import time
from contextlib import ExitStack

from benchmarks.tables import show
from vdpad.backend.relay.relay import Relay, queue_in
from vdpad.vhost_user.dirty_log import DirtyLog
from vdpad.virtio.guest_memory import GuestMemory
from vdpad.virtio.rings import DESC_F_NEXT, DESC_F_WRITE, Region
from vdpad.virtio.split_ring import DESCRIPTOR, lay_out

_AT = 0x100000
_MEMORY = 16 << 20
_ROUNDS = 300
_ELEMENTS = (0, 1, 4, 16, 19, 20, 32, 64, 128, 256, 512, 1024)


def turn_times(size: int, *, chained: bool) -> dict[int, float]:
    """Microseconds of a turn by how many elements it gives back; the best tenth of the rounds."""
    memory = GuestMemory()
    memory.add(Region(_AT, _MEMORY), memoryview(mmap.mmap(-1, _MEMORY)))
    ring = lay_out(size, Region(_AT, 1 << 20))
    _describe(memory, ring.descriptors, size, chained=chained)
    ours = memoryview(mmap.mmap(-1, 1 << 20))
    log = DirtyLog(mmap.mmap(-1, (_AT + _MEMORY) >> 15))
    chains = size // 2 if chained else size
    with ExitStack() as views:
        queue = queue_in(views, memory, ring.addresses, ours, indirect=True)
        relay = Relay(queue, memory, log, event_idx=True)
        relay.begin()
        elements = ours[4 : 4 + 8 * size].cast("I")
        for at in range(size):
            elements[2 * at] = at % chains * (2 if chained else 1)
            elements[2 * at + 1] = 1500
        index = ours[: 4 + 8 * size].cast("H")
        return {n: _turn_time(relay, index, n) for n in _ELEMENTS if n <= chains}


def _describe(memory: GuestMemory, table: int, size: int, *, chained: bool) -> None:
    for at in range(size):
        follows = chained and not at % 2
        flags = DESC_F_WRITE | (DESC_F_NEXT if follows else 0)
        length = 12 if follows else 1536
        entry = DESCRIPTOR.pack(
            _AT + (1 << 20) + at * 1536, length, flags, at + 1 if follows else 0
        )
        memory.write(table + DESCRIPTOR.size * at, entry)


def _turn_time(relay: Relay, index: memoryview, elements: int) -> float:
    times = []
    for _ in range(_ROUNDS):
        index[1] = (index[1] + elements) & 0xFFFF
        began = time.perf_counter_ns()
        relay.turn()
        times.append(time.perf_counter_ns() - began)
    return statistics.quantiles(times, n=10)[0] / 1000


def _figure(us: float | None) -> str:
    return "" if us is None else f"{us:.1f}"


def main() -> None:
    """Prints all of it."""
    kinds = {
        "256": turn_times(256, chained=False),
        "1024": turn_times(1024, chained=False),
        "1024, chains of two": turn_times(1024, chained=True),
    }
    rows = [[n, *(_figure(times.get(n)) for times in kinds.values())] for n in _ELEMENTS]
    print("microseconds of a turn, by the ring and how many chains it gives back")
    show(["chains", *kinds], rows)
    for kind, times in kinds.items():
        most = max(times)
        print(f"{kind}: {most / times[most]:.1f} million packets a second")


if __name__ == "__main__":
    main()
