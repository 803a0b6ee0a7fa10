"""A batch replayed on a vhost-vdpa device by vdpad's own replay, or one by one; as root, beside it.

    python -m benchmarks.on_device NODE BATCH ROUNDS [--event-idx] [--one-by-one]

Like benchmarks/cvq_replay.c: BATCH is a file of encoded commands, each a little-endian u32 length
and that many bytes; each round opens the device, brings it up, replays and closes; a line of JSON
says what the round took, from the first image copied to the last ack read.
"""

import argparse
import asyncio
import json
import struct
from collections.abc import Iterator
from pathlib import Path

from benchmarks.one_by_one import send_one_by_one
from vdpad.daemon.operations.collector import no_collection
from vdpad.queues.vhost_vdpa.device import VhostVdpaDevice
from vdpad.restore.program import encode
from vdpad.restore.replay import replay
from vdpad.virtio.commands import Command, decode_command
from vdpad.virtio.features import Feature, FeatureSet

POLL_NS = 1_000_000
SECONDS = 60.0
NO_TRANSPORT: FeatureSet = frozenset(range(24))


def read_batch(data: bytes) -> Iterator[Command]:
    """The commands of a batch file."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        yield decode_command(data[at : at + length])
        at += length


async def one_round(
    node: Path, commands: tuple[Command, ...], *, event_idx: bool, pipelined: bool
) -> dict[str, float]:
    """Brings the device up, and replays."""
    guest = NO_TRANSPORT | ({Feature.RING_EVENT_IDX} if event_idx else set())
    device = VhostVdpaDevice(node, guest)
    if device.event_idx is not event_idx:
        raise SystemExit(f"{node} does not offer RING_EVENT_IDX")
    geometry = device.geometry
    queue = device.queue()
    try:
        if not pipelined:
            programs = [encode((each,), geometry, event_idx=False) for each in commands]
            with no_collection():
                sent = send_one_by_one(programs, queue)
            return {"us": sent.commit_us, "doorbells": sent.doorbells, "rejected": sent.refused}
        program = encode(commands, geometry, event_idx=event_idx)
        with no_collection():
            deadline = asyncio.get_running_loop().time() + SECONDS
            done = await replay(program, queue, deadline=deadline, poll_ns=POLL_NS)
        if done.unanswered:
            raise SystemExit(f"{node}: {len(done.unanswered)} commands unanswered; {done.fault}")
        rejected = len(done.rejected)
        return {"us": done.elapsed_ns / 1000, "doorbells": done.doorbells, "rejected": rejected}
    finally:
        queue.close()
        device.close()


async def main() -> None:
    """All rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("node", type=Path)
    parser.add_argument("batch", type=Path)
    parser.add_argument("rounds", type=int)
    parser.add_argument("--event-idx", action="store_true")
    parser.add_argument("--one-by-one", action="store_true")
    asked = parser.parse_args()
    commands = tuple(read_batch(asked.batch.read_bytes()))
    for _ in range(asked.rounds):
        sent = await one_round(
            asked.node, commands, event_idx=asked.event_idx, pipelined=not asked.one_by_one
        )
        print(json.dumps(sent), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
