"""The driver in C that commits are held against does what they do."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.c_drivers import built, write_batch
from tests.support.devices import config, running
from vdpad.queues.software.device import SoftwareDevice
from vdpad.virtio.commands import Command, VlanAdd, VlanDel
from vdpad.virtio.features import Feature
from vdpad.virtio.packed_ring import PackedGeometry

# More than one lap of each ring, and a last bank of one.
COMMANDS = 129


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("lent_replay", tmp_path_factory.mktemp("built"))


async def _replayed(
    program: Path, batch: Path, device: SoftwareDevice, commands: Sequence[Command], start: int
) -> int:
    """Where the ring stands, once all were taken."""
    write_batch(commands, batch)
    geometry, lent = device.geometry, device.lend()
    packed = isinstance(geometry, PackedGeometry)
    areas = [part.iova for part in geometry.parts().values()]
    fds = (lent.memory, lent.kick)
    process = await asyncio.create_subprocess_exec(
        program,
        *["--packed"] * packed,
        *["--event-idx"] * (Feature.RING_EVENT_IDX in device.config.features),
        batch,
        *map(str, (*fds, f"{geometry.memory.iova:x}", geometry.size)),
        *(f"{each:x}" for each in areas),
        str(start),
        stdout=asyncio.subprocess.PIPE,
        pass_fds=fds,
    )
    told = json.loads((await process.communicate())[0])
    lent.close()
    assert told["rejected"] == 0
    return int(told["next"])


@pytest.mark.parametrize("ring_size", [4, 64, 256])
@pytest.mark.parametrize("event_idx", [False, True])
@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
async def test_each_command_reaches_the_device_one_batch_after_another(
    program: Path, tmp_path: Path, *, packed: bool, event_idx: bool, ring_size: int
) -> None:
    configured = config(ring_size=ring_size, event_idx=event_idx, packed=packed)
    vids = range(1, COMMANDS + 1)
    async with running(configured) as device:
        start = 0
        for commands, left in (
            ([VlanAdd(vid) for vid in vids], [*vids]),
            ([VlanDel(vid) for vid in vids], []),
        ):
            start = await _replayed(program, tmp_path / "batch", device, commands, start)
            assert device.net.settings()["vlans"] == left
