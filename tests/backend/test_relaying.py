"""Memory that is logged by a relay, on the software device: switched under a guest that goes on."""

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.backend.devices import NeverResumed
from tests.backend.vmm import BUFFER, HEADER, OK, PLAIN, BackEnd, Heard, Vmm, back_end, vmm
from tests.backend.written import changed, contents, driven, used_ring
from tests.support.descriptors import no_descriptor_left
from tests.support.guest import Guest, GuestQueue, shared_region
from tests.support.split_driver import Way
from tests.support.waiting import GUARD, until
from tests.vhost_user.conftest import mappings
from tests.vhost_user.front_end import ADD_MEM_REG, REM_MEM_REG, SET_VRING_CALL, single, u64
from tests.vhost_user.log_file import log_file, pages_in
from vdpad.backend.events import DeviceFailed, LoggingBegan, LoggingEnded
from vdpad.queues.shadowed_device import Vring
from vdpad.queues.software.loop_device import LoopDevice
from vdpad.queues.software.worker import Interrupt
from vdpad.virtio.commands import VlanAdd
from vdpad.virtio.features import Feature
from vdpad.virtio.rings import Region


@pytest.fixture(params=[LoopDevice, NeverResumed])
async def on(request: pytest.FixtureRequest, heard: Heard) -> AsyncIterator[BackEnd]:
    """Of a device that is switched as it runs, and of one that is restarted."""
    before = mappings()
    with no_descriptor_left():
        async with back_end(request.param(), heard) as on:
            yield on
    assert mappings() == before


@pytest.mark.parametrize("event_idx", [True, False])
@pytest.mark.parametrize("way", [Way.DIRECT, Way.INDIRECT])
async def test_what_the_device_writes_is_marked(
    on: BackEnd, heard: Heard, log: int, event_idx: bool, way: Way
) -> None:
    features = PLAIN if event_idx else PLAIN - {Feature.RING_EVENT_IDX}
    async with vmm(on, features=features) as machine:
        for queue in machine.guest.queues:
            queue.way = way
        await machine.start()
        assert await machine.loop(b"before") == b"before"
        await machine.log(log)
        logged = on.device.logged
        assert logged is not None
        assert logged.way == "relay"
        before = contents(machine.guest)
        for n in range(40):
            packet = n.to_bytes(4, "little") * 200
            assert await machine.loop(packet, pair=n % 2) == packet
        await machine.stop()
        marked = pages_in(log)
        written = changed(before, machine.guest)
        if way is Way.DIRECT:
            assert written - driven(machine.guest) <= marked
        for index in range(4):
            assert used_ring(machine.guest, index) <= marked
        assert len(marked) < len(machine.guest.pages) // 2
        await machine.log_no_more()
    assert [type(event) for event in heard.events] == [LoggingBegan, LoggingEnded]


async def test_packets_and_commands_go_on_over_a_hundred_switches(on: BackEnd) -> None:
    async with vmm(on) as machine:
        await machine.start()
        for n in range(100):
            with log_file(1 << 31 >> 15) as log:
                going = asyncio.create_task(_loops(machine, n))
                assert await machine.command(VlanAdd(n + 1).encode()) == OK
                await machine.log(log)
                await machine.command(VlanAdd(n + 1).encode())
                await going
                assert on.device.logged is not None
                assert on.device.logged.way == "relay"
                going = asyncio.create_task(_loops(machine, n))
                await machine.log_no_more()
                await going
        assert [await machine.loop(b"last", pair=pair) for pair in range(4)] == [b"last"] * 4


async def _loops(machine: Vmm, n: int) -> None:
    for pair in range(2):
        packet = b"%d" % n * 3
        assert await machine.loop(packet, pair=pair) == packet


async def test_a_pause_while_it_is_logged(on: BackEnd, log: int) -> None:
    async with vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        for n in range(3):
            assert await machine.loop(b"packet") == b"packet"
            await machine.pause()
            assert on.device.logged is not None
            assert on.device.logged.way == "relay", n
        assert await machine.loop(b"again") == b"again"
        await machine.stop()
        assert pages_in(log) != machine.guest.pages


async def test_a_ring_that_is_enabled_meanwhile_is_relayed(on: BackEnd, log: int) -> None:
    async with vmm(on) as machine:
        await machine.set_up()
        await machine.front_end.enable(0, 1, len(machine.guest.queues) - 1)
        await machine.log(log)
        await machine.front_end.enable(2, 3)
        assert await machine.loop(b"packet", pair=1) == b"packet"
        assert used_ring(machine.guest, 2) <= pages_in(log)


async def test_another_call_is_called(on: BackEnd, log: int) -> None:
    async with vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        await machine.loop(b"packet")
        machine.guest.queues[0].calls()
        await on.device.set_call(0, machine.guest.queues[2].call)
        machine.guest.queues[2].calls()
        await machine.loop(b"packet")
        await until(lambda: machine.guest.queues[2].calls() > 0)
        assert machine.guest.queues[0].calls() == 0


async def test_calls_that_have_changed_are_kept_over_switches(on: BackEnd) -> None:
    async with vmm(on) as machine:
        await machine.start()
        receive, other = machine.guest.queues[0], machine.guest.queues[2]

        async def calls(where: GuestQueue, elsewhere: GuestQueue) -> None:
            await machine.front_end.done(SET_VRING_CALL, u64(0), [where.call])
            for queue in (where, elsewhere):
                queue.calls()
            assert await machine.loop(b"packet") == b"packet"
            await until(lambda: where.calls() > 0)
            assert elsewhere.calls() == 0

        for _ in range(3):
            await calls(other, receive)
            with log_file(1 << 31 >> 15) as log:
                await machine.log(log)
                await calls(receive, other)
                await machine.log_no_more()
                assert await machine.loop(b"packet") == b"packet"
                await until(lambda: receive.calls() > 0)
                assert other.calls() == 0


class Latches(LoopDevice):
    """One whose driver takes an address at enabling, and so needs to be told what is enabled."""

    def move_vring(self, queue: int, vring: Vring, *, enabled: bool) -> None:
        """Refuses what would leave a queue that works with the ring that it had."""
        assert enabled is self._up.queue(queue).enabled
        super().move_vring(queue, vring, enabled=enabled)


async def test_a_ring_that_was_enabled_meanwhile_goes_back_with_the_others(log: int) -> None:
    async with back_end(Latches()) as on, vmm(on) as machine:
        await machine.set_up()
        await machine.front_end.enable(0, 1, len(machine.guest.queues) - 1)
        await machine.log(log)
        await machine.front_end.enable(2, 3)
        await machine.log_no_more()
        assert not on.device.failure
        assert await machine.loop(b"packet", pair=1) == b"packet"


async def test_memory_that_is_plugged_in_meanwhile_is_marked(on: BackEnd) -> None:
    region = shared_region(0x4800_0000)
    try:
        with log_file(1 << 31 >> 15) as log:
            async with vmm(on) as machine:
                await machine.start()
                await machine.log(log)
                shared = single(region.start, region.size, 0x7F20_0000_0000, 0)
                await machine.front_end.done(ADD_MEM_REG, shared, [region.fd])
                receive = machine.guest.queues[0]
                receive.driver.memory.regions[region.start] = region.mapping  # type: ignore[assignment]
                receive.driver._room._taken = [
                    (start, len(data))
                    for start, data in receive.driver.memory.regions.items()
                    if start != region.start
                ]
                assert await machine.loop(b"plugged in") == b"plugged in"
                there = set(range(region.start >> 12, (region.start + region.size) >> 12))
                assert pages_in(log) & there
                await machine.front_end.done(REM_MEM_REG, shared)
    finally:
        region.close()


async def test_what_a_process_before_has_left_unmarked_is_marked_at_a_start(
    on: BackEnd, log: int
) -> None:
    guest = Guest(9)
    try:
        async with vmm(on, guest=guest) as machine:
            await machine.start()
            await machine.log(log)
            assert await machine.loop(b"packet") == b"packet"
            # As if it had been killed: nothing is left in the log.
        os.pwrite(log, bytes(1 << 16), 0)
        async with vmm(on, guest=guest) as machine:
            await machine.set_up([1, 1] + [0] * 7)
            await machine.log(log)
            await machine.enable_all()
            assert await machine.loop(b"again") == b"again"
            assert on.device.logged is not None
            assert on.device.logged.way == "relay"
            await until(lambda: pages_in(log) == guest.pages)
            os.pwrite(log, bytes(1 << 16), 0)
            await machine.pause()
            assert await machine.loop(b"and again") == b"and again"
            await machine.stop()
            assert pages_in(log) != guest.pages
    finally:
        guest.close()


async def test_what_is_written_while_a_log_takes_another_s_place_is_marked(
    on: BackEnd, log: int
) -> None:
    async with vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        memory = on.device._in_use.driven.memory
        take, region = memory._owned.steps.take, machine.guest.regions[-1]
        page = region.start >> 12

        async def written_meanwhile(step: Callable[[], Any]) -> Any:
            done = await take(step)
            memory.marking.wrote(Region(region.start, 1))
            return done

        with log_file(1 << 31 >> 15) as other:
            memory._owned.steps.take = written_meanwhile  # type: ignore[method-assign]
            await machine.log(other)
            memory._owned.steps.take = take  # type: ignore[method-assign]
            await until(lambda: page in pages_in(log) | pages_in(other))
            await machine.log_no_more()


# --- where it cannot be ---


class Ignores(LoopDevice):
    """One that goes on with the ring that it had."""

    def move_vring(self, queue: int, vring: Vring, *, enabled: bool) -> None:
        """Says that it has."""


async def test_a_device_that_ignores_our_rings_has_all_marked_at_the_stop(log: int) -> None:
    heard = Heard()
    async with back_end(Ignores(), heard) as on, vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        assert await machine.loop(b"packet") == b"packet"
        await until(lambda: on.device.logged is not None and on.device.logged.way == "everything")
        assert await machine.loop(b"packet") == b"packet"
        await machine.stop()
        assert pages_in(log) == machine.guest.pages
    assert not any(isinstance(event, DeviceFailed) for event in heard.events)


class Holds(LoopDevice):
    """One that holds buffers that it has taken."""

    def base(self, queue: int) -> int:
        """Ahead of the used index."""
        return super().base(queue) + (queue == 0)


async def test_a_device_that_holds_buffers_goes_on_and_has_all_marked_at_the_stop(log: int) -> None:
    async with back_end(Holds()) as on, vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        assert on.device.logged is not None
        assert on.device.logged.way == "everything"


async def test_a_ring_that_makes_no_sense_breaks_the_device_for_its_guest(
    on: BackEnd, heard: Heard, log: int
) -> None:
    async with vmm(on) as machine:
        await machine.start()
        await machine.log(log)
        receive, transmit = machine.guest.queues[:2]
        request = receive.driver.submit([], [100], Way.DIRECT)
        receive.publish()
        await asyncio.sleep(0.05)
        # The device has it by now; what the relay reads is another.
        on.device._in_use.driven.memory.relaying.thread._lock.acquire()
        transmit.send([HEADER, b"packet"], [])
        await until(lambda: transmit.returned > 0)
        outside = struct.pack("<QIHH", 0, 100, 2, 0)
        receive.driver.memory.poke(receive.driver.descriptors + 16 * request.head, outside)
        on.device._in_use.driven.memory.relaying.thread._lock.release()
        await until(lambda: bool(on.device.failure))
        assert "reach outside the memory" in on.device.failure
        await machine.stop()
        assert pages_in(log) == machine.guest.pages


async def _another_call(machine: Vmm) -> None:
    call = machine.guest.queues[2].call
    await machine.front_end.done(SET_VRING_CALL, u64(0), [call])


async def _more_memory(machine: Vmm) -> None:
    region = shared_region(0x4800_0000)
    added = single(region.start, region.size, 1 << 41, 0)
    await machine.front_end.done(ADD_MEM_REG, added, [region.fd])
    await machine.front_end.done(REM_MEM_REG, added)
    region.close()


async def _no_more(machine: Vmm) -> None:
    await machine.log_no_more()


async def _stop(machine: Vmm) -> None:
    await machine.stop()


@pytest.mark.parametrize("step", [_another_call, _more_memory, _no_more, _stop])
async def test_a_call_that_sleeps_holds_up_no_step(
    on: BackEnd,
    log: int,
    monkeypatch: pytest.MonkeyPatch,
    step: Callable[[Vmm], Awaitable[None]],
) -> None:
    """As where the VMM fills its counter between our look at it and our write."""
    monkeypatch.setattr(Interrupt, "__call__", lambda self: os.eventfd_write(self._fd, 1))
    full = os.eventfd(0, os.EFD_CLOEXEC)
    async with vmm(on) as machine:
        await machine.start()
        await machine.front_end.done(SET_VRING_CALL, u64(0), [full])
        await machine.log(log)
        os.eventfd_write(full, (1 << 64) - 2)
        receive, transmit = machine.guest.queues[:2]
        receive.send([], [BUFFER])
        transmit.send([HEADER, b"packet"], [])
        await until(lambda: receive.returned > 0)
        await asyncio.sleep(0.05)
        async with asyncio.timeout(GUARD):
            await step(machine)
    os.close(full)
