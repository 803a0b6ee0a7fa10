"""A story of a back end whose guest's memory is logged, and logged no more, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from unittest import mock

from tests.backend.vmm import OTHER_MAC, Heard
from tests.backend.written import changed, contents, driven
from tests.vhost_user.log_file import log_file, pages_in
from vdpad.queues.vhost_vdpa.shadowed_node import ShadowedNode
from vdpad.virtio.commands import MacAddrSet
from vdpad.virtio.features import Feature

from .back_end import acks, machine_on, packet, transmit
from .telling import Json

TIMES = 20
PACKETS = 5
LOG_SIZE = 1 << 31 >> 15
"""Of all the guest's memory."""


def logged(path: Path, folder: Path) -> Json:
    """Packets and commands while it is, and in between; at last the device is stopped."""
    return asyncio.run(_logged(path))


def restarted(path: Path, folder: Path) -> Json:
    """The same, as if the device's driver did not offer RESUME."""
    with mock.patch.object(ShadowedNode, "can_resume", new=False):
        return logged(path, folder)


async def _logged(path: Path) -> Json:
    seen: Json = {"packets": 0, "commands": 0}
    ways: set[str] = set()
    missed: set[int] = set()
    answers: set[int] = set()
    async with machine_on(path, Heard()) as (on, machine):
        await machine.start()
        # The simulator, which has no filter, gives back what is sent to its own address.
        loops = Feature.CTRL_RX not in machine.features
        go = partial(machine.loop, packet("round")) if loops else partial(transmit, machine)
        for time in range(TIMES):
            answers |= set(await acks(machine, [MacAddrSet(OTHER_MAC)]))
            await go()
            with log_file(LOG_SIZE) as log:
                await machine.log(log)
                before = contents(machine.guest)
                await _packets(go)
                assert on.device.logged is not None
                ways.add(on.device.logged.way)
                if time == TIMES - 1:
                    seen["bases"] = await machine.stop()
                else:
                    await machine.log_no_more()
                marked = pages_in(log)
                if loops or time == TIMES - 1:
                    missed |= changed(before, machine.guest) - driven(machine.guest) - marked
            seen["packets"] += 1 + PACKETS
            seen["commands"] += 1
        seen["all"] = marked == machine.guest.pages
    return {**seen, "ways": sorted(ways), "missed": sorted(missed), "acks": sorted(answers)}


async def _packets(go: Callable[[], Awaitable[object]]) -> None:
    for _ in range(PACKETS):
        await go()
