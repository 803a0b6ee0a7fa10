"""A guest that has moved is announced: QEMU asks it to do so, or the back end's device to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.availability import skip_or_fail
from tests.support.namespaces import taps, why_no_taps
from tests.support.tap_ends import HostEnd, tap_ends
from tests.support.waiting import GUARD, until
from vdpad.backend.device_lifecycle import Status
from vdpad.backend.events import GuestAnnounced
from vdpad.queues.software.rarp import rarp_request
from vdpad.queues.software.tap_device import TapDevice
from vdpad.virtio.features import Feature

from .device import sensible
from .layout import DATA_RINGS, MIB, place_ring
from .test_migration import Side, side
from .versions import TRIXIE, TRIXIE_BACKPORTS, Version, why_unavailable

QUEUES = 5
CANNOT = frozenset({int(Feature.GUEST_ANNOUNCE)})
A_WHILE = 0.8
"""Seconds: QEMU has asked five times within them."""
MAC, OTHER_MAC = bytes.fromhex("525400123456"), bytes.fromhex("525400aabbcc")
AT_ONCE = ("-incoming", "defer")
"""The machine runs once it has come."""
CARD = ("-global", f"virtio-net-pci.mac={MAC.hex(':')}")


@pytest.fixture(params=[TRIXIE, TRIXIE_BACKPORTS], ids=["10.0", "11.1"])
def version(request: pytest.FixtureRequest) -> Version:
    found: Version = request.param
    skip_or_fail(why_unavailable(found) or why_no_taps())
    return found


@dataclass(frozen=True)
class OnATap:
    """A machine, and the host's end of its back end's interface."""

    side: Side
    host: HostEnd

    def announced(self) -> list[str]:
        """Whom its device has announced."""
        return [each.mac for each in self.side.heard.events if isinstance(each, GuestAnnounced)]


@asynccontextmanager
async def both(version: Version, folder: Path, *more: str) -> AsyncIterator[tuple[OnATap, OnATap]]:
    """Source and destination, each on an interface of its own."""
    async with AsyncExitStack() as stack:
        within = stack.enter_context(taps("tap0", "tap1"))
        found = []
        for name, incoming in (("tap0", ()), ("tap1", AT_ONCE)):
            tap, host = stack.enter_context(tap_ends(within, name))
            one = side(version, folder / name, *CARD, *more, *incoming, device=TapDevice(tap))
            found.append(OnATap(await stack.enter_async_context(one), host))
        here, there = found
        yield here, there


async def move(here: Side, there: Side) -> None:
    """The guest runs at the destination afterwards."""
    await there.qemu.qmp.execute("migrate-incoming", uri=f"unix:{there.address}")
    await here.qemu.qmp.execute("migrate", uri=f"unix:{there.address}")
    await here.until_migration_is("completed")
    await until(lambda: there.on.device.status is Status.RUNNING)


async def begin(on: Side, without: frozenset[int] = frozenset()) -> None:
    """Its driver has the device, without these features."""
    card = on.qemu.device
    offered = await card.acknowledge()
    await card.negotiate(sensible(offered, without), offered)
    for index in range(QUEUES):
        await card.set_up_queue(index, place_ring(DATA_RINGS + index * MIB, 64))
    await card.start()
    await until(lambda: on.on.device.status is Status.RUNNING)


async def test_one_that_cannot_announce_itself(tmp_path: Path, version: Version) -> None:
    async with both(version, tmp_path) as (here, there):
        await begin(here.side, CANNOT)
        await move(here.side, there.side)
        heard: list[bytes] = []
        await until(lambda: there.host.has_received(heard))
        assert set(heard) == {rarp_request(MAC)}
        # The loop hears of it from the device, which has sent by then.
        await until(there.announced)
        assert set(there.announced()) == {MAC.hex(":")}
        assert (here.host.received(), here.announced()) == ([], [])
        assert (here.side.on.refusals, there.side.on.refusals) == ([], [])


async def test_one_that_can_is_asked_by_qemu(tmp_path: Path, version: Version) -> None:
    async with both(version, tmp_path) as (here, there):
        await begin(here.side)
        await move(here.side, there.side)
        await asyncio.sleep(A_WHILE)
        assert (there.host.received(), there.announced()) == ([], [])


async def test_the_frame_is_qemu_s(tmp_path: Path, version: Version) -> None:
    """It sends one itself for another card of the machine's."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    ends = f"local.type=unix,local.path={theirs},remote.type=unix,remote.path={ours}"
    card = f"e1000,netdev=other,romfile=,mac={OTHER_MAC.hex(':')}"
    more = ("-netdev", f"dgram,id=other,{ends}", "-device", card)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as network,
        taps("tap0") as within,
        tap_ends(within, "tap0") as (tap, host),
    ):
        network.bind(str(ours))
        network.settimeout(GUARD)
        path = tmp_path / "back-end"
        async with side(version, path, *CARD, *more, device=TapDevice(tap)) as on:
            await begin(on, CANNOT)
            often = {"initial": 50, "max": 50, "rounds": 1, "step": 50}
            await on.qemu.qmp.execute("announce-self", **often)
            heard: list[bytes] = []
            await until(lambda: host.has_received(heard))
            qemus = await asyncio.to_thread(network.recv, 2048)
    assert heard == [qemus.replace(OTHER_MAC, MAC)]
