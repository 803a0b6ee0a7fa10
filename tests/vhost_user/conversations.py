"""The order of messages that front ends keep, and what the device is told at each.

Of QEMU 7.2, 10.0 and 11.1 and of DPDK 22.11 the order is as it was seen on a socket; crosvm's is
as its front end's source has it. tests/qemu/test_vhost_user.py has QEMU itself.
"""

import os
import socket

from tests.vhost_user import front_end as page
from tests.vhost_user.conftest import Served
from tests.vhost_user.front_end import (
    ALL_SERVED,
    CONFIG,
    MQ,
    REPLY_ACK,
    STATUS,
    FrontEnd,
    Memory,
    u64,
)
from tests.vhost_user.recording_device import FEATURES
from vdpad.virtio.bits import mask_of
from vdpad.virtio.features import Feature

TAKEN = page.NOT_A_FLAG_OF_OURS | mask_of(FEATURES)
WITHOUT_CVQ = TAKEN & ~(1 << Feature.CTRL_VQ)
RINGS = range(3)
PAIRS = (range(2), range(2, 4))


class Conversation:
    """Messages of a front end that asks for no more answers than it must."""

    def __init__(self, front_end: FrontEnd) -> None:
        self.it = front_end

    async def greet(self, protocol: int) -> None:
        await self.it.number(page.GET_FEATURES)
        await self.it.number(page.GET_PROTOCOL_FEATURES)
        await self.it.send(page.SET_PROTOCOL_FEATURES, u64(protocol))
        await self.it.number(page.GET_QUEUE_NUM)

    async def own(self) -> None:
        await self.it.send(page.SET_OWNER)
        await self.it.number(page.GET_FEATURES)

    async def calls_and_errors(self, rings: range) -> None:
        for index in rings:
            await self.it.send(page.SET_VRING_CALL, u64(index), [self.it.eventfd()])
            await self.it.send(page.SET_VRING_ERR, u64(index), [self.it.eventfd()])

    async def features(self, features: int) -> None:
        await self.it.send(page.SET_FEATURES, u64(features))
        await self.it.number(page.GET_STATUS)

    async def memory(self) -> None:
        for first in (0, 5):
            at = first * 4096
            region = page.single(Memory.GUEST + at, 4 * 4096, Memory.USER + at, at)
            await self.it.done(page.ADD_MEM_REG, region, [self.it.memory.fd])

    async def ring(self, index: int, base: int, *, call: bool = True) -> None:
        at = Memory.USER + index * 4096
        await self.it.send(page.SET_VRING_NUM, page.state(index, 16))
        await self.it.send(page.SET_VRING_BASE, page.state(index, base))
        await self.it.send(page.SET_VRING_ADDR, page.addresses(index, at, at + 1024, at + 512))
        await self.it.send(page.SET_VRING_KICK, u64(index), [self.it.eventfd()])
        if call:
            await self.it.send(page.SET_VRING_CALL, u64(index), [self.it.eventfd()])

    async def enable(self, rings: range, on: int) -> None:
        for index in rings:
            await self.it.done(page.SET_VRING_ENABLE, page.state(index, on))


async def qemu_with_all_queues(served: Served) -> None:
    """vhost-user-test-device-pci of 11.1: start, stop, cont, and a guest that is reset."""
    it, device = Conversation(served.front_end), served.device
    await it.greet(ALL_SERVED)
    await served.front_end.number(page.GET_MAX_MEM_SLOTS)
    await it.own()
    await it.calls_and_errors(RINGS)
    for _ in range(20):  # before any SET_FEATURES
        await served.front_end.ask(page.GET_CONFIG, page.config(0, bytes(24)))
    for bases in ((0, 0, 0), (9, 8, 7), (0, 0, 0)):
        await it.features(TAKEN)
        if not device.starts:
            await served.front_end.send(page.SET_STATUS, u64(8))
            await it.memory()
        for index in RINGS:
            await it.ring(index, bases[index])
        assert device.started is None
        await it.enable(RINGS, 1)
        assert device.started is not None
        assert device.started.is_fresh == (bases == (0, 0, 0))
        device.bases = {0: 9, 1: 8, 2: 7}
        await it.enable(RINGS, 0)
        assert [await served.front_end.base(index) for index in RINGS] == [9, 8, 7]
        assert device.started is None
    assert device.did.count("stop") == 3
    assert device.did.count("add_memory") == 2


async def qemu_that_keeps_the_control_queue(served: Served, version: str) -> None:
    """-netdev vhost-user with two queue pairs: a vhost device each, over one connection.

    The device has five queues; the version is "7.2" or "10.0 and 11.1".
    """
    it, device = Conversation(served.front_end), served.device
    for pair in PAIRS:
        await it.greet(ALL_SERVED & ~CONFIG)
        await it.own()
        await it.calls_and_errors(pair)
    if version != "7.2":
        await served.front_end.send(page.RESET_DEVICE)
    for bases in (0, 50):
        for pair in PAIRS:
            await it.enable(pair, int(pair is PAIRS[0]))
        for pair in PAIRS:
            await it.features(WITHOUT_CVQ)
            if pair is PAIRS[0]:
                await served.front_end.send(page.SET_STATUS, u64(8))
            if not device.starts and (pair is PAIRS[0] or version == "7.2"):
                await it.memory()
            for index in pair:
                await it.ring(index, bases)
        assert device.started is None
        await served.front_end.send(page.SET_STATUS, u64(15))
        assert await served.front_end.number(page.GET_STATUS) == 15
        assert device.started is not None
        assert [vring.index for vring in device.started.vrings] == [0, 1, 2, 3]
        assert [vring.is_enabled for vring in device.started.vrings] == [True, True, False, False]
        await it.enable(PAIRS[1], 1)  # the guest's MQ_VQ_PAIRS_SET
        assert device.did[-2:] == ["enable 2 1", "enable 3 1"]
        device.bases = {0: 50, 1: 50, 2: 50, 3: 50}
        assert [await served.front_end.base(index) for index in PAIRS[0]] == [50, 50]
        if version == "7.2":
            await served.front_end.send(page.SET_STATUS, u64(0))
        assert [await served.front_end.base(index) for index in PAIRS[1]] == [50, 50]
        if version != "7.2":
            await served.front_end.send(page.SET_STATUS, u64(0))
        assert await served.front_end.number(page.GET_STATUS) == 0
        assert device.started is None
    assert device.did.count("stop") == 2
    assert device.did.count("add_memory") == 2


async def crosvm(served: Served) -> None:
    """Each ring is enabled when it is set up, and no status is sent."""
    it, device = Conversation(served.front_end), served.device
    await served.front_end.number(page.GET_FEATURES)
    await it.greet(MQ | CONFIG | REPLY_ACK)
    await served.front_end.send(page.SET_OWNER)
    await served.front_end.send(page.SET_FEATURES, u64(TAKEN))
    pages = page.region(Memory.GUEST, Memory.SIZE, Memory.USER, 0)
    await served.front_end.done(page.SET_MEM_TABLE, page.table(pages), [it.it.memory.fd])
    for index in RINGS:
        assert device.started is None
        await served.front_end.send(page.SET_VRING_NUM, page.state(index, 16))
        at = Memory.USER + index * 4096
        parts = page.addresses(index, at, at + 1024, at + 512)
        await served.front_end.send(page.SET_VRING_ADDR, parts)
        await served.front_end.send(page.SET_VRING_BASE, page.state(index, 0))
        await served.front_end.send(page.SET_VRING_CALL, u64(index), [it.it.eventfd()])
        await served.front_end.send(page.SET_VRING_KICK, u64(index), [it.it.eventfd()])
        await it.enable(range(index, index + 1), 1)
    assert device.started is not None
    for index in RINGS:
        await it.enable(range(index, index + 1), 0)
        await served.front_end.base(index)
    assert device.did.count("stop") == 1


async def testpmd(served: Served) -> None:
    """virtio-user: one table, calls before everything, both of ENABLE and DRIVER_OK."""
    it, device = Conversation(served.front_end), served.device
    await served.front_end.send(page.SET_OWNER)
    await it.greet(MQ | REPLY_ACK | STATUS)
    rings = range(2)
    for _ in range(2):
        await served.front_end.done(page.SET_STATUS, u64(0))
        await served.front_end.done(page.SET_STATUS, u64(1))
        await served.front_end.done(page.SET_STATUS, u64(3))
        await served.front_end.done(page.SET_FEATURES, u64(WITHOUT_CVQ))
        await served.front_end.done(page.SET_STATUS, u64(11))
        for index in rings:
            await served.front_end.send(page.SET_VRING_CALL, u64(index), [it.it.eventfd()])
        pages = page.region(Memory.GUEST, Memory.SIZE, Memory.USER, 0)
        await served.front_end.done(page.SET_MEM_TABLE, page.table(pages), [it.it.memory.fd])
        for index in rings:
            await it.ring(index, 0, call=False)
        await it.enable(rings, 1)
        await served.front_end.done(page.SET_STATUS, u64(15))
        assert device.started is not None
        assert [vring.index for vring in device.started.vrings] == [0, 1]
        await it.enable(rings, 0)
        for index in rings:
            await served.front_end.base(index)
    assert device.did.count("stop") == 2
    assert device.did.count("add_memory") == 1


async def every_request(served: Served) -> None:
    """No front end's: all that is served and that those above do not ask for."""
    it, device = served.front_end, served.device
    await it.negotiate(TAKEN)
    await it.send(page.RESET_OWNER)
    told, channel = socket.socketpair()
    await it.done(page.SET_BACKEND_REQ_FD, b"", [channel.fileno()])
    await _move(it, loading=True)
    await it.done(page.SET_CONFIG, page.config(0, b"\x52\x54"))
    regions = [
        page.region(Memory.GUEST + at, Memory.SIZE // 2, Memory.USER + at, at)
        for at in (0, Memory.SIZE // 2)
    ]
    files = [it.memory.fd, it.memory.fd]
    await it.done(page.SET_MEM_TABLE, page.table(*regions), files)
    await it.done(page.REM_MEM_REG, bytes(8) + regions[1])
    await it.done(page.ADD_MEM_REG, bytes(8) + regions[1], files[1:])
    for index in RINGS:
        await it.set_up(index)
        await it.done(page.SET_VRING_ERR, u64(index | page.NO_FD))
    await it.enable(*RINGS)
    served.session.config_changed()
    await it.done(page.SET_VRING_CALL, u64(0), [it.eventfd()])
    await it.enable(0, on=0)
    await it.done(page.SET_MEM_TABLE, page.table(*regions), files)
    for index in RINGS:
        await it.base(index)
    await _move(it, loading=False)
    await it.done(page.RESET_DEVICE)
    assert device.did.count("start 0 1 2") == device.did.count("reset") == 1
    assert device.did[-1] == "reset"
    told.close()
    channel.close()


async def _move(it: FrontEnd, *, loading: bool) -> None:
    """A device's state, through a pipe."""
    reader, writer = os.pipe()
    if loading:
        os.write(writer, b"what the guest had set")
    ours = reader if loading else writer
    way = page.state(int(loading), 0)
    assert await it.number(page.SET_DEVICE_STATE_FD, way, [ours]) == page.NO_FD
    os.close(writer)
    assert await it.number(page.CHECK_DEVICE_STATE) == 0
    os.close(reader)
