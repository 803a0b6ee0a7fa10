"""How long the back end takes to give a guest's memory to a vhost-vdpa device; as root, beside it.

    python -m benchmarks.mapping_on_device NODE

Memory comes as a VMM's does, in a memfd, by ADD_MEM_REG, whose ack is waited for: of several sizes,
of usual pages and huge ones of 2 MiB, which nobody has touched yet and which are all there. For
huge ones /proc/sys/vm/nr_hugepages must be set. Each comes and goes. What is printed is JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import mmap
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.backend.vmm import USER, Vmm
from tests.vhost_user import front_end as protocol
from tests.vm.steps.asleep import served
from vdpad.virtio.bits import mask_of

MIB = 1 << 20
SIZES = (256, 512, 1024)
"""In MiB."""
FIRST = 1 << 32


@contextmanager
def memory(size: int, *, huge: bool, touched: bool) -> Iterator[int]:
    """A memfd of so many bytes."""
    pages = os.MFD_HUGETLB | os.MFD_HUGE_2MB if huge else 0
    fd = os.memfd_create("guest", os.MFD_CLOEXEC | pages)
    try:
        os.ftruncate(fd, size)
        if touched:
            mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE).close()
        yield fd
    finally:
        os.close(fd)


async def mapped_ms(guest: Vmm, size: int, fd: int) -> float:
    """From ADD_MEM_REG to its ack; it is taken away again."""
    region = protocol.single(FIRST, size, USER, 0)
    began = time.perf_counter()
    await guest.front_end.done(protocol.ADD_MEM_REG, region, [fd])
    took = time.perf_counter() - began
    await guest.front_end.done(protocol.REM_MEM_REG, region)
    return took * 1000


async def measured(node: Path) -> list[dict[str, Any]]:
    """All of it."""
    found = []
    async with served(node) as (guest, _):
        features = mask_of(guest.features) | protocol.NOT_A_FLAG_OF_OURS
        await guest.front_end.negotiate(features)
        for mib, huge, touched in itertools.product(SIZES, (False, True), (False, True)):
            with memory(mib * MIB, huge=huge, touched=touched) as fd:
                took = await mapped_ms(guest, mib * MIB, fd)
            found.append({"mib": mib, "huge": huge, "touched": touched, "ms": took})
    return found


if __name__ == "__main__":
    # Most drivers pin the memory, which counts as locked, for root too; the back end inherits it.
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    print(json.dumps(asyncio.run(measured(Path(sys.argv[1])))))
