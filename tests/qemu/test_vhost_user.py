"""QEMU as a front end: what it sets up, stops, goes on with, resets, and comes back to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.waiting import GUARD
from tests.vhost_user.back_end import BackEnd, back_end
from tests.vhost_user.recording_device import CONFIG, RecordingDevice
from vdpad.vhost_user.device import Start
from vdpad.vhost_user.messages import LOG_ALL
from vdpad.virtio.features import Feature
from vdpad.virtio.split_ring import SplitAddresses

from .layout import BUFFERS, MIB, data_ring
from .pci import open_virtio_net
from .versions import TRIXIE_BACKPORTS, release
from .vhost_user import ALL_QUEUES, NETDEV, Machine, machine

PAIRS, ALL = 4, 5
"""How many rings a card has whose VMM keeps the control queue, and one with all of its queues."""
ISR_CONFIG = 2


def card(without: Iterable[int] = ()) -> RecordingDevice:
    """A device with the queues of a card that gives them all."""
    device = RecordingDevice(queues=ALL)
    device.features -= frozenset(without)
    return device


def check_rings(start: Start, number: int, bases: dict[int, int]) -> None:
    """The rings are where the driver has put them."""
    assert [vring.index for vring in start.vrings] == [*range(number)]
    for vring in start.vrings:
        ring = data_ring(vring.index)
        assert vring.addresses == SplitAddresses(
            ring.size, ring.descriptors, ring.available, ring.used
        )
        assert vring.base == bases.get(vring.index, 0)
        assert None not in (vring.kick, vring.call, vring.error)


async def check_memory(qemu: Machine, start: Start) -> None:
    """What the guest's processor has written stands at the same address here, and back."""
    await qemu.qtest.write(BUFFERS, b"from the guest")
    assert start.memory.read(BUFFERS, 14) == b"from the guest"
    start.memory.write(BUFFERS + MIB, b"from the back end")
    assert await qemu.qtest.read(BUFFERS + MIB, 17) == b"from the back end"


async def live(qemu: Machine, served: BackEnd, number: int) -> None:
    """Start, stop and go on, reset, and start anew."""
    device = served.device
    features = await qemu.drive(number)
    assert LOG_ALL not in features
    start = await served.start(1)
    check_rings(start, number, {})
    assert start.is_fresh
    assert start.features <= features
    await check_memory(qemu, start)

    device.bases = {0: 3, 1: 65535, number - 1: 7}
    await qemu.qmp.execute("stop")
    await served.stop(1)
    await qemu.qmp.execute("cont")
    start = await served.start(2)
    check_rings(start, number, device.bases)
    assert not start.is_fresh

    await qemu.qmp.execute("system_reset")
    await served.stop(2)
    await open_virtio_net(qemu.qtest)
    await qemu.drive(number)
    start = await served.start(3)
    check_rings(start, number, {})
    assert start.is_fresh
    await check_memory(qemu, start)

    await qemu.qmp.execute("quit")
    await served.stop(3)


async def test_a_vmm_that_keeps_the_control_queue(program: str, tmp_path: Path) -> None:
    async with (
        back_end(tmp_path / "back-end", card()) as served,
        machine(program, NETDEV, served.path) as qemu,
    ):
        await live(qemu, served, PAIRS)
        start = served.device.starts[0]
        assert Feature.CTRL_VQ not in start.features
        assert {Feature.MQ, Feature.MRG_RXBUF, Feature.VERSION_1} <= start.features
        assert [vring.is_enabled for vring in start.vrings] == [True, True, False, False]


@pytest.mark.parametrize("program", [TRIXIE_BACKPORTS], ids=["trixie-backports"], indirect=True)
@pytest.mark.parametrize(
    ("without", "number"),
    [((), ALL), ((Feature.MQ,), 3), ((Feature.MQ, Feature.CTRL_VQ, Feature.CTRL_RX), 2)],
    ids=["mq", "no-mq", "no-ctrl-vq"],
)
async def test_a_vmm_that_gives_all_queues(
    program: str, tmp_path: Path, without: tuple[Feature, ...], number: int
) -> None:
    async with (
        back_end(tmp_path / "back-end", card(without)) as served,
        machine(program, ALL_QUEUES, served.path) as qemu,
    ):
        await live(qemu, served, number)
        assert served.device.starts[0].features == served.device.features
        assert all(vring.is_enabled for vring in served.device.starts[0].vrings)


@pytest.mark.parametrize("program", [TRIXIE_BACKPORTS], ids=["trixie-backports"], indirect=True)
async def test_a_guest_hears_of_another_config_space(program: str, tmp_path: Path) -> None:
    async with (
        back_end(tmp_path / "back-end", card()) as served,
        machine(program, ALL_QUEUES, served.path) as qemu,
    ):
        await qemu.drive(ALL)
        await served.start(1)
        device = qemu.blocks.device
        assert await qemu.qtest.read(device, len(CONFIG)) == CONFIG
        await qemu.qtest.readb(qemu.blocks.isr)
        session = served.front_ends.session
        assert session is not None
        for first in (0x52, 0x54):
            served.device.config_space = bytes([first]) + CONFIG[1:]
            session.config_changed()
            async with asyncio.timeout(GUARD):
                while not await qemu.qtest.readb(qemu.blocks.isr) & ISR_CONFIG:
                    pass
            assert await qemu.qtest.read(device, len(CONFIG)) == served.device.config_space


async def test_a_vmm_comes_back(program: str, tmp_path: Path) -> None:
    told = release(program)
    assert told is not None
    reconnect = ",reconnect-ms=100" if told >= (9, 2) else ",reconnect=1"
    async with (
        back_end(tmp_path / "back-end", card()) as served,
        machine(program, NETDEV, served.path, reconnect) as qemu,
    ):
        await qemu.drive(PAIRS)
        await served.start(1)
        served.device.bases = {0: 3}
        assert served.session is not None
        served.session.cancel()
        await served.stop(1)
        start = await served.start(2)
        assert [vring.index for vring in start.vrings] == [*range(PAIRS)]
        await check_memory(qemu, start)
