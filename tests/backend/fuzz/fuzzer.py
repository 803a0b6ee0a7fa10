"""Where hostile guests are served, and what must hold, whatever they did.

Each session ends within reason, by an error of ours if by any. No task, descriptor or mapping is
left, the device is stopped, and its thread is there: every so often an honest guest finds it so.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Self

from tests.backend.fuzz.guest import (
    LOG_SIZE,
    QUEUES,
    RECEIVE,
    TRANSMIT,
    HostileGuest,
    enable_all,
    features_of,
    guest_of,
    set_up,
    set_up_rings,
)
from tests.backend.vmm import OK, PLAIN, BackEnd, Vmm, back_end, vmm
from tests.backend.written import used_ring
from tests.support.guest import Guest
from tests.support.waiting import GUARD
from tests.vhost_user.fuzz.bench import nothing_left
from tests.vhost_user.log_file import log_file, pages_in
from vdpad.backend.device_lifecycle import Status
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.packet_offer import PACKET_CONFIG
from vdpad.queues.vhost_vdpa.errors import Unsupported
from vdpad.virtio.commands import VlanAdd
from vdpad.virtio.device_status import DeviceStatus

_NONE: frozenset[int] = frozenset()
_KEPT = {1: frozenset({RECEIVE}), 5: frozenset({RECEIVE, TRANSMIT})}
"""Queues that a guest keeps as it should, by its session's number modulo 8; all are relayed."""
_MAX_STEPS = 24
_HONEST_EVERY = 10


class Fault(AssertionError):
    """A session did what no session may."""


async def play(to: Vmm, random: Random, log: int, keeps: frozenset[int] = _NONE) -> HostileGuest:
    """A guest begins, and does this and that; with a dirty log of LOG_SIZE.

    Args:
        to, random, log, keeps: the HostileGuest's.

    Raises:
        ConnectionError: the back end has closed the connection.
    """
    await set_up(to)
    base = to.guest.queues[0].driver.base
    await set_up_rings(to, [base] * len(to.guest.queues))
    assert await enable_all(to) == 0
    hostile = HostileGuest(to, random, log, keeps=keeps)
    if keeps or random.random() < 0.3:
        await hostile.begin_to_log()
    for _ in range(random.randint(1, _MAX_STEPS)):
        await hostile.step()
        if random.random() < 0.3:
            await asyncio.sleep(0)
    return hostile


class _FuzzedDevice(LoopDevice):
    """One whose memory is logged in each way. It works in order."""

    can_suspend = can_resume = True

    def suspend(self) -> None:
        if not self.can_suspend:
            raise Unsupported("SUSPEND: not here")
        super().suspend()


class RingFuzzer:
    """Sessions of one seed, by number; what chance decides in one is the same each time."""

    def __init__(self, on: BackEnd, device: _FuzzedDevice, seed: int) -> None:
        self._on = on
        self._device = device
        self._seed = seed
        self.broken = 0
        """How many guests have broken their device or their CVQ."""
        self.marked = 0
        """How many had all of their memory marked at a stop."""
        self.relayed = 0
        """How many had what they received marked by the relay."""

    @classmethod
    @asynccontextmanager
    async def begin(cls, seed: int) -> AsyncIterator[Self]:
        """Serves sessions until the end of the context."""
        thrown: list[str] = []
        hook, threading.excepthook = threading.excepthook, lambda args: thrown.append(repr(args))
        try:
            device = _FuzzedDevice(replace(PACKET_CONFIG, max_virtqueue_pairs=1))
            async with back_end(device, in_order=True) as on:
                assert on.device.queues == QUEUES
                yield cls(on, device, seed)
        finally:
            threading.excepthook = hook
        assert thrown == []

    async def hold(self, number: int) -> None:
        """One session, and an honest one after every tenth.

        Raises:
            Fault: one of them did what no session may.
        """
        try:
            async with nothing_left():
                self._device.can_suspend = bool(number % 2)
                self._device.can_resume = number // 8 % 2 == 1
                await self._hold(Random(f"{self._seed} {number}"), _KEPT.get(number % 8, _NONE))
                if number % _HONEST_EVERY == 0:
                    await self._check_honest()
        except Exception as error:
            raise Fault(f"session {number} of seed {self._seed}") from error

    async def _hold(self, random: Random, keeps: frozenset[int]) -> None:
        features = features_of(random)
        guest = guest_of(random, features)
        try:
            async with asyncio.timeout(GUARD), vmm(self._on, features=features, guest=guest) as to:
                # The back end has had enough.
                with contextlib.suppress(ConnectionError), log_file(LOG_SIZE) as log:
                    await self._play(to, random, log, keeps)
        finally:
            guest.close()
        assert self._on.device.status is not Status.RUNNING
        assert self._device.status() == DeviceStatus(0)

    async def _play(self, to: Vmm, random: Random, log: int, keeps: frozenset[int]) -> None:
        hostile = await play(to, random, log, keeps)
        # Others have looked by then, and the end comes in the midst of it or not.
        await asyncio.sleep(random.choice((0, 0, 0.001)))
        self.broken += self._on.device.status is Status.FAILED
        if keeps or random.random() < 0.5:
            await self._stop(to, hostile, log)

    async def _stop(self, to: Vmm, hostile: HostileGuest, log: int) -> None:
        """What the device writes until its stop is marked, by the way that it tells then."""
        is_logged = hostile.log_is_on and self._on.device.is_running
        os.pwrite(log, bytes(LOG_SIZE), 0)
        received = hostile.receive_more() if RECEIVE in hostile.keeps else None
        await asyncio.sleep(0.001)
        await to.stop()
        logged = self._on.device.logged
        if not is_logged or logged is None:
            return
        marked = pages_in(log)
        if logged.way == "everything":
            # Whatever the guest did meanwhile, the device may have written anywhere.
            self.marked += 1
            assert to.guest.pages <= marked
            return
        assert used_ring(to.guest, TRANSMIT) <= marked
        # Of other guests nobody knows where the device has written: their descriptors are others.
        if received is not None and (pages := received.pages()):
            self.relayed += 1
            assert pages <= marked

    async def _check_honest(self) -> None:
        guest = Guest(QUEUES)
        try:
            async with vmm(self._on, features=PLAIN, guest=guest) as to:
                await to.start()
                assert await to.command(VlanAdd(7).encode()) == OK
                assert await to.loop(b"packet") == b"packet"
                assert await to.stop() == [1, 1, 1]
        finally:
            guest.close()
