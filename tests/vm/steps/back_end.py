"""Stories of a back end: a device of the kernel's behind a VMM, whose guest has a control queue.

The VMM and its guest are the tests' (tests/backend/vmm.py), in the same process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.backend.vmm import (
    HEADER,
    OTHER_MAC,
    PLAIN,
    BackEnd,
    Heard,
    Vmm,
    back_end,
    settings,
    until_failed,
    vmm,
)
from tests.support.waiting import until
from tests.vhost_user import front_end as protocol
from tests.vhost_user.front_end import state
from vdpad.queues.vhost_vdpa.node import Node
from vdpad.queues.vhost_vdpa.shadowed_node import ShadowedNode
from vdpad.virtio.commands import (
    Command,
    GuestOffloadsSet,
    MacAddrSet,
    MacTableSet,
    RxAllMulti,
    RxPromisc,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.config import pull_config
from vdpad.virtio.features import FEATURES, Feature, FeatureSet

from .telling import Json, pause

QUEUES = 3
RECEIVE, TRANSMIT, CONTROL = range(QUEUES)

SETTINGS: tuple[Command, ...] = (
    RxPromisc(on=False),
    RxAllMulti(on=True),
    MacAddrSet(OTHER_MAC),
    MacTableSet((bytes.fromhex("520000000101"),), (bytes.fromhex("01005e000101"),)),
    *(VlanAdd(vid) for vid in range(1, 301)),
    *(VlanDel(vid) for vid in range(100, 200)),
)
"""What a guest may set, and what of it may be undone."""


class Suspended(ShadowedNode):
    """A device that counts how often it was suspended."""

    times = 0

    def suspend(self) -> None:
        super().suspend()
        Suspended.times += 1


@contextlib.asynccontextmanager
async def _opened(path: Path, heard: Heard, *, in_order: bool = True) -> AsyncIterator[BackEnd]:
    device = await asyncio.to_thread(lambda: Suspended(Node(path)))
    async with back_end(device, heard, shared_address_space=True, in_order=in_order) as on:
        yield on


@contextlib.asynccontextmanager
async def machine_on(
    path: Path, heard: Heard, *, in_order: bool = True
) -> AsyncIterator[tuple[BackEnd, Vmm]]:
    """A guest before its start, on a back end on this device."""
    async with _opened(path, heard, in_order=in_order) as on, _vmm(on) as machine:
        yield on, machine


@contextlib.asynccontextmanager
async def _vmm(on: BackEnd) -> AsyncIterator[Vmm]:
    async with vmm(on, queues=QUEUES, features=taken(on.device.features)) as machine:
        yield machine


def taken(offered: FeatureSet) -> FeatureSet:
    """What the guest takes of these features."""
    return offered & (PLAIN | {Feature.CTRL_GUEST_OFFLOADS, Feature.GUEST_CSUM})


async def pause_story(folder: Path, place: str, **seen: object) -> None:
    """The same, while the back end goes on."""
    await asyncio.to_thread(pause, folder, place, **seen)


async def acks(machine: Vmm, commands: Sequence[Command]) -> list[int]:
    """Each ack that some of these commands came to."""
    answers = await machine.commands([each.encode() for each in commands])
    return sorted({answer[0] for answer in answers})


def packet(text: str, mac: bytes = OTHER_MAC) -> bytes:
    """A packet to and from this address."""
    return mac + mac + b"\x88\xb5" + text.encode()


async def transmit(machine: Vmm) -> None:
    """One packet, until the device has taken it."""
    transmit = machine.guest.queues[TRANSMIT]
    transmit.send([HEADER, packet("out").ljust(64, b"\0")], [])
    await until(lambda: transmit.returned, every=0.0005)
    transmit.collect()


# --- vp_vdpa ---


async def _commands(path: Path, folder: Path) -> Json:
    heard = Heard()
    seen: Json = {}
    async with machine_on(path, heard) as (on, machine):
        await machine.start()
        seen["features"] = FEATURES.names(machine.features)
        seen["acks"] = await acks(machine, SETTINGS)
        seen["refused"] = await acks(machine, [VlanAdd(4096), GuestOffloadsSet(frozenset({63}))])
        await pause_story(folder, "set", captured=settings(on))

        bases = await machine.stop()
        await pause_story(folder, "stopped", bases=bases, suspended=Suspended.times)
        await machine.set_up_rings(bases)
        await machine.enable_all()
        await transmit(machine)
        await pause_story(folder, "goes on", events=[type(each).__name__ for each in heard.events])
        seen["acks again"] = await acks(machine, [VlanAdd(400)])
        seen["captured"] = settings(on)
        await pause_story(folder, "again")

        bases = await machine.stop()
        seen["bases"] = bases
        await machine.set_up_rings(bases)
        await machine.front_end.enable(RECEIVE, TRANSMIT)
        control = state(CONTROL, 1)
        seen["acked"] = await machine.front_end.acked(protocol.SET_VRING_ENABLE, control)
        seen["refusals"] = on.refusals
    async with _opened(path, heard) as on, _vmm(on) as machine:
        await machine.start()
        await transmit(machine)
        await pause_story(folder, "fresh", captured=settings(on))
    return seen


def commands(path: Path, folder: Path) -> Json:
    """A guest's commands, a pause after which all is given again, and one that cannot end."""
    return asyncio.run(_commands(path, folder))


async def _told_of(path: Path, folder: Path) -> Json:
    heard = Heard()
    seen: Json = {}
    async with machine_on(path, heard) as (on, machine):
        await machine.start()
        seen["link"] = [pull_config(await on.device.config()).status]
        await pause_story(folder, "running")
        await until(lambda: heard.config_changes == 1)
        seen["link"].append(pull_config(await on.device.config()).status)

        await pause_story(folder, "link down")
        await until(lambda: heard.config_changes == 2)
        machine.guest.queues[TRANSMIT].send([b"no header"], [])
        await until_failed(on)
        seen["needs reset"] = on.device.needs_reset
        seen["events"] = [each.sentence() for each in heard.events]
        seen["changes"] = heard.config_changes
        await machine.stop()
    async with _opened(path, heard) as on, _vmm(on) as machine:
        await machine.start()
        await transmit(machine)
        seen["after a reset"] = on.device.status.value
    return seen


def told_of(path: Path, folder: Path) -> Json:
    """What the device tells of its own accord: a link that goes down, and that it is broken."""
    return asyncio.run(_told_of(path, folder))


# --- vdpa_sim_net ---


async def _packets(path: Path, folder: Path) -> Json:
    heard = Heard()
    seen: Json = {}
    async with _opened(path, heard) as on:
        own = pull_config(await on.device.config()).mac
        async with _vmm(on) as machine:
            await machine.start()
            seen["own address"] = await looped(machine, "zero", own)
            seen["acks"] = await acks(machine, [MacAddrSet(OTHER_MAC)])
            seen["refused"] = await acks(machine, [RxPromisc(on=True)])
            seen["looped"] = await looped(machine, "one")
            await pause_story(folder, "set", captured=settings(on), own=own.hex(":"))

            seen["bases"] = await machine.pause()
            seen["suspended"] = Suspended.times
            seen["after a pause"] = await looped(machine, "two")
            seen["events"] = [type(each).__name__ for each in heard.events]
            seen["acks again"] = await acks(machine, [MacAddrSet(OTHER_MAC)])
        async with _vmm(on) as machine:
            seen["next guest"] = [pull_config(await on.device.config()).mac.hex(":")]
            await machine.start()
            seen["next guest"].append(await looped(machine, "three", own))
            await pause_story(folder, "next guest")
    return seen


async def looped(machine: Vmm, text: str, mac: bytes = OTHER_MAC) -> str:
    """What comes back of a packet to this address."""
    sent = packet(text, mac)
    return (await machine.loop(sent))[len(sent) - len(text) :].decode()


def back_end_packets(path: Path, folder: Path) -> Json:
    """A guest with another address, a pause, and the next guest, which has the device's own."""
    return asyncio.run(_packets(path, folder))


async def _removed(path: Path, folder: Path) -> Json:
    heard = Heard()
    async with machine_on(path, heard) as (on, machine):
        await machine.start()
        await pause_story(folder, "running")
        seen: Json = {
            "acks": await acks(machine, [MacAddrSet(OTHER_MAC)]),
            "looped": await looped(machine, "one"),
            "bases": await machine.pause(),
            "status": on.device.status.value,
        }
        await pause_story(folder, "still runs", **seen)
    return {}


def removed(path: Path, folder: Path) -> Json:
    """The device is removed while a guest has it; the kernel waits for the guest's end."""
    return asyncio.run(_removed(path, folder))


# --- refused ---


async def _isolation(path: Path) -> Json:
    seen: Json = {}
    for when in ("first", "again"):
        device = await asyncio.to_thread(lambda: ShadowedNode(Node(path)))
        try:
            async with back_end(device) as on:
                seen[when] = on.device.status.value
        except Exception as error:
            seen[when] = f"{type(error).__name__}: {error}"
    return seen


def isolation(path: Path, folder: Path) -> Json:
    """Opened without the permission that the guest may reach the CVQ's ring; twice."""
    return asyncio.run(_isolation(path))
