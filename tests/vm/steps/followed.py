"""A story of a back end that follows the monitor of a QEMU, which keeps its guest's control queue.

That QEMU runs in the machine too; the driver of its guest is the story's, over qtest. The back end
is the program, as an operator starts it.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.backend.process import PROGRAM, BackEndProcess
from tests.qemu.device import sensible
from tests.qemu.guest_driver import GuestDriver, guest_memory
from tests.qemu.qmp import RxFilter
from tests.qemu.versions import TRIXIE
from tests.qemu.vhost_user import Machine, machine
from vdpad.virtio.commands import (
    Command,
    MacAddrSet,
    MacTableSet,
    RxAllMulti,
    RxNoBcast,
    RxPromisc,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.features import Feature

from .back_end import CONTROL, SETTINGS
from .telling import Json, pause

CARD = (
    *("-netdev", "vhost-user,id=net,chardev=back-end"),
    *("-device", "virtio-net-pci,netdev=net,romfile=,disable-legacy=on"),
)
LESS: tuple[Command, ...] = (
    *(RxAllMulti(on=False), RxNoBcast(on=True), MacTableSet((), ())),
    *(VlanDel(vid) for vid in range(200, 301)),
)
TOO_MANY = tuple(bytes.fromhex(f"5200000002{n:02x}") for n in range(70))
WIDER: tuple[Command, ...] = (
    *(MacTableSet(TOO_MANY, ()), RxPromisc(on=True), RxNoBcast(on=False)),
    *(MacAddrSet(bytes.fromhex("5254000000bb")), VlanAdd(4000)),
)


@dataclass
class Followed:
    """A guest, its QEMU, and the back end."""

    folder: Path
    node: Path
    qemu: Machine
    control: GuestDriver
    back_end: BackEndProcess

    async def told(self, place: str) -> None:
        """Pauses, with the filter that this QEMU's card has."""
        inner = await self.qemu.qmp.query_rx_filter()
        await asyncio.to_thread(pause, self.folder, place, inner=admitted(inner))

    async def acks(self, commands: Sequence[Command]) -> None:
        """The guest sets these."""
        answers = await self.control.commands([each.encode() for each in commands])
        assert {*answers} == {b"\0"}

    async def begin_anew(self) -> None:
        """The back end is killed, and another one takes its place."""
        await asyncio.to_thread(self.back_end.kill)
        self.back_end = await _back_end(self.folder, self.node)


def admitted(shown: RxFilter) -> Json:
    """What a card lets in; a table that overflows lets in everything."""
    every = shown.unicast == "all" or shown.unicast_overflow
    found = asdict(shown)
    parts = ("promiscuous", "main_mac", "multicast", "nobcast", "multicast_table", "vlan_table")
    return {
        **{part: found[part] for part in parts},
        "every unicast": every,
        "unicast_table": () if every else shown.unicast_table,
    }


async def _back_end(folder: Path, node: Path) -> BackEndProcess:
    own = folder / "back-end"
    own.mkdir(exist_ok=True)
    process = BackEndProcess(
        own,
        *("--stay", "--shared-address-space", "--in-order", "--qmp", str(folder / "qmp")),
        device=("--vhost-vdpa", str(node)),
        program=PROGRAM,
    )
    return await asyncio.to_thread(process.ready)


@asynccontextmanager
async def _guest(node: Path, folder: Path) -> AsyncIterator[Followed]:
    back_end = await _back_end(folder, node)
    monitor = ("-qmp", f"unix:{folder}/qmp,server=on,wait=off")
    again = ",reconnect-ms=100"
    try:
        async with (
            machine(TRIXIE.program, CARD, back_end.front_end, again, more=monitor) as qemu,
            guest_memory(qemu) as memory,
        ):
            offered = await qemu.device.acknowledge()
            features = sensible(offered)
            await qemu.device.negotiate(features, offered)
            await qemu.device.set_up_data_queues(CONTROL)
            event_idx = Feature.RING_EVENT_IDX in features
            control = GuestDriver(qemu, memory, CONTROL, event_idx=event_idx, size=64)
            await control.set_up()
            await qemu.device.start()
            followed = Followed(folder, node, qemu, control, back_end)
            yield followed
            back_end = followed.back_end
    finally:
        await asyncio.to_thread(back_end.stop)


async def _followed(node: Path, folder: Path) -> Json:
    async with _guest(node, folder) as guest:
        await guest.told("begun")
        await guest.acks(SETTINGS)
        await guest.told("set")
        await guest.acks(LESS)
        await guest.told("less")
        await guest.acks(WIDER)
        await guest.told("wider")
        await guest.qemu.qmp.execute("stop")
        await guest.qemu.qmp.execute("cont")
        await guest.told("after a pause")
        await guest.begin_anew()
        await guest.told("another back end")
        captured = await guest.back_end.ask("capture")
        events = [each["event"] for each in guest.back_end.events("filter-followed")]
        return {"captured": captured, "events": events}


def followed(path: Path, folder: Path) -> Json:
    """A filter that a guest sets, opens and closes; over a pause, and the back end's end."""
    # The guest's memory is pinned, which counts as locked, for root too; the back end inherits it.
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    return asyncio.run(_followed(path, folder))
