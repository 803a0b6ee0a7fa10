"""The back end behind QEMU's card that has all of a guest's queues, whose driver is the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.backend.vmm import BUFFER, HEADER, BackEnd, settings
from tests.backend.vmm import back_end as backed
from tests.support.split_driver import Memory, Way
from tests.support.waiting import until
from vdpad.backend.device_lifecycle import Status
from vdpad.backend.moving.moving import MovedState
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_offer import PACKET_CONFIG
from vdpad.restore.replay import Outcome
from vdpad.virtio.commands import (
    AnnounceAck,
    CoalRxSet,
    CoalTxSet,
    CoalVqSet,
    Command,
    GuestOffloadsSet,
    HashTunnelSet,
    MacAddrSet,
    MacTableSet,
    MqHashConfig,
    MqPairsSet,
    MqRssConfig,
    RxAllMulti,
    RxAllUni,
    RxNoBcast,
    RxNoMulti,
    RxNoUni,
    RxPromisc,
    VlanAdd,
    VlanDel,
)
from vdpad.virtio.config import GuestOffload, HashType
from vdpad.virtio.features import Feature

from .device import sensible
from .guest_driver import GuestDriver, guest_memory, serving
from .layout import BUFFERS
from .versions import TRIXIE_BACKPORTS
from .vhost_user import Machine, all_queues, machine

pytestmark = pytest.mark.parametrize(
    "program", [TRIXIE_BACKPORTS], ids=["trixie-backports"], indirect=True
)

MAC = bytes.fromhex("5254000000aa")
UNICAST = tuple(bytes.fromhex(f"5254000001{n:02x}") for n in range(3))
MULTICAST = (bytes.fromhex("01005e000001"),)
KEY = bytes(range(1, 41))
HASH_TYPES = frozenset({HashType.IPv4, HashType.TCPv4})
TABLE = (0, 1) * 64

MODES: tuple[Command, ...] = (
    *(RxPromisc(on=False), RxAllMulti(on=True), RxAllUni(on=True)),
    *(RxNoMulti(on=False), RxNoUni(on=True), RxNoBcast(on=True)),
)
ADDRESSES: tuple[Command, ...] = (MacAddrSet(MAC), MacTableSet(UNICAST, MULTICAST))
VLANS: tuple[Command, ...] = tuple(VlanAdd(vid) for vid in range(1, 4095))
OFFLOADS: tuple[Command, ...] = (
    GuestOffloadsSet(frozenset({GuestOffload.GUEST_CSUM, GuestOffload.GUEST_TSO4})),
)
COALESCING: tuple[Command, ...] = (CoalTxSet(8, 16), CoalRxSet(32, 64), CoalVqSet(0, 3, 5))
HASHED: tuple[Command, ...] = (HashTunnelSet(frozenset({0})), MqHashConfig(HASH_TYPES, KEY))
SPREAD: tuple[Command, ...] = (MqPairsSet(2), MqRssConfig(HASH_TYPES, 1, TABLE, 2, KEY))

SINGLE = (*MODES, *ADDRESSES, *VLANS, *OFFLOADS, *COALESCING, *HASHED, AnnounceAck())
"""What a guest of one queue pair may send."""
SET = {
    "mac": "52:54:00:00:00:aa",
    "rx": {
        "promisc": False,
        "allmulti": True,
        "alluni": True,
        "nomulti": False,
        "nouni": True,
        "nobcast": True,
    },
    "mac_table": {
        "unicast": [f"52:54:00:00:01:{n:02x}" for n in range(3)],
        "multicast": ["01:00:5e:00:00:01"],
        "unicast_overflow": False,
        "multicast_overflow": False,
    },
    "vlans": [[1, 4094]],
    "guest_offloads": ["GUEST_CSUM", "GUEST_TSO4"],
    "coalescing": {
        "rx": {"max_packets": 32, "max_usecs": 64},
        "tx": {"max_packets": 8, "max_usecs": 16},
        "queues": {"0": {"max_packets": 3, "max_usecs": 5}},
    },
}
"""What that comes to, but for hashes."""
HASH_REPORT = {"hash_types": ["IPv4", "TCPv4"], "key": KEY.hex()}
RSS = {
    **HASH_REPORT,
    "indirection_table": list(TABLE),
    "unclassified_queue": 1,
    "max_tx_queues": 2,
}

QUEUE_INTERRUPT = 1
HASHED_HEADER = 20
"""Bytes before a packet with HASH_REPORT (virtio 1.4, 5.1.6)."""


@dataclass(frozen=True)
class Driven:
    """A guest whose driver is up, and the back end that it knows nothing of."""

    on: BackEnd
    device: LoopDevice
    qemu: Machine
    queues: list[GuestDriver]
    features: frozenset[int]
    memory: Memory
    """The driver's."""

    async def acks(self, commands: Sequence[Command], way: Way = Way.DIRECT) -> set[bytes]:
        """The acks that some of these commands came to."""
        return {*await self.queues[-1].commands([each.encode() for each in commands], way)}

    async def loop(self, pair: int) -> bytes:
        """What comes back on a pair of a packet that was sent on it."""
        receive, transmit = self.queues[2 * pair : 2 * pair + 2]
        header = bytes(HASHED_HEADER) if Feature.HASH_REPORT in self.features else HEADER
        receive.driver.submit([], [BUFFER], Way.DIRECT)
        await receive.publish()
        transmit.driver.submit([header, b"packet"], [], Way.DIRECT)
        await transmit.publish()
        await until(lambda: receive.driver.returned and transmit.driver.returned)
        transmit.driver.collect()
        ((_, length, data),) = receive.driver.collect()
        return data[len(header) : length]

    def captured(self) -> dict[str, Any]:
        """What the guest has set, by the back end; the device must hold the same."""
        found = settings(self.on)
        captured: dict[str, Any] = {name: found[name] for name in PARTS if name in found}
        held = self.device.net.settings()
        held["vlans"] = vlan_ranges(held["vlans"])
        assert {name: held[name] for name in captured} == captured
        return captured


PARTS = (*SET, "queue_pairs", "hash_report", "rss")


def vlan_ranges(ids: list[int]) -> list[Any]:
    """Ids that follow on one another, as the state has them."""
    assert ids == [*range(ids[0], ids[-1] + 1)]
    return [[ids[0], ids[-1]]]


@asynccontextmanager
async def driven(
    program: str, folder: Path, *, pairs: int, without: Iterable[int] = ()
) -> AsyncIterator[Driven]:
    """A back end on a software device of so many pairs, whose guest takes all but some features."""
    device = LoopDevice(replace(PACKET_CONFIG, max_virtqueue_pairs=pairs))
    socket_path = folder / "back-end"
    async with backed(device) as on, serving(on, socket_path):
        card = all_queues(2 * pairs + 1)
        async with machine(program, card, socket_path) as qemu, guest_memory(qemu) as memory:
            offered = await qemu.device.acknowledge()
            taken = sensible(offered, without)
            await qemu.device.negotiate(taken, offered)
            many = bool(taken & {Feature.MQ, Feature.RSS})
            count = (2 * pairs if many else 2) + (Feature.CTRL_VQ in taken)
            event_idx = Feature.RING_EVENT_IDX in taken
            queues = [GuestDriver(qemu, memory, at, event_idx=event_idx) for at in range(count)]
            for queue in queues:
                await queue.set_up()
            await qemu.device.start()
            await until(lambda: on.device.status is Status.RUNNING)
            yield Driven(on, device, qemu, queues, taken, memory)
    assert on.refusals == []


# --- every command ---


@pytest.mark.parametrize("event_idx", [True, False], ids=["event-idx", "no-event-idx"])
async def test_every_command_of_a_guest_with_several_queue_pairs(
    program: str, tmp_path: Path, event_idx: bool
) -> None:
    without = () if event_idx else (Feature.RING_EVENT_IDX,)
    async with driven(program, tmp_path, pairs=2, without=without) as guest:
        assert (Feature.RING_EVENT_IDX in guest.features) is event_idx
        assert await guest.acks(SINGLE) == {b"\0"}
        assert guest.captured() == {**SET, "hash_report": HASH_REPORT}
        assert await guest.acks(SPREAD, Way.INDIRECT) == {b"\0"}
        assert guest.captured() == {**SET, "queue_pairs": 2, "rss": RSS}
        undone = [*(VlanDel(vid) for vid in range(11, 4095)), MqPairsSet(1)]
        assert await guest.acks(undone) == {b"\0"}
        captured = guest.captured()
        assert captured == {**SET, "vlans": [[1, 10]], "queue_pairs": 1}
        refused = (MqPairsSet(3), VlanAdd(4096), VlanAdd(5))
        assert await guest.acks(refused) == {b"\1"}
        assert guest.captured() == captured
        assert [await guest.loop(pair) for pair in range(2)] == [b"packet", b"packet"]
        assert await guest.qemu.qtest.readb(guest.qemu.blocks.isr) & QUEUE_INTERRUPT
        await guest.qemu.qmp.execute("quit")


@pytest.mark.parametrize("without", [(), (Feature.MQ, Feature.RSS)], ids=["one-pair", "no-mq"])
async def test_every_command_of_a_guest_with_one_queue_pair(
    program: str, tmp_path: Path, without: tuple[Feature, ...]
) -> None:
    """Without MQ and RSS the control queue is queue 2, however many pairs the device has."""
    async with driven(program, tmp_path, pairs=2 if without else 1, without=without) as guest:
        assert len(guest.queues) == 3
        assert await guest.acks(SINGLE) == {b"\0"}
        assert guest.captured() == {**SET, "hash_report": HASH_REPORT}
        assert await guest.loop(0) == b"packet"
        await guest.qemu.qmp.execute("quit")


# --- stopped, reset, and without a control queue ---


async def test_a_guest_that_stops_goes_on_and_is_reset(program: str, tmp_path: Path) -> None:
    async with driven(program, tmp_path, pairs=2) as guest:
        assert await guest.acks((*SINGLE, *SPREAD)) == {b"\0"}
        captured = guest.captured()
        assert await guest.loop(1) == b"packet"
        await guest.qemu.qmp.execute("stop")
        await until(lambda: guest.on.device.status is Status.STOPPED)
        await guest.qemu.qmp.execute("cont")
        await until(lambda: guest.on.device.status is Status.RUNNING)
        assert guest.captured() == captured
        assert guest.on.device.report is not None
        assert await guest.loop(1) == b"packet"
        assert await guest.acks([VlanDel(7)]) == {b"\0"}
        await guest.qemu.qmp.execute("system_reset")
        await until(lambda: guest.on.device.status is Status.STOPPED)
        await guest.qemu.qmp.execute("quit")


async def test_what_one_has_captured_another_gives_to_its_device(
    program: str, tmp_path: Path
) -> None:
    """The guest goes on in another machine, with all of its memory; QEMU itself moves no such one.

    Its rings tell where they stand, as QEMU begins each at 0.
    """
    async with driven(program, tmp_path, pairs=2) as guest:
        assert await guest.acks((*SINGLE, *SPREAD)) == {b"\0"}
        assert await guest.loop(1) == b"packet"
        captured = guest.captured()
        await guest.qemu.qmp.execute("stop")
        await until(lambda: guest.on.device.status is Status.STOPPED)
        found = guest.on.device.settings.found()
        memory = bytes(guest.memory.regions[BUFFERS])
        await guest.qemu.qmp.execute("quit")
    assert found is not None
    path = tmp_path / "destination"
    device = LoopDevice(replace(PACKET_CONFIG, max_virtqueue_pairs=2))
    async with backed(device) as on, serving(on, path):
        report = await on.device.moving.take(MovedState(found.state, (), {}), tried=True)
        assert report is not None
        assert report.outcome is Outcome.RESTORED
        async with machine(program, all_queues(5), path) as qemu, guest_memory(qemu) as there:
            there.regions[BUFFERS][:] = memory
            await qemu.device.negotiate(guest.features, await qemu.device.acknowledge())
            guest.memory.regions = there.regions
            for queue in guest.queues:
                queue.qemu = qemu
                await queue.set_up()
            await qemu.device.start()
            await until(lambda: on.device.status is Status.RUNNING)
            moved = replace(guest, on=on, device=device, qemu=qemu)
            assert moved.captured() == captured
            assert await moved.acks([VlanAdd(5)]) == {b"\1"}
            assert [await moved.loop(pair) for pair in range(2)] == [b"packet", b"packet"]
            await qemu.qmp.execute("quit")


NO_CONTROL_QUEUE = (
    *(Feature.CTRL_VQ, Feature.CTRL_RX, Feature.CTRL_RX_EXTRA, Feature.CTRL_VLAN),
    *(Feature.CTRL_MAC_ADDR, Feature.CTRL_GUEST_OFFLOADS, Feature.GUEST_ANNOUNCE, Feature.MQ),
    *(Feature.RSS, Feature.HASH_REPORT, Feature.HASH_TUNNEL),
    *(Feature.NOTF_COAL, Feature.VQ_NOTF_COAL),
)


async def test_a_guest_without_a_control_queue(program: str, tmp_path: Path) -> None:
    async with driven(program, tmp_path, pairs=2, without=NO_CONTROL_QUEUE) as guest:
        assert len(guest.queues) == 2
        assert not guest.on.device.shadows
        assert guest.device.net.settings()["rx"]["promisc"] is True
        assert await guest.loop(0) == b"packet"
        await guest.qemu.qmp.execute("quit")
