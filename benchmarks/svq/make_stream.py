"""A migration stream that carries a device's state, made by QEMU 10 without a guest.

    python -m benchmarks.svq.make_stream QEMU BATCH STREAM [--event-idx] [--ring N]

QEMU is the program. BATCH holds the commands as benchmarks/cvq_replay.c reads them. They are sent
to a virtio-net device whose driver is tests/qemu, and then the machine is migrated into STREAM,
which load_svq.py loads. Needs what tests/qemu needs: /dev/net/tun.

RING_EVENT_IDX and the control queue's size (64) are the guest's choice, and its shadow virtqueue
has the same, so each needs its stream. QEMU makes its own commands of the state that it loads, and
leaves out what it takes for the device's defaults, such as allmulti off.
"""

import argparse
import asyncio
import struct
from collections.abc import Iterator
from pathlib import Path

from tests.qemu.driver import driven
from tests.qemu.options import Options
from vdpad.virtio.features import Feature

# No more than the device has on which the stream is loaded.
NEGOTIATED = frozenset(
    int(feature)
    for feature in (
        *(Feature.CSUM, Feature.GUEST_CSUM, Feature.CTRL_GUEST_OFFLOADS, Feature.MAC),
        *(Feature.GUEST_TSO4, Feature.GUEST_TSO6, Feature.STATUS, Feature.CTRL_VQ),
        *(Feature.CTRL_RX, Feature.CTRL_VLAN, Feature.CTRL_RX_EXTRA, Feature.CTRL_MAC_ADDR),
        Feature.VERSION_1,
    )
)


def commands(batch: bytes) -> Iterator[bytes]:
    """The commands of a batch: each a little-endian u32 length and its bytes."""
    at = 0
    while at < len(batch):
        (length,) = struct.unpack_from("<I", batch, at)
        yield batch[at + 4 : at + 4 + length]
        at += 4 + length


async def make_stream(program: str, batch: bytes, ring_size: int, *, event_idx: bool) -> bytes:
    """The stream of a machine whose device has taken a batch.

    Raises:
        SystemExit: the device refused a command.
    """
    features = NEGOTIATED | ({int(Feature.RING_EVENT_IDX)} if event_idx else frozenset())
    options = Options(qemu=program, queue_pairs=1, ring_size=ring_size, negotiate=features)
    async with driven(options) as (qemu, driver):
        for number, command in enumerate(commands(batch)):
            if await driver.send(command):
                raise SystemExit(f"the device refused command {number}, {command.hex()}")
        return await qemu.stream()


def main() -> None:
    """Makes the stream that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("qemu")
    parser.add_argument("batch", type=Path)
    parser.add_argument("stream", type=Path)
    parser.add_argument("--event-idx", action="store_true")
    parser.add_argument("--ring", type=int, default=64)
    asked = parser.parse_args()
    batch = asked.batch.read_bytes()
    stream = asyncio.run(make_stream(asked.qemu, batch, asked.ring, event_idx=asked.event_idx))
    asked.stream.write_bytes(stream)


if __name__ == "__main__":
    main()
