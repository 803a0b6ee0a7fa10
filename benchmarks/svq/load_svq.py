"""QEMU 10's own shadow virtqueue, loading a state on a vhost-vdpa device, timed by the kernel.

    python -m benchmarks.svq.load_svq QEMU NODE STREAM ROUNDS [--event-idx] [--doorbells] [--hold]

QEMU is the program, STREAM what make_stream.py made with the same, NODE the device, and
--event-idx must be given where STREAM was made with it. Runs as root on the machine that has
the device. Each round starts a QEMU, has it take the stream in and lets the machine go on: that
brings the device up and replays the state, from enable(control queue) to enable(data queue). QEMU's
firmware must be nothing but HLT (benchmarks/kernel.py makes it so), or it would go on from there.

A line of JSON for each round: us, doorbells, event_idx. With --doorbells they are counted, which
makes each dearer: don't take times from those rounds; else they are null. --hold keeps the device
up after each line until a line, or the end, comes in on stdin: the judge's chance to look.

What it needs: `modprobe vhost_vdpa max_iotlb_entries=65536`, or the machine's memory cannot be
mapped; a device without RING_INDIRECT_DESC, RING_RESET and GUEST_ANNOUNCE, which the shadow
virtqueue refuses (a QEMU's: indirect_desc=off,queue_reset=off,guest_announce=off).
"""

import argparse
import asyncio
import json
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.svq.trace import Load, Trace
from tests.qemu.layout import MEMORY_SIZE, MIB
from tests.qemu.options import Options
from tests.qemu.process import device_properties
from tests.qemu.qmp import Qmp

WARM_UP_BYTES = 128 * MIB
WARM_UP_SECONDS = 0.5
START_SECONDS = 60.0
PAGE = 4096


@asynccontextmanager
async def taken_in(qemu: Path, node: Path, stream: Path, *, event_idx: bool) -> AsyncIterator[Qmp]:
    """A QEMU that holds a stream's machine, not yet running."""
    ours, its = socket.socketpair()
    # What make_stream.py's machine has, or the stream doesn't fit.
    properties = device_properties(Options(queue_pairs=1))
    process = await asyncio.create_subprocess_exec(
        *(qemu, "-no-user-config", "-nodefaults"),
        *("-display", "none", "-accel", "tcg", "-S", "-incoming", "defer"),
        *("-machine", "pc,memory-backend=memory", "-m", f"{MEMORY_SIZE // MIB}M"),
        *("-object", f"memory-backend-memfd,id=memory,size={MEMORY_SIZE},share=on"),
        *("-netdev", f"vhost-vdpa,id=net,vhostdev={node},x-svq=on"),
        *("-device", f"{properties},event_idx={'on' if event_idx else 'off'}"),
        *("-chardev", f"socket,id=qmp,fd={its.fileno()}", "-mon", "chardev=qmp,mode=control"),
        pass_fds=(its.fileno(),),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=sys.stderr,
    )
    its.close()
    try:
        async with asyncio.timeout(START_SECONDS):
            qmp = await Qmp.over(ours)
            await qmp.execute("migrate-incoming", uri=f"file:{stream}")
            while (await qmp.execute("query-migrate")).get("status") != "completed":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield qmp
        await qmp.close()
    finally:
        process.kill()
        await process.wait()


def warm_up() -> None:
    """Keeps the memory and the processor busy for a while: after an idle spell all is slower."""
    memory = bytearray(WARM_UP_BYTES)
    until = time.monotonic() + WARM_UP_SECONDS
    while time.monotonic() < until:
        for at in range(0, len(memory), PAGE):
            memory[at] ^= 1


async def one_round(asked: argparse.Namespace, trace: Trace) -> None:
    """Loads once and prints the line."""
    async with taken_in(asked.qemu, asked.node, asked.stream, event_idx=asked.event_idx) as qmp:
        warm_up()
        trace.forget()
        await qmp.execute("cont")
        load: Load = trace.load()
        line = {"us": load.us, "doorbells": load.doorbells, "event_idx": asked.event_idx}
        print(json.dumps(line), flush=True)
        if asked.hold:
            sys.stdin.readline()


async def main() -> None:
    """Loads as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("qemu", "node", "stream"):
        parser.add_argument(name, type=Path)
    parser.add_argument("rounds", type=int)
    for flag in ("--event-idx", "--doorbells", "--hold"):
        parser.add_argument(flag, action="store_true")
    asked = parser.parse_args()
    # The machine's memory is pinned, and that counts as locked, for root too.
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    with Trace(doorbells=asked.doorbells) as trace:
        for _ in range(asked.rounds):
            await one_round(asked, trace)


if __name__ == "__main__":
    asyncio.run(main())
