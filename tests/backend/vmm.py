"""A VMM for tests: the tests' front end and their guest, and the back end that serves them."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, BinaryIO

import pytest

from tests.support.guest import Guest, GuestQueue
from tests.support.split_driver import Request
from tests.support.waiting import GUARD, until
from tests.vhost_user import front_end as protocol
from tests.vhost_user.front_end import FrontEnd, state, u64
from vdpad.backend import running
from vdpad.backend.device import BackEndDevice
from vdpad.backend.device_lifecycle import Status
from vdpad.backend.forwarder import Forwarder
from vdpad.backend.listeners import Listeners
from vdpad.errors import VdpadError
from vdpad.queues.shadowed_device import ShadowedDevice
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.net import NetDevice
from vdpad.service.events.event import Event
from vdpad.vhost_user.front_ends import FrontEnds
from vdpad.virtio.bits import mask_of
from vdpad.virtio.chains import BadChain
from vdpad.virtio.commands import ACK_ERR, ACK_OK
from vdpad.virtio.features import Feature, FeatureSet

USER = 0x7F12_0000_0000
"""How far the front end's addresses are from the guest's."""

# QEMU's docs/interop/vhost-user.rst, SET_DEVICE_STATE_FD: the directions.
_SAVE, _LOAD = 0, 1

HEADER = bytes(12)
OK, ERR = bytes((ACK_OK,)), bytes((ACK_ERR,))
OTHER_MAC = bytes.fromhex("525400aabbcc")
BUFFER = 2048

PLAIN: FeatureSet = frozenset(
    {
        Feature.VERSION_1,
        Feature.RING_EVENT_IDX,
        Feature.RING_INDIRECT_DESC,
        Feature.MAC,
        Feature.STATUS,
        Feature.CTRL_VQ,
        Feature.CTRL_RX,
        Feature.CTRL_RX_EXTRA,
        Feature.CTRL_VLAN,
        Feature.CTRL_MAC_ADDR,
        Feature.MQ,
    }
)
"""What a guest takes, where nothing else is said."""


class BackEnd:
    """The back end under test, on a device."""

    def __init__(self, device: BackEndDevice) -> None:
        self.device = device
        self.refusals: list[str] = []
        self.front_ends = FrontEnds(device, self._refused)

    def _refused(self, request: str, error: VdpadError) -> None:
        self.refusals.append(f"{request}: {error}")


class Heard:
    """What listeners were told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.config_changes = 0
        self.settings_changes = 0
        self.back_end: BackEnd | None = None

    def listeners(self) -> Listeners:
        return Listeners(self.events.append, self._config_changed, self._settings_changed)

    def _config_changed(self) -> None:
        self.config_changes += 1
        if self.back_end is not None and self.back_end.front_ends.session is not None:
            self.back_end.front_ends.session.config_changed()

    def _settings_changed(self) -> None:
        self.settings_changes += 1


@asynccontextmanager
async def back_end(
    device: ShadowedDevice | None = None,
    heard: Heard | None = None,
    *,
    shared_address_space: bool = False,
    follows_filter: bool = False,
    card_mac: bytes | None = None,
    rehearses: bool = True,
    in_order: bool = False,
) -> AsyncIterator[BackEnd]:
    """A back end on a software device, or on the one that is given."""
    heard = heard or Heard()
    opened = await BackEndDevice.open(
        device or LoopDevice(),
        "nic0",
        heard.listeners(),
        shared_address_space=shared_address_space,
        follows_filter=follows_filter,
        card_mac=card_mac,
        rehearses=rehearses,
        in_order=in_order,
    )
    heard.back_end = BackEnd(opened)
    try:
        yield heard.back_end
    finally:
        await opened.close()


class Vmm:
    """A connected front end, and its guest."""

    def __init__(self, guest: Guest, front_end: FrontEnd, features: FeatureSet) -> None:
        self.guest = guest
        self.front_end = front_end
        self.features = features

    @property
    def control(self) -> GuestQueue:
        """The guest's CVQ: the last queue."""
        return self.guest.queues[-1]

    # --- what a front end does ---

    async def set_up(self, bases: Sequence[int] | None = None) -> None:
        """Everything up to the rings; all are stopped."""
        features = mask_of(self.features) | protocol.NOT_A_FLAG_OF_OURS
        await self.front_end.negotiate(features)
        for region in self.guest.regions:
            shared = protocol.single(region.start, region.size, USER + region.start, 0)
            await self.front_end.done(protocol.ADD_MEM_REG, shared, [region.fd])
        await self.set_up_rings(bases)

    async def set_up_rings(self, bases: Sequence[int] | None = None) -> None:
        """All of the guest's rings."""
        for queue, base in zip(self.guest.queues, bases or [0] * 99, strict=False):
            driver, index = queue.driver, queue.index
            parts = (driver.descriptors, driver.used, driver.available)
            addresses = protocol.addresses(index, *(USER + part for part in parts))
            await self.front_end.done(protocol.SET_VRING_NUM, state(index, driver.size))
            await self.front_end.done(protocol.SET_VRING_BASE, state(index, base))
            await self.front_end.done(protocol.SET_VRING_ADDR, addresses)
            await self.front_end.done(protocol.SET_VRING_KICK, u64(index), [queue.kick])
            await self.front_end.done(protocol.SET_VRING_CALL, u64(index), [queue.call])

    async def start(self, bases: Sequence[int] | None = None) -> None:
        """Everything, until the device runs."""
        await self.set_up(bases)
        await self.enable_all()

    async def enable_all(self) -> None:
        """Every ring."""
        await self.front_end.enable(*range(len(self.guest.queues)))

    async def log(self, fd: int) -> None:
        """Begins to log, as QEMU does, in a file that covers all memory."""
        area = protocol.log_area(os.fstat(fd).st_size)
        assert await self.front_end.number(protocol.SET_LOG_BASE, area, [fd]) == 0
        await self._set_features(protocol.LOG_ALL)

    async def log_no_more(self) -> None:
        """Ends that."""
        await self._set_features(0)

    async def _set_features(self, more: int) -> None:
        features = mask_of(self.features) | protocol.NOT_A_FLAG_OF_OURS
        await self.front_end.done(protocol.SET_FEATURES, u64(features | more))

    async def stop(self) -> list[int]:
        """Asks for all bases."""
        return [await self.front_end.base(queue.index) for queue in self.guest.queues]

    async def pause(self) -> list[int]:
        """Stops and starts again where the rings stand."""
        bases = await self.stop()
        await self.set_up_rings(bases)
        await self.enable_all()
        return bases

    # --- what a front end does of a guest that moves ---

    async def save(self) -> bytes:
        """The device's state; the device is stopped."""
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb") as file:
            told = await self._transfer(_SAVE, writer)
            os.close(writer)
            assert told == protocol.NO_FD
            data = await asyncio.to_thread(file.read)
        assert await self.front_end.number(protocol.CHECK_DEVICE_STATE) == 0
        return data

    async def load(self, data: bytes) -> int:
        """Gives the device a state, and returns what CHECK_DEVICE_STATE says."""
        reader, writer = os.pipe()
        assert await self._transfer(_LOAD, reader) == protocol.NO_FD
        os.close(reader)
        with os.fdopen(writer, "wb", buffering=0) as file:
            await asyncio.to_thread(_written, file, data)
        return await self.front_end.number(protocol.CHECK_DEVICE_STATE)

    async def _transfer(self, direction: int, fd: int) -> int:
        return await self.front_end.number(protocol.SET_DEVICE_STATE_FD, state(direction, 0), [fd])

    async def agree(self) -> None:
        """The protocol features alone, as a destination does before a state comes."""
        await self.front_end.send(protocol.SET_PROTOCOL_FEATURES, u64(protocol.ALL_SERVED))

    # --- what a guest does ---

    async def command(self, *parts: bytes, room: Sequence[int] = (1,)) -> bytes:
        """Sends a command in these buffers, and returns the answer that it has."""
        request = self.control.send(list(parts), list(room))
        (answer,) = await self.answers([request])
        return answer

    async def commands(self, encoded: Sequence[bytes]) -> list[bytes]:
        """Sends commands, as many at once as the ring takes, and returns their answers."""
        left, answers = list(encoded), []
        while left:
            batch = []
            while left and self.control.driver.free >= 2:
                command = left.pop(0)
                batch.append(self.control.driver.submit([command], [1], self.control.way))
            self.control.publish()
            answers += await self.answers(batch)
        return answers

    async def answers(self, requests: Iterable[Request]) -> list[bytes]:
        """What the device has written for each."""
        waiting = list(requests)
        found: dict[int, bytes] = {}

        def all_back() -> bool:
            for request, length, data in self.control.collect():
                found[id(request)] = data[:length]
            return len(found) == len(waiting)

        await until(all_back, every=0.0005)
        return [found[id(request)] for request in waiting]

    async def loop(self, packet: bytes, pair: int = 0) -> bytes:
        """Sends a packet and returns what is received."""
        receive, transmit = self.guest.queues[2 * pair], self.guest.queues[2 * pair + 1]
        receive.send([], [BUFFER])
        transmit.send([HEADER, packet], [])
        await until(lambda: receive.returned and transmit.returned, every=0.0005)
        transmit.collect()
        ((_, length, data),) = receive.collect()
        return data[len(HEADER) : length]


@asynccontextmanager
async def vmm(
    on: BackEnd,
    *,
    queues: int = 9,
    features: FeatureSet = PLAIN,
    guest: Guest | None = None,
) -> AsyncIterator[Vmm]:
    """A front end that is connected, and goes at the end; the guest stays if it is given."""
    own = guest or Guest(
        queues,
        event_idx=Feature.RING_EVENT_IDX in features,
        in_order=Feature.IN_ORDER in features,
    )
    ours, theirs = socket.socketpair()
    front_end = FrontEnd(theirs)
    task = asyncio.create_task(on.front_ends.serve(ours))
    try:
        yield Vmm(own, front_end, features)
    finally:
        front_end.close()
        async with asyncio.timeout(GUARD):
            await asyncio.gather(task, return_exceptions=True)
        if guest is None:
            own.close()


def _written(file: BinaryIO, data: bytes) -> None:
    """Writes all, or as much as somebody reads."""
    with suppress(BrokenPipeError):
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]


def called(queue: GuestQueue) -> bool:
    """Whether the guest was interrupted for a queue since this was last asked."""
    try:
        os.eventfd_read(queue.call)
    except BlockingIOError:
        return False
    return True


def settings(on: BackEnd) -> Any:
    """What the guest has set, as the back end has it."""
    found = on.device.settings.found()
    assert found is not None
    assert found.state is not None
    return found.state.model_dump(mode="json", exclude_none=True)


async def until_failed(on: BackEnd) -> None:
    await until(lambda: on.device.status is Status.FAILED)


def waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back ends that start from now on wait for an answer longer than any test may."""
    monkeypatch.setattr(running, "Forwarder", partial(Forwarder, patience=3600.0))


def breaks_with_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on software devices break while a command is out, as where a data ring does it."""

    def breaks(_: NetDevice, command: bytes) -> int:
        raise BadChain(f"as where a data ring breaks the device amid {command.hex()}")

    monkeypatch.setattr(NetDevice, "command", breaks)
