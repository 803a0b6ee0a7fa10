"""For how long a guest's queues stand still when its memory is logged, and when its device changes.

    make bench-moving

On the software device, in the back end's own process, with packets only in between. Logging is
timed as its front end sees it, from the request to its end; a switch tells its pause itself, from
the first device's suspension until the other's queues were kicked (paused_us of its report), after
a rehearsal for which nobody stands still.
"""

from __future__ import annotations

import asyncio
import mmap
import time

from benchmarks.back_end_tables import spread
from benchmarks.first_packet import FEW, MANY, settings
from benchmarks.tables import show
from tests.backend.devices import NeverResumed, NeverSuspended
from tests.backend.vmm import BackEnd, Vmm, back_end, vmm
from tests.vm.steps.logged import LOG_SIZE
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.vhost_user.dirty_log import DirtyLog

PAUSES = ("what", "settings", "median ms", "min…max", "rounds")
_LOGGINGS, _SWITCHES = 50, 20

Row = tuple[str, int, list[float]]


async def _log(on: BackEnd, log: DirtyLog | None) -> float:
    """Milliseconds of the request."""
    began = time.perf_counter()
    await on.device.log(log)
    return (time.perf_counter() - began) * 1000


async def _logged(device: LoopDevice, way: str, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each begin and of each end, of a guest that has set so much."""
    begun, ended = [], []
    async with back_end(device, in_order=not device.can_suspend) as on, vmm(on) as machine:
        await machine.start()
        await _set(machine, count)
        for _ in range(_LOGGINGS):
            log = DirtyLog(mmap.mmap(-1, LOG_SIZE))
            assert await machine.loop(b"packet") == b"packet"
            begun.append(await _log(on, log))
            assert on.device.logged is not None
            assert on.device.logged.way == way
            assert await machine.loop(b"packet") == b"packet"
            ended.append(await _log(on, None))
            log.close()
    return begun, ended


async def loggings() -> list[Row]:
    """By RESUME; by a restart, by what the guest has set; and where neither can be."""
    rows = []
    for name, device, way, count in (
        ("relay, resumed", LoopDevice(), "relay", 0),
        ("relay, restarted", NeverResumed(), "relay", 0),
        ("relay, restarted", NeverResumed(), "relay", FEW),
        ("relay, restarted", NeverResumed(), "relay", MANY),
        ("everything", NeverSuspended(), "everything", 0),
    ):
        begun, ended = await _logged(device, way, count)
        rows += [(f"logging begins: {name}", count, begun), (f"logging ends: {name}", count, ended)]
    return rows


async def _switched(count: int, log: DirtyLog | None) -> list[float]:
    """Milliseconds of each pause of a guest that has set so much."""
    paused = []
    async with back_end() as on, vmm(on) as machine:
        await machine.start()
        await _set(machine, count)
        await on.device.log(log)
        for _ in range(_SWITCHES):
            assert await machine.loop(b"packet") == b"packet"
            report = await on.device.switching.switch(LoopDevice)
            paused.append(report.paused_us / 1000)
        assert await machine.loop(b"packet") == b"packet"
        await on.device.log(None)
    return paused


async def _set(machine: Vmm, count: int) -> None:
    if not count:
        return
    answers = await machine.commands([each.encode() for each in settings(count)])
    assert set(answers) <= {b"\0"}, answers


async def switches() -> list[Row]:
    """By what the guest has set, and while it is logged."""
    rows = [("switch", count, await _switched(count, None)) for count in (0, FEW, MANY)]
    log = DirtyLog(mmap.mmap(-1, LOG_SIZE))
    rows.append(("switch while relayed", FEW, await _switched(FEW, log)))
    log.close()
    return rows


def main() -> None:
    """Measures and prints the table."""
    rows = asyncio.run(loggings()) + asyncio.run(switches())
    show(PAUSES, [[what, str(count), *spread(took, 2)] for what, count, took in rows])


if __name__ == "__main__":
    main()
